"""Every restorer at the number of steps for which its law on the bench is known, to the last digit that is known.

The prior is a Gaussian of two numbers with correlation 0.8, of which the first is measured as 1.5.  The posterior is
(1.376, 1.101), variance (0.083, 0.413) at σ_y = 0.3, and (1.5, 1.2), (0, 0.36) without noise.  The values are of affine
recurrences that were written down apart from this code.
"""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from fewstep import VE, Flow
from fewstep.denoisers import wrap
from fewstep.guidance import Ask
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Matrix, Measurement, restorer_named
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.daps import DAPS
from fewstep.restoration.ddnm import redrawing
from fewstep.worlds import Gaussian

_spec = importlib.util.spec_from_file_location("benches", Path(__file__).with_name("benches.py"))
benches = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benches)
b1, law = benches.b1, benches.law

DDIM, DDPM, FLOW, VAR_EXP = {"solver": "ddim"}, {"solver": "ddpm"}, {"path": Flow()}, {"path": VE(100.0)}
# method, parameters, σ_y, evaluations (a loop has them among its parameters) and on what, mean of x₁ and x₂, variance
# of both, tolerance.
GUIDES = [
    ("pgdm", {}, 0.3, 1000, DDIM, (1.327, 1.042, 0.102, 0.441), 1e-3),
    ("pgdm", {}, 0.3, 1000, DDPM, (1.344, 1.046, 0.089, 0.430), 1e-3),
    ("dps-likelihood", {}, 0.3, 1000, DDIM, (1.645, 1.878, 0.005, 0.240), 1e-3),
    ("dps-likelihood", {}, 0.3, 1000, DDPM, (1.500, 1.454, 0.043, 0.313), 1e-3),
    # The values are of a code that takes its score at the state after the step.
    ("dmps", {"scale": 1.0}, 0.3, 1000, {}, (1.181, 0.507, 0.079, 0.612), 3e-3),
    ("dmps", {}, 0.3, 1000, {}, (1.328, 0.597, 0.036, 0.564), 3e-3),
    ("diffpir", {}, 0.3, 20, {}, (1.360, 0.526, 0.046, 0.548), 1e-3),
    ("diffpir", {}, 0.3, 100, {}, (1.360, 0.649, 0.068, 0.578), 1e-3),
    ("diffpir", {}, 0.3, 1000, {}, (1.364, 0.944, 0.077, 0.464), 1e-3),
    ("diffpir", {"redrawn": 1.0}, 0.3, 100, {}, (1.367, 0.995, 0.035, 0.213), 1e-3),
    ("noise-refined", {}, 0.3, 1000, {}, (1.366, 0.496, 0.075, 0.694), 1e-3),
    ("noise-refined", {}, 0.3, 1000, DDPM, (1.350, 0.704, 0.078, 0.574), 1e-3),
    # The projection with ε̂ recomputed from it, which is not DDNM.
    ("noise-refined", {}, 0.0, 1000, {}, (1.5, 0.518, 0.0, 0.670), 1.5e-3),
    ("noise-refined", {}, 0.0, 1000, DDPM, (1.5, 0.749, 0.0, 0.534), 1e-3),
    ("ddnm", {}, 0.0, 20, {}, (1.5, 0.901, 0.0, 0.304), 1e-3),
    ("ddnm", {}, 0.0, 100, {}, (1.5, 1.105, 0.0, 0.284), 1e-3),
    ("ddnm", {}, 0.0, 1000, {}, (1.5, 1.181, 0.0, 0.276), 1e-3),
    ("ddnm", {"eta": 0.0}, 0.0, 20, {}, (1.5, 0.964, 0.0, 0.355), 1e-3),
    ("ddnm", {"eta": 0.0}, 0.0, 100, {}, (1.5, 1.118, 0.0, 0.361), 1e-3),
    ("dds", {}, 0.3, 1000, {}, (1.5, 1.160, 0.0, 0.282), 1e-3),
    ("replacement", {}, 0.0, 250, {}, (1.5, 0.744, 0.0, 0.477), 1e-3),
    ("replacement", {}, 0.0, 1000, {}, (1.5, 0.749, 0.0, 0.490), 1e-3),
    ("repaint", {"repeats": 1}, 0.0, 250, {}, (1.5, 0.744, 0.0, 0.477), 1e-3),
    ("repaint", {}, 0.0, 2410, {}, (1.5, 1.146, 0.0, 0.333), 1e-3),
    ("flowdps", {}, 0.0, 28, FLOW, (1.330, 0.905, 0.060, 0.360), 1e-3),
    ("flowdps", {}, 0.0, 200, FLOW, (1.406, 1.033, 0.028, 0.293), 1e-3),
]  # fmt: skip
# LanPaint's moves ask once in their middle; those of the values are exact, which shorter moves come to.
LOOPS = [
    ("ddrm", {"steps": 20, "grid": "linspace"}, 0.3, {}, (1.272, 0.717, 0.041, 0.335), 1e-3),
    ("ddrm", {"steps": 100, "grid": "linspace"}, 0.3, {}, (1.369, 0.981, 0.027, 0.319), 1e-3),
    ("ddrm", {"steps": 1000, "grid": "linspace"}, 0.3, {}, (1.451, 1.089, 0.009, 0.308), 1e-3),
    ("ddnm+", {"steps": 20, "grid": "linspace"}, 0.3, {}, (1.272, 0.717, 0.041, 0.335), 1e-3),
    ("ddnm+", {"steps": 100, "grid": "linspace"}, 0.3, {}, (1.369, 0.981, 0.027, 0.319), 1e-3),
    ("daps", {"steps": 200, "inner": 1, "chain": "exact"}, 0.3, VAR_EXP, (1.372, 1.046, 0.082, 0.451), 1e-3),
    ("lanpaint", {"inner": 0}, 0.0, {}, (1.5, 0.482, 0.0, 0.519), 5e-3),
    ("lanpaint", {"inner": 5, "pull": 0.0}, 0.0, {}, (1.5, 0.845, 0.0, 0.440), 2e-2),
    ("lanpaint", {"inner": 5}, 0.0, {}, (1.5, 1.083, 0.0, 0.361), 4e-2),
    ("lanpaint", {"inner": 20, "step_size": 0.15 / 4}, 0.0, {}, (1.5, 1.083, 0.0, 0.361), 1e-2),
    ("lanpaint", {"inner": 10}, 0.0, {}, (1.5, 1.155, 0.0, 0.356), 1.5e-2),
    ("lanpaint", {"inner": 40}, 0.0, {}, (1.5, 1.200, 0.0, 0.359), 2e-2),
]  # fmt: skip


def figures(found):
    return [*found[0].tolist(), *found[1].diagonal().tolist()]


@pytest.mark.parametrize(("name", "parameters", "sigma", "evaluations", "on", "want", "tolerance"), GUIDES)
def test_the_law_of_a_guide(name, parameters, sigma, evaluations, on, want, tolerance):
    world, measurement = b1(sigma)
    grid = "uniform" if on is FLOW else "linspace"
    got = law(world, restorer_named(name, measurement, **parameters), evaluations, grid=grid, **on)
    assert figures(got) == pytest.approx(want, abs=tolerance)


@pytest.mark.parametrize(("name", "parameters", "sigma", "on", "want", "tolerance"), LOOPS)
def test_the_law_of_a_loop_of_its_own(name, parameters, sigma, on, want, tolerance):
    world, measurement = b1(sigma)
    assert figures(law(world, restorer_named(name, measurement, **parameters), **on)) == pytest.approx(
        want, abs=tolerance
    )


@pytest.mark.parametrize(
    ("solver", "want"), [("ddim", (1.373, 1.096, 0.082, 0.411)), ("ddpm", (1.376, 1.101, 0.080, 0.408))]
)
def test_the_exact_guide_has_the_posterior(solver, want):
    """So that what the others are off by is theirs, and not the plan's or the solver's."""
    world, measurement = b1(0.3)
    posterior = world.posterior(torch.tensor([[1.0, 0.0]]), measurement.y[0, :1], 0.3)
    got = law(world, benches.ExactGuide(measurement, posterior), 1000, solver=solver, grid="linspace")
    assert figures(got) == pytest.approx(want, abs=1e-3)


def test_a_guides_law_step_by_step_is_that_of_whole_runs():
    """The bench itself: a loop that is a guide run whole, on every unit of its noise."""
    world, measurement = b1(0.0)
    guide = restorer_named("repaint", measurement, repeats=3, jump_length=4)
    plan = guide.plan(benches.PATH, 60, None, None)

    class Whole:
        def opening(self, path):
            return plan

        def run(self, session):
            from fewstep.session import prepare

            rows = len(session.start)
            made = prepare(session.program.denoiser, rows, plan=plan, guides=guide.guides(), dtype=torch.float64)
            run = made.program.start(session.start, {}, session.noise)
            for index in range(plan.steps):
                made.program.step(run, index)
            return (run.registers[0],)

    mean, covariance = law(world, Whole())
    want = law(world, guide, 60)
    assert torch.allclose(mean, want[0], atol=1e-12)
    assert torch.allclose(covariance, want[1], atol=1e-12)


@dataclass(frozen=True)
class Redrawing(RestorationGuide):
    """No guide at all, on a solver that redraws a fixed share of the noise."""

    level: ClassVar[str] = "answer"
    eta: float = 0.0

    def solver(self):
        return redrawing(self.eta)

    def answer(self, ask, x0, state):
        return x0, state


@pytest.mark.parametrize(("eta", "share"), [(0.0, 1.0), (0.85, 0.763), (1.0, 0.5)])
def test_a_fixed_share_of_redrawn_noise_narrows_the_prior_by_itself(eta, share):
    """Without a measurement."""
    world, measurement = b1()
    got = law(world, Redrawing(measurement, eta), 300, grid="linspace")
    assert torch.allclose(got[1], share * world.covariance, atol=2e-2)


def _root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.sqrt()) @ vectors.mT


def flowing(prior):
    """A world that answers with where the exact flow ends, Σ^½(Σ + σ̄²)^−½ x, in place of the mean."""

    def end(x, t):
        sigma = float(VAR_EXP["path"].sigma(t).flatten()[0])
        return x @ torch.linalg.inv(_root(prior + sigma**2 * torch.eye(2))) @ _root(prior)

    return SimpleNamespace(shape=(2,), denoiser=lambda path: wrap(end, path, "x0", shape=(2,), time="t"))


class TrueCovariance(DAPS):
    """Draws x₀ near the mean with the covariance that it has, Σ − Σ(Σ + σ̄²)⁻¹Σ; its `data_variance` is its prior's."""

    def _draw(self, session, i, guess, variance):
        prior = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
        ratio = 1 / (1 / variance - 1) if variance < 1 else math.inf
        belief = prior - prior @ torch.linalg.solve(prior + ratio * torch.eye(2), prior)
        gain = belief[:, :1] / (belief[0, 0] + self._tau() ** 2)
        left = belief - gain @ belief[:1]
        mean = guess + (self.measurement.y[:1, :1] - guess[:, :1]) @ gain.mT
        return mean + session.noise.guide(2**30 + i) @ _root(left + 1e-15 * torch.eye(2)).mT


def test_daps_from_the_flows_end_and_from_the_true_law_of_x0():
    """The flow's end with noise of variance σ̄² on it, and the mean with all that x₀ varies by."""
    world, measurement = b1(0.3)
    flows = flowing(world.covariance)
    from_the_end = restorer_named("daps", measurement, steps=200, inner=1, chain="exact")
    assert figures(law(flows, from_the_end, **VAR_EXP)) == pytest.approx((1.431, 1.076, 0.086, 0.881), abs=4e-3)
    true = TrueCovariance(measurement, steps=200, inner=1, data_variance=1.0)
    assert figures(law(world, true, **VAR_EXP)) == pytest.approx((1.376, 1.101, 0.083, 0.413), abs=1e-3)


def test_daps_from_the_flows_end_doubles_what_is_not_measured():
    """2.1 times the data's variance after 200 levels."""
    flows = flowing(torch.eye(2, dtype=torch.float64))
    loop = restorer_named("daps", b1(0.3)[1], steps=200, inner=1, chain="exact")
    assert float(law(flows, loop, **VAR_EXP)[1][1, 1]) == pytest.approx(2.1, abs=0.05)


def test_flowdps_noise_rule_is_too_narrow_without_a_measurement():
    """And more steps do not help."""
    world, nothing = Gaussian(torch.zeros(2), 1.0), b1(0.0)[1]
    for steps, variance in ((28, 0.71), (200, 0.70)):
        got = law(world, restorer_named("flowdps", nothing), steps, **FLOW)[1]
        assert float(got[1, 1]) == pytest.approx(variance, abs=7e-3)


def ask_at(x, alpha, sigma, path=benches.PATH):
    t = path.t_of_lam(math.log(alpha / sigma))
    denoiser = SimpleNamespace(path=path)
    return Ask(x, t, t / 2, 0, 2, denoiser, lambda slot: x, lambda *a: x, {})


@pytest.mark.parametrize("name", ["noise-refined", "pgdm", "dds", "diffpir"])
def test_the_answer_is_exact_where_x0_varies_as_the_method_says(name):
    """On an isotropic Gaussian prior Cov[x₀ | x_t] is a number C; each is told it in its own way."""
    variance, sigma_y, alpha, sigma = 0.25, 0.4, 0.6, 0.8
    world = Gaussian(torch.tensor([0.3, -0.2, 0.1]), variance)
    operator = Matrix(torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]]), (3,))
    measurement = Measurement(operator, torch.tensor([[0.7, -0.4]], dtype=torch.float64), Noise(sigma_y))
    spread = variance * sigma**2 / (alpha**2 * variance + sigma**2)
    told = {
        "dds": {"gamma": spread / sigma_y**2, "iterations": 3},
        "diffpir": {"weight": (sigma / alpha) ** 2 / spread},
    }.get(name, {"data_variance": variance})
    x = torch.tensor([[0.4, -1.1, 0.9]], dtype=torch.float64, requires_grad=True)
    ask = ask_at(x, alpha, sigma)
    want = world.posterior(operator.matrix, measurement.y[0], sigma_y).denoise(x, ask.path, ask.t)
    got = restorer_named(name, measurement, **told).answer(ask, world.denoise(x, ask.path, ask.t), None)[0]
    assert torch.allclose(got, want, atol=1e-10)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_dds_corrections_lie_in_the_krylov_space_and_fill_it_to_ddnms(iterations):
    """span{(AᵀA)^k Aᵀ(y − A x̂₀), k < M}; with M as large as A's rank it is DDNM's projection."""
    matrix = torch.tensor([[1.0, 0.5, -0.3, 0.1], [0.2, -1.0, 0.4, 0.7]], dtype=torch.float64)
    y, x0 = torch.tensor([[0.7, -0.4]], dtype=torch.float64), torch.tensor([[0.2, 0.3, -0.5, 0.9]], dtype=torch.float64)
    measurement = Measurement(Matrix(matrix, (4,)), y)
    ask = ask_at(x0, 0.6, 0.8)
    moved = restorer_named("dds", measurement, iterations=iterations).answer(ask, x0, None)[0] - x0
    first = (y - x0 @ matrix.mT) @ matrix
    space = torch.cat([first, first @ matrix.mT @ matrix])[: min(iterations, 2)]
    inside = moved @ torch.linalg.pinv(space) @ space
    assert torch.allclose(inside, moved, atol=1e-10)
    projected = restorer_named("ddnm", measurement).answer(ask, x0, None)[0] - x0
    assert torch.allclose(moved, projected, atol=1e-9) == (iterations >= 2)


def test_ddnm_leaves_what_is_not_measured_as_it_was():
    """(I − A†A)(x̂₀′ − x̂₀) = 0 and A x̂₀′ = y."""
    matrix = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
    y, x0 = torch.tensor([[0.7, -0.4]], dtype=torch.float64), torch.tensor([[0.2, 0.3, -0.5]], dtype=torch.float64)
    moved = restorer_named("ddnm", Measurement(Matrix(matrix, (3,)), y)).answer(ask_at(x0, 0.6, 0.8), x0, None)[0]
    null = torch.eye(3, dtype=torch.float64) - torch.linalg.pinv(matrix) @ matrix
    assert torch.allclose((moved - x0) @ null, torch.zeros(1, 3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(moved @ matrix.mT, y, atol=1e-12)
