"""CODE: the way up and down, the Langevin moves in closed form, and the clip on a picture that no picture is."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from fewstep import VP
from fewstep.errors import ArgumentError
from fewstep.restoration import AverageDownsample, Measurement, restore
from fewstep.restoration import Mask as Seen
from fewstep.restoration.confident_editing import ConfidentEditing
from fewstep.worlds import Gaussian, GaussianMixture

_spec = importlib.util.spec_from_file_location("benches", Path(__file__).with_name("benches.py"))
benches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benches)
law = benches.law

WORLD = Gaussian(torch.tensor([0.1, -0.2]), 0.2)
Y = torch.tensor([[0.6, 0.3]], dtype=torch.float64)
GIVEN = Measurement(Seen(torch.ones(2)), Y)


def code(**options):
    return ConfidentEditing(GIVEN, **{"confidence": math.inf, "level": 0.6, "steps": 30, "moves": 0, **options})


def test_without_moves_the_picture_comes_back_up_to_the_flows_first_order():
    error = []
    for steps in (20, 40, 80):
        mean, _ = law(WORLD, code(steps=steps, lowest=1e-3))
        error.append(float((mean - Y[0]).norm()))
    assert error[0] > error[1] > error[2]
    assert error[1] / error[2] == pytest.approx(2.0, rel=0.2)


def test_moves_forget_the_picture_at_langevins_rate():
    """In a Gaussian world the mean's distance from the level's own shrinks by 1 − cσ²/(α²s² + σ²) a move."""
    options = {"step_size": 0.05, "blocks": 3, "factor": 0.5}
    still, moved = (law(WORLD, code(moves=moves, **options))[0] for moves in (0, 7))
    sigma2 = 0.6**2 / (1 + 0.6**2)  # σ/α = 0.6 on a path with α² + σ² = 1
    share = sigma2 / ((1 - sigma2) * 0.2 + sigma2)
    kept = 1.0
    for count, size in ((2, 0.05), (2, 0.025), (3, 0.0125)):
        kept *= (1 - size * share) ** (count + 1)
    mean = law(Gaussian(torch.tensor([0.1, -0.2]), 0.2), code(moves=0))[0]
    assert torch.allclose(mean, still)
    centre = restore_centre()
    assert torch.allclose(moved - centre, kept * (still - centre), atol=1e-9)


def restore_centre():
    """Where the whole way sends the picture that lies at the level's own mean: the prior's mean, as all is affine."""
    at = Measurement(Seen(torch.ones(2)), torch.tensor([[0.1, -0.2]], dtype=torch.float64))
    return law(WORLD, ConfidentEditing(at, confidence=math.inf, level=0.6, steps=30, moves=0))[0]


def test_many_small_moves_give_a_sample_of_the_model():
    mean, covariance = law(WORLD, code(steps=60, moves=300, step_size=0.04, blocks=1))
    assert torch.allclose(mean, torch.tensor([0.1, -0.2], dtype=torch.float64), atol=2e-3)
    assert torch.allclose(covariance, 0.2 * torch.eye(2, dtype=torch.float64), atol=0.02)


def test_the_clip_discards_what_no_picture_makes():
    pictures = GaussianMixture(
        [0.5, 0.5], torch.stack([torch.full((1, 4, 4), v) for v in (-0.5, 0.5)]), torch.full((2, 1), 0.02)
    )
    truth = pictures.sample(4, seed=2)
    broken = truth.clone()
    broken[:, :, 1, 1] = 9.0  # hot pixels
    given = Measurement(Seen(torch.ones(1, 4, 4)), broken)
    options = {"level": 1.5, "steps": 30, "moves": 20, "step_size": 0.05}
    off, denoiser, seen = {}, pictures.denoiser(VP()), []
    raw = denoiser.raw
    denoiser.raw = lambda x, told: (seen.append((x, told)), raw(x, told))[1]
    for confidence in (1.7, math.inf):
        x = restore(denoiser, given, "code", confidence=confidence, dtype=torch.float64, **options).x
        off[confidence] = float((x - truth).square().mean().sqrt())
    assert off[1.7] < 0.6 * off[math.inf]
    for x, t in seen[:29]:  # the way up of the first run
        assert float((x.abs() - VP().alpha(t) - 1.7 * VP().sigma(t)).max()) < 1e-9


def test_of_other_measurements_the_pseudo_inverse_is_edited():
    low = Measurement(AverageDownsample(2), torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64))
    world = Gaussian(torch.zeros(1, 4, 4), 0.2)
    x = restore(world.denoiser(VP()), low, "code", steps=60, moves=0, lowest=1e-3, dtype=torch.float64).x
    assert torch.allclose(x, torch.full_like(x, 0.3), atol=0.03)


def test_a_budget_is_kept():
    for evaluations in (1, 2, 3, 8, 50, 700):
        loop = ConfidentEditing(GIVEN).spending(evaluations)
        spent = 2 * loop.steps - 1 + sum(len(block) + 1 for block in loop._blocks())
        assert spent <= evaluations or evaluations == 1
        assert spent > 0.9 * min(evaluations, 603) - 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps"), ({"level": 0.0}, "lowest and level"), ({"factor": 0.0}, "factor"),
     ({"step_size": -1.0}, "step_size"), ({"confidence": 0.0}, "confidence")],
)  # fmt: skip
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        code(**options)
