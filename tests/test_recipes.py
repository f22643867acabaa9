"""Every recipe of the manual runs as it stands and draws its figure."""

import runpy
from pathlib import Path

import matplotlib
import pytest

RECIPES = sorted((Path(__file__).parents[1] / "examples" / "recipes").glob("plot_*.py"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_recipe_runs(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        session = runpy.run_path(str(recipe))
        assert "figure" in session
        session["figure"].savefig("figure.png")
        assert Path("figure.png").stat().st_size > 5000
    finally:
        pyplot.close("all")


def test_there_are_recipes():
    assert len(RECIPES) == 6
