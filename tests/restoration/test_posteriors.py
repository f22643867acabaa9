"""Every restorer on the bench: where it is exact, and the bias that each is known to have, without sampling error.

The prior is a Gaussian of two numbers with correlation 0.8, of which the first is measured as 1.5.  The posterior is
(1.376, 1.101), variance (0.083, 0.413) at σ_y = 0.3, and (1.5, 1.2), (0, 0.36) without noise.
"""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from fewstep import VP, Flow
from fewstep.guidance import Ask
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Matrix, Measurement, restorer_named
from fewstep.solvers.resampling import stretches
from fewstep.worlds import Gaussian

_spec = importlib.util.spec_from_file_location("benches", Path(__file__).with_name("benches.py"))
benches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benches)
b1, law = benches.b1, benches.law


@pytest.mark.parametrize(
    ("name", "parameters", "evaluations", "tolerance"),
    [
        ("pgdm", {"data_variance": 0.25}, 150, 5e-2),
        ("noise-refined", {"data_variance": 0.25}, 150, 5e-2),
        ("daps", {"data_variance": 0.25, "chain": "exact", "inner": 1, "steps": 30, "moves": 1}, None, 1e-9),
    ],
)
def test_exact_where_the_data_are_an_isotropic_gaussian(name, parameters, evaluations, tolerance):
    """Cov[x₀ | x_t] = r² I there, so these three know the likelihood; the operator may be any."""
    world = Gaussian(torch.tensor([0.3, -0.2, 0.1]), 0.25)
    operator = Matrix(torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]]), (3,))
    measurement = Measurement(operator, torch.tensor([[0.7, -0.4]], dtype=torch.float64), Noise(0.4))
    exact = world.posterior(operator.matrix, measurement.y[0], 0.4)
    mean, covariance = law(world, restorer_named(name, measurement, **parameters), evaluations, solver=None)
    assert torch.allclose(mean, exact.mean, atol=tolerance)
    assert torch.allclose(covariance, exact.covariance, atol=tolerance / 2)


def test_ddnm_has_the_posterior_mean_for_every_eta_and_a_known_share_of_its_covariance():
    world = Gaussian(torch.zeros(3), torch.tensor([[1.0, 0.5, 0.2], [0.5, 0.8, -0.1], [0.2, -0.1, 0.5]]))
    operator = Matrix(torch.tensor([[1.0, 0.5, -0.3]]), (3,))
    measurement = Measurement(operator, torch.tensor([[0.7]], dtype=torch.float64))
    exact = world.posterior(operator.matrix, measurement.y[0], 1e-6)
    for eta in (0.0, 0.85):
        mean, covariance = law(world, restorer_named("ddnm", measurement, eta=eta), 150)
        assert torch.allclose(mean, exact.mean, atol=2e-2)
        assert torch.allclose(covariance, exact.covariance * (1 + math.sqrt(1 - eta**2)) / 2, atol=2e-2)
        assert float((operator.A(mean[None]) - measurement.y).abs()) < 1e-9


@pytest.mark.parametrize(
    ("variance", "mean", "spread"), [(1.0, (0.76, 0.52), None), (0.25, (1.06, 0.84), (0.071, 0.137))]
)
def test_pgdm_believes_the_variance_that_it_is_told(variance, mean, spread):
    """Of data of variance 1/4, whose posterior is (1.10, 0.88), (0.066, 0.132)."""
    world, measurement = b1(0.3, scale=0.5)
    got = law(world, restorer_named("pgdm", measurement, data_variance=variance), 150, solver="ddim")
    assert got[0].tolist() == pytest.approx(mean, abs=2e-2)
    if spread is not None:
        assert got[1].diagonal().tolist() == pytest.approx(spread, abs=2e-2)


def test_dmps_is_right_where_the_data_are_wide():
    """Its flat prior: the error relative to the noise falls as the data's deviation grows."""
    off = {}
    for scale in (1.0, 4.0):
        world, measurement = b1(0.3, scale=scale)
        exact = world.posterior(torch.tensor([[1.0, 0.0]]), measurement.y[0, :1], 0.3)
        got = law(world, restorer_named("dmps", measurement, scale=1.0), 150)
        off[scale] = float((got[0] - exact.mean)[0].abs())
    assert off[4.0] < 0.5 * off[1.0]


def test_repaint_goes_to_the_truth_with_repeats_where_more_steps_do_not():
    world, measurement = b1(0.0)
    error = {}
    for repeats, evaluations in ((1, 30), (1, 60), (10, 240)):
        mean, _ = law(world, restorer_named("repaint", measurement, repeats=repeats), evaluations)
        error[repeats, evaluations] = abs(float(mean[1]) - 1.2)
        assert math.isclose(float(mean[0]), 1.5, rel_tol=1e-9)
    assert error[10, 240] < 0.4 < error[1, 60]


def test_repaints_default_schedule_costs_what_the_paper_spends():
    walked = list(stretches(250, 10, 10))
    assert walked[0] == (250, 230)
    assert walked[-1] == (10, 0)
    assert sum(high - low for high, low in walked if high > low) == 2410
    assert sum(high < low for high, low in walked) == 24 * 9
    _, measurement = b1(0.0)
    plan = restorer_named("repaint", measurement, repeats=3, jump_length=4).plan(benches.PATH, 60, None, None)
    assert plan.evaluations <= 60 < plan.evaluations + 1 + 2 * 4


def test_lanpaints_two_sided_pull_is_faster_and_without_it_the_chain_is_exact():
    world, measurement = b1(0.0)
    error = {}
    for pull, inner in ((0.0, 3), (8.0, 3), (0.0, 20)):
        mean, _ = law(world, restorer_named("lanpaint", measurement, pull=pull, inner=inner))
        error[pull, inner] = abs(float(mean[1]) - 1.2)
    assert error[8.0, 3] < 0.7 * error[0.0, 3]
    assert error[0.0, 20] < error[0.0, 3] / 3


def test_daps_chains_go_to_the_exact_one():
    world, measurement = b1(0.3)
    options = {"inner": 1, "steps": 6, "sigma_max": 3.0, "moves": 150}
    exact = law(world, restorer_named("daps", measurement, chain="exact", **options))
    for chain, extra in (("langevin", {"step_size": 0.02}), ("hmc", {"step_size": 1e-3, "momentum": 0.9})):
        got = law(world, restorer_named("daps", measurement, chain=chain, **options, **extra))
        assert torch.allclose(got[0], exact[0], atol=0.15)


def test_more_of_ddrm_collapses_on_a_noisy_measurement():
    world, measurement = b1(0.3)
    narrow, wide = (law(world, restorer_named("ddrm", measurement, steps=n)) for n in (200, 20))
    assert float(narrow[1][0, 0]) < 0.6 * float(wide[1][0, 0])
    assert float(wide[0][0]) < 1.376 < float(narrow[0][0])


def test_ddrms_temperature_is_a_factor_on_all_noise_of_its_steps():
    """With η = 1 nothing but the answers of the start is left of its noise, which many steps forget."""
    world, measurement = b1(0.3)
    whole, half = (
        law(world, restorer_named("ddrm", measurement, steps=60, eta=1.0, temperature=t)) for t in (1.0, 0.5)
    )
    assert torch.allclose(half[0], whole[0], atol=1e-9)
    assert torch.allclose(half[1], whole[1] / 4, atol=2e-3)
    assert float(half[1][1, 1]) > 0.02


def test_ddrms_temperature_leaves_the_kept_noise_alone():
    """With η = 0 what is not measured, and goes with nothing that is, is all kept noise."""
    world, measurement = Gaussian(torch.zeros(2), 1.0), b1(0.3)[1]
    whole, cold = (law(world, restorer_named("ddrm", measurement, eta=0.0, temperature=t))[1][1, 1] for t in (1.0, 0.0))
    assert float(cold) == pytest.approx(float(whole), abs=1e-9)
    assert float(cold) > 0.5


@pytest.mark.parametrize("name", ["diffpir", "noise-refined", "dmps", "dds"])
def test_one_answer_by_its_formula(name):
    """At one noise level (α = 0.6, σ = 0.8), in dense matrices."""
    matrix = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
    y, sigma_y, alpha, sigma = torch.tensor([[0.7, -0.4]], dtype=torch.float64), 0.9, 0.6, 0.8
    x, x0 = (torch.tensor([v], dtype=torch.float64) for v in ([0.4, -1.1, 0.9], [0.2, 0.3, -0.5]))
    path, spread, one = VP(), (sigma / alpha) ** 2, torch.eye(3, dtype=torch.float64)

    def pull(centre, spread):
        inner = spread * matrix @ matrix.mT + sigma_y**2 * torch.eye(2)
        return (matrix.mT @ torch.linalg.solve(inner, (y - centre @ matrix.mT).mT)).mT

    gram = matrix.mT @ matrix
    wants = {
        "diffpir": x0 + spread / 2 * pull(x0, spread / 2),
        "noise-refined": x0 + spread * pull(x0, spread),
        "dmps": x0 + 1.75 * sigma**2 / alpha**2 * pull(x / alpha, spread),
        "dds": torch.linalg.solve(one + 0.7 * gram, (x0 + 0.7 * y @ matrix).mT).mT,
    }
    options = {"diffpir": {"weight": 2.0}, "dds": {"gamma": 0.7, "iterations": 3}}.get(name, {})
    guide = restorer_named(name, Measurement(Matrix(matrix, (3,)), y, Noise(sigma_y)), **options)
    t = path.t_of_lam(math.log(alpha / sigma))
    denoiser = Gaussian(torch.zeros(3), 1.0).denoiser(path)
    ask = Ask(x, t, t / 2, 0, 2, denoiser, lambda slot: x, lambda *a: x, {})
    assert torch.allclose(guide.answer(ask, x0, None)[0], wants[name], atol=1e-9)


@pytest.mark.parametrize("adjoint", [False, True])
def test_flowdps_steps_go_down_the_norm(adjoint):
    """Against the gradient of ‖B(y − A z)‖ by autograd, B = A† or Aᵀ."""
    matrix = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
    y, x0 = torch.tensor([[0.7, -0.4]], dtype=torch.float64), torch.tensor([[0.2, 0.3, -0.5]], dtype=torch.float64)
    back = matrix.mT if adjoint else torch.linalg.pinv(matrix)
    z = x0.clone().requires_grad_()
    for _ in range(2):
        (slope,) = torch.autograd.grad(((y - z @ matrix.mT) @ back.mT).norm(), z)
        z = (z - 0.3 * slope).detach().requires_grad_()
    guide = restorer_named(
        "flowdps", Measurement(Matrix(matrix, (3,)), y, Noise(0.1)), steps=2, length=0.3, adjoint=adjoint
    )
    denoiser, t = Gaussian(torch.zeros(3), 1.0).denoiser(Flow()), torch.tensor(0.4, dtype=torch.float64)
    ask = Ask(x0, t, t / 2, 0, 2, denoiser, lambda slot: x0, lambda *a: x0, {})
    assert torch.allclose(guide.answer(ask, x0, None)[0], x0 + 0.4 * (z.detach() - x0), atol=1e-12)


def test_pgdm_as_published_moves_by_the_squared_signal_of_the_likelihoods_move():
    _, measurement = b1(0.3)
    denoiser, path = b1(0.3)[0].denoiser(VP()), VP()
    t = path.t_of_lam(math.log(0.6 / 0.8))
    x = torch.tensor([[0.4, -1.1]], dtype=torch.float64, requires_grad=True)
    ask = Ask(x, t, t / 2, 0, 2, denoiser, lambda slot: x, lambda *a: x, {})
    moved = []
    for published in (False, True):
        guide, x0 = restorer_named("pgdm", measurement, published=published), denoiser(x, t)
        moved.append((guide.answer(ask, x0, None)[0] - x0).detach())
    assert torch.allclose(moved[1], 0.36 * moved[0], atol=1e-12)
    assert float(moved[0].abs().max()) > 0.1
