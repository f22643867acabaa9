"""Every restorer on the bench: where it is exact, and the bias that each is known to have, without sampling error.

The prior is a Gaussian of two numbers with correlation 0.8, of which the first is measured as 1.5.  The posterior is
(1.376, 1.101), variance (0.083, 0.413) at σ_y = 0.3, and (1.5, 1.2), (0, 0.36) without noise.
"""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from fewstep import VE, VP, Flow
from fewstep.guidance import Ask
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Matrix, Measurement, restorer_named
from fewstep.restoration.repaint import stretches
from fewstep.worlds import Gaussian

_spec = importlib.util.spec_from_file_location("benches", Path(__file__).with_name("benches.py"))
benches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benches)
b1, b2, law = benches.b1, benches.b2, benches.law

# method, parameters, σ_y, evaluations and how, mean of x₁ and x₂, variance of both, tolerance.
REFERENCES = [
    ("ddnm", {}, 0.0, 20, {"grid": "linspace"}, (1.5, 0.901, 0.0, 0.304), 2e-3),
    ("ddnm", {}, 0.0, 100, {"grid": "linspace"}, (1.5, 1.105, 0.0, 0.284), 2e-3),
    ("ddnm", {"eta": 0.0}, 0.0, 20, {"grid": "linspace"}, (1.5, 0.964, 0.0, 0.355), 2e-3),
    ("diffpir", {}, 0.3, 20, {"grid": "linspace"}, (1.360, 0.526, 0.046, 0.548), 2e-3),
    ("diffpir", {}, 0.3, 100, {"grid": "linspace"}, (1.360, 0.649, 0.068, 0.578), 2e-3),
    ("noise-refined", {}, 0.3, 150, {}, (1.366, 0.496, 0.075, 0.694), 2e-2),
    ("pgdm", {}, 0.3, 100, {"solver": "ddim"}, (1.327, 1.042, 0.102, 0.441), 2.5e-2),
    ("pgdm", {}, 0.3, 150, {}, (1.344, 1.046, 0.089, 0.430), 3e-2),
    ("dps-likelihood", {}, 0.3, 150, {"solver": "ddim"}, (1.645, 1.878, 0.005, 0.240), 5e-2),
    ("dmps", {"scale": 1.0}, 0.3, 150, {}, (1.181, 0.507, 0.079, 0.612), 3e-2),
    ("dmps", {}, 0.3, 150, {}, (1.328, 0.597, 0.036, 0.564), 3e-2),
    ("repaint", {"repeats": 1}, 0.0, 250, {}, (1.5, 0.744, 0.0, 0.477), 2e-3),
    ("dds", {}, 0.3, 200, {}, (1.5, 1.16, 0.0, 0.282), 9e-2),
    ("flowdps", {}, 0.0, 28, {"path": Flow()}, (1.33, 0.905, 0.060, 0.360), 3e-3),
    ("flowdps", {}, 0.0, 200, {"path": Flow()}, (1.406, 1.033, 0.028, 0.293), 3e-3),
    ("ddrm", {"steps": 100}, 0.3, None, {}, (1.369, 0.981, 0.027, 0.319), 3e-3),
    ("ddnm+", {"steps": 100}, 0.3, None, {}, (1.369, 0.981, 0.027, 0.319), 3e-3),
    ("daps", {"steps": 100, "inner": 1, "chain": "exact", "moves": 1}, 0.3, None, {"path": VE(100.0)},
     (1.372, 1.046, 0.082, 0.451), 6e-2),
    ("lanpaint", {"inner": 0}, 0.0, None, {}, (1.5, 0.482, 0.0, 0.519), 5e-3),
    ("lanpaint", {"inner": 5, "pull": 0.0}, 0.0, None, {}, (1.5, 0.845, 0.0, 0.440), 2e-2),
    ("lanpaint", {"inner": 10}, 0.0, None, {}, (1.5, 1.155, 0.0, 0.356), 2e-2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "sigma", "evaluations", "how", "want", "tolerance"), REFERENCES)
def test_its_law_on_the_bench(name, parameters, sigma, evaluations, how, want, tolerance):
    world, measurement = b1(sigma)
    mean, covariance = law(world, restorer_named(name, measurement, **parameters), evaluations, **how)
    got = [*mean.tolist(), *covariance.diagonal().tolist()]
    assert got == pytest.approx(want, abs=tolerance)


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


def test_daps_from_the_flows_end_doubles_what_is_not_measured():
    world, measurement = b1(0.3)
    variance = {}
    for inner in (1, 8):
        daps = restorer_named("daps", measurement, chain="exact", inner=inner, steps=40, moves=1)
        variance[inner] = float(law(world, daps, path=VE(100.0))[1][1, 1])
    assert variance[8] > variance[1] + 0.2


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


def test_a_proximal_guide_is_not_ddnm():
    """With ε̂ recomputed the projection loses most of the correlation: 0.52 for 1.2."""
    world, measurement = b1(0.0)
    mean, _ = law(world, restorer_named("noise-refined", measurement), 150)
    assert float(mean[1]) == pytest.approx(0.518, abs=0.015)


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
