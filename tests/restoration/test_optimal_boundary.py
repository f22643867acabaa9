"""The searched start: the least error on the references, the same for all, and 0 on Gaussian data."""

import pytest
import torch

from fewstep import VP, make_plan, sample
from fewstep.errors import ArgumentError
from fewstep.restoration import Matrix, Measurement, restore, restorer_named
from fewstep.restoration.optimal_boundary import OptimalBoundary
from fewstep.worlds import Gaussian

WORLD = Gaussian(torch.tensor([0.2, -0.1, 0.3]), torch.tensor([[0.5, 0.3, 0.1], [0.3, 0.6, 0.0], [0.1, 0.0, 0.4]]))
DENOISER = WORLD.denoiser(VP())
OPERATOR = Matrix(torch.tensor([[1.0, 0.5, -0.3]]), (3,))
COMMON = {"dtype": torch.float64, "steps": 12, "eta": 0.0}
TRUTHS = WORLD.sample(24, seed=1)
SEEN = Measurement.simulate(OPERATOR, WORLD.sample(40, seed=2))


def boundary(**options):
    return OptimalBoundary(SEEN, **{"steps": 12, "truths": TRUTHS, "candidates": 12, **options})


def test_scores_are_the_errors_of_ddim_runs_with_the_guide():
    found = boundary(candidates=3).search(DENOISER, dtype=torch.float64)
    seen = Measurement.simulate(OPERATOR, TRUTHS)
    guides = restorer_named("ddnm", seen).guides()
    x = sample(
        DENOISER, plan=make_plan(DENOISER.path, "ddim", "uniform", 12), start=found.start.expand(24, 3).contiguous(),
        guides=guides,
    ).x  # fmt: skip
    best = found.scores[found.scores.sum(1).argmin()]
    assert torch.allclose((x - TRUTHS).square().mean(1), best)
    assert found.evaluations == 3 * 24 * 12


def test_on_gaussian_data_the_start_0_is_best_and_references_agree_on_the_others():
    found = boundary(null=True, truths=WORLD.sample(1000, seed=3)).search(DENOISER, dtype=torch.float64)
    assert not found.start.any()
    ranks = [half.mean(1)[1:].argsort().argsort().double() for half in found.scores.split(500, 1)]
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.8


def test_what_was_found_serves_other_measurements():
    start = boundary().search(DENOISER, dtype=torch.float64).start
    truth = WORLD.sample(40, seed=2)
    out = restore(DENOISER, SEEN, "optimal-boundary", start=start, steps=12, dtype=torch.float64)
    chance = restore(DENOISER, SEEN, "ddnm", evaluations=12, eta=0.0, samples=8, dtype=torch.float64).x
    best = float((out.x - truth).square().mean())
    assert best < 0.85 * float((chance - truth.repeat_interleave(8, 0)).square().mean())
    assert out.stats.evaluations == 12
    assert out.stats.search == 0


def test_the_model_draws_references_where_there_are_none():
    options = {"steps": 6, "references": 2, "candidates": 3, "dtype": torch.float64}
    out = restore(DENOISER, SEEN, "optimal-boundary", samples=2, **options)
    assert out.stats.search == 2 * 6 + 3 * 2 * 6
    assert torch.equal(out.x[::2], out.x[1::2])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"candidates": 0}, "candidates"), ({"restorer": "ddrm"}, "restorer must be a guide"), ({"steps": 0}, "steps")],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        boundary(**options)
    with pytest.raises(ArgumentError, match="start must be"):
        restore(DENOISER, SEEN, "optimal-boundary", start=torch.zeros(1, 4))
