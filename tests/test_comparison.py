"""Comparing samplers: the figures are those of the runs, and the table and the picture show them."""

import pytest
import torch
from PIL import Image

from fewstep import CFG, VP, compare, make_plan, sample
from fewstep.analysis import exact_flow
from fewstep.denoisers import Latent
from fewstep.errors import ArgumentError
from fewstep.worlds import GaussianMixture


def world(labels=None):
    means = torch.tensor([[[[-0.5, 0.2], [0.1, 0.3]]], [[[0.6, -0.4], [0.0, 0.2]]]])
    return GaussianMixture([0.5, 0.5], means, torch.full((2, 1), 0.04), component_labels=labels).denoiser(VP())


def test_figures_are_those_of_the_runs(tmp_path):
    denoiser = world()
    result = compare(denoiser, ["ddim", "dpm-solver++", "ddpm"], [4, 9], grids=["logsnr", "karras"], n=5, seed=2)
    assert [(r.solver, r.grid, r.evaluations) for r in result.rows[:4]] == [
        ("ddim", "logsnr", 4), ("ddim", "logsnr", 9), ("ddim", "karras", 4), ("ddim", "karras", 9),
    ]  # fmt: skip
    run = sample(denoiser, 5, solver="ddim", grid="karras", steps=9, seed=2, keep="trajectory")
    exact = exact_flow(denoiser, run.trajectory[0], 1.0)
    error = (run.x.double() - exact).flatten(1).square().mean(1).sqrt().median()
    assert result.rows[3].error == pytest.approx(float(error), rel=1e-4)
    assert torch.equal(result.rows[3].x, run.x)
    assert all(r.error is None for r in result.rows if r.solver == "ddpm")
    assert result.best[9].solver == "dpm-solver++"
    assert "draws noise" in str(result)
    assert "the exact flow, 5 samples" in str(result)
    result.save(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 500
    assert result._repr_png_().startswith(b"\x89PNG")


def test_samples_of_a_latent_model_are_compared_as_pictures(tmp_path):
    inner = world()
    latent = Latent(inner, lambda x: x[:, :1, ::2, ::2], lambda z: 0.25 * z.repeat(1, 3, 2, 2), (3, 4, 4))
    codes, pictures = (compare(d, ["ddim"], [3], n=4, seed=2) for d in (inner, latent))
    assert pictures.rows[0].x.shape == pictures.reference.shape == (4, 3, 4, 4)
    assert torch.allclose(pictures.rows[0].x, latent.decode(codes.rows[0].x))
    heun = sample(inner, 4, solver="heun", grid="logsnr", steps=100, seed=2).x
    error = (pictures.rows[0].x - latent.decode(heun)).flatten(1).square().mean(1).sqrt().median()
    assert pictures.rows[0].error == pytest.approx(float(error), rel=1e-3)
    pictures.save(tmp_path / "c.png")


def test_guides_bend_the_flow_so_the_reference_is_many_steps():
    denoiser = world([0, 1])
    result = compare(denoiser, ["ddim"], [8], n=2, guides=[CFG(1.5)], cond={"label": [0, 1]})
    assert result.against == "100 steps of Heun"
    assert result.rows[0].evaluations == 8
    bare = compare(denoiser, ["ddim"], [8], n=2, cond={"label": [0, 1]})
    assert bare.against == "the exact flow"
    assert not torch.allclose(bare.reference, result.reference, atol=1e-3)


def test_plans_by_name():
    denoiser = world()
    plan = make_plan(VP(), "dpm-solver++", "logsnr", 6)
    result = compare(denoiser, [], [], plans={"mine": plan})
    assert (result.rows[0].solver, result.rows[0].evaluations) == ("mine", 6)


def test_samplers_that_all_draw_noise_have_no_curve_and_are_shown(tmp_path):
    result = compare(world(), ["ddpm"], [3], n=2)
    result.save(tmp_path / "c.svg")
    with pytest.raises(ArgumentError, match="unknown kind of picture 'foo'"):
        result.save(tmp_path / "c.foo")


@pytest.mark.parametrize("wrong", [
    {"plans": [1]}, {"plans": {"mine": 1}}, {"plans": {1: make_plan(VP(), steps=2)}}, {"n": True}, {"n": 10**14},
    {"tell": 3}, {"address": 3}, {"cond": [1]}, {"cond": {1: 1}}, {"denoiser": "mnist"}, {"solvers": "ddim"},
])  # fmt: skip
def test_bad_comparisons_are_refused(wrong):
    with pytest.raises(ArgumentError):
        compare(**{"denoiser": world(), "solvers": ["ddim"], "evaluations": [2], **wrong})


def test_nothing_to_compare_is_refused():
    with pytest.raises(ArgumentError, match="at least one solver"):
        compare(world(), [])
    with pytest.raises(ArgumentError, match="unknown solver 'dimd'"):
        compare(world(), ["dimd"])
