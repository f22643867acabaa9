"""DeqIR: the fixed point is DDNM's chain, it takes fewer rounds than steps, and its gradient is the chain's."""

import pytest
import torch

from fewstep import VP, Flow
from fewstep.errors import ArgumentError
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Mask, Matrix, Measurement, restore
from fewstep.restoration.deep_equilibrium import DeepEquilibrium, anderson
from fewstep.worlds import Gaussian, GaussianMixture

MIXTURE = GaussianMixture(
    [0.3, 0.7], torch.tensor([[0.5, -0.4, 0.2], [-0.3, 0.6, 0.1]]), torch.full((2, 1), 0.1)
)  # fmt: skip
OPERATOR = Matrix(torch.tensor([[1.0, 0.5, -0.3]]), (3,))
SEEN = Measurement(OPERATOR, torch.tensor([[0.4], [-0.2]], dtype=torch.float64))


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("path", [VP(), Flow()], ids=["vp", "flow"])
def test_as_many_plain_rounds_as_steps_are_ddnm(eta, path):
    common = {"samples": 2, "seed": 3, "dtype": torch.float64, "eta": eta}
    denoiser = MIXTURE.denoiser(path)
    want = restore(denoiser, SEEN, "ddnm", evaluations=8, **common).x
    got = restore(denoiser, SEEN, "deq", steps=8, rounds=8, memory=1, tolerance=0.0, **common)
    assert torch.allclose(got.x, want, atol=1e-9)
    assert got.stats.evaluations == 64
    early = restore(denoiser, SEEN, "deq", steps=8, rounds=3, memory=1, tolerance=0.0, **common).x
    assert float((early - want).norm()) > 1e-4


def test_a_tolerance_needs_fewer_rounds_than_steps():
    denoiser, steps = MIXTURE.denoiser(VP()), 60
    want = restore(denoiser, SEEN, "ddnm", evaluations=steps, eta=0.0, samples=3, dtype=torch.float64).x
    for memory in (1, 5):
        out = restore(
            denoiser, SEEN, "deq", steps=steps, memory=memory, rounds=80, tolerance=1e-3, samples=3, dtype=torch.float64
        )
        assert out.stats.rounds < 0.85 * steps
        assert out.stats.evaluations == out.stats.rounds * steps
        assert torch.allclose(out.x, want, atol=2e-2)


def test_andersons_weights_solve_a_linear_system():
    """On X → M X + b of 2 numbers the third round is exact, whatever the other samples are."""
    matrix = torch.tensor([[0.5, 0.8], [-0.6, 0.9]], dtype=torch.float64)
    b = torch.tensor([[1.0, -2.0], [0.3, 0.4]], dtype=torch.float64)
    fixed = torch.linalg.solve(torch.eye(2) - matrix, b.mT).mT
    x, guesses, images = torch.zeros(1, 2, 2, dtype=torch.float64), [], []
    for _ in range(3):
        guesses, images = [*guesses, x], [*images, x @ matrix.mT + b]
        x = anderson(guesses, images, 1.0, 1e-14)
    assert torch.allclose(x[0], fixed, atol=1e-5)
    damped = anderson(guesses[:1], images[:1], 0.25, 1e-14)
    assert torch.allclose(damped, 0.25 * images[0])


def test_the_measurement_is_met():
    x = restore(MIXTURE.denoiser(VP()), SEEN, "deq", steps=6, samples=2, dtype=torch.float64).x
    assert torch.allclose(OPERATOR.A(x), SEEN.y.repeat_interleave(2, 0), atol=1e-9)


@pytest.mark.parametrize("world", [MIXTURE, Gaussian(torch.zeros(3), torch.tensor([0.9, 0.3, 0.1]))])
def test_the_gradient_to_the_start_is_the_chains(world):
    loop = DeepEquilibrium(SEEN, steps=7, rounds=60, tolerance=1e-12, eta=0.3)
    generator = torch.Generator().manual_seed(0)
    start, along, pull = torch.randn(3, 2, 3, dtype=torch.float64, generator=generator)
    denoiser = world.denoiser(VP())
    at = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad((loop.from_start(denoiser, at) * pull).sum(), at)
    near = [float((loop.from_start(denoiser, start + h * along) * pull).sum()) for h in (1e-4, -1e-4)]
    assert float((slope * along).sum()) == pytest.approx((near[0] - near[1]) / 2e-4, rel=1e-4, abs=1e-8)


def test_a_budget_is_kept():
    for evaluations in (1, 4, 8, 100, 375, 1000):
        loop = DeepEquilibrium(SEEN).spending(evaluations)
        assert loop.steps * loop.rounds <= evaluations
    assert DeepEquilibrium(SEEN).spending(375).steps == 25


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rounds": 0}, "rounds"), ({"beta": 0.0}, "beta"), ({"ridge": 0.0}, "ridge"), ({"eta": 2.0}, "eta")],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        DeepEquilibrium(Measurement(Mask(torch.tensor([1, 0])), torch.zeros(1, 2), Noise(0.1)), **options)
