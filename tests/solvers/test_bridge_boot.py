"""Diffusion bridges from their pinned end: the printed sampler of DBIM, its orders, its law."""

import math
from itertools import pairwise

import pytest
import torch

from fewstep import VP, Flow, Plan, make_plan, sample
from fewstep.analysis import gaussian_output, gaussian_w2, measured_order
from fewstep.denoisers import wrap_bridge
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.paths import ResShift, VEBridge, VPBridge
from fewstep.solvers import solver_named
from fewstep.solvers.bridge_boot import Booted
from fewstep.solvers.stochastic_adams import StochasticAdams

Y = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def net(x, time, y):
    return torch.tanh(0.7 * x + 0.2 * y) + 0.1 * time.reshape(-1, 1, 1)


class Printed:
    """The paper's coefficients for VP with β from 0.1 to 2.1: `a` multiplies y there, and `b` the data."""

    alpha_end = math.exp(-0.05 - 0.5)
    rho_end = math.sqrt(math.exp(0.1 + 1.0) - 1)

    def abc(self, t):
        alpha, rho = self.alpha(t), self.rho(t)
        bar = math.sqrt(self.rho_end**2 - rho**2)
        scale = self.rho_end**2
        return alpha / self.alpha_end * rho**2 / scale, alpha * bar**2 / scale, alpha * bar * rho / self.rho_end

    def alpha(self, t):
        return math.exp(-0.05 * t - 0.5 * t * t)

    def rho(self, t):
        return math.sqrt(math.expm1(0.1 * t + t * t))

    def lam(self, t):
        _, b, c = self.abc(t)
        return math.log(b / c)

    def ask(self, x, t):
        return net(x, torch.full((3,), t, dtype=torch.float64), Y)

    def booted(self, t, noise):
        a, b, c = self.abc(t)
        return b * self.ask(Y, 1.0) + a * Y + c * noise.step(0, 0.0, 0.0)

    def generalised(self, times, eta, noise):
        x = self.booted(times[0], noise)
        for i, (s, t) in enumerate(pairwise(times)):
            x0 = self.ask(x, s)
            a_s, b_s, c_s = self.abc(s)
            a, b, c = self.abc(t)
            omega = eta * self.alpha(t) * self.rho(t) * math.sqrt(1 - self.rho(t) ** 2 / self.rho(s) ** 2)
            keep = math.sqrt(c**2 - omega**2) / c_s
            x = keep * x + (b - keep * b_s) * x0 + (a - keep * a_s) * Y + omega * noise.step(i + 1, 0.0, 0.0)
        return x

    def high_order(self, times, order, noise):
        """Order 1 in the first step; the last is left out here, as ours ends at t = 0 by itself at order 1."""
        x, asked = self.booted(times[0], noise), []
        for i, (s, t) in enumerate(pairwise(times)):
            asked.append((self.lam(s), self.ask(x, s)))
            (a_s, _, c_s), (a, b, c) = self.abc(s), self.abc(t)
            h, x0 = self.lam(t) - self.lam(s), asked[-1][1]
            total = (1 - math.exp(-h)) * x0
            if min(order, i + 1) == 2:
                total = total + (math.exp(-h) + h - 1) * (x0 - asked[-2][1]) / (asked[-1][0] - asked[-2][0])
            if min(order, i + 1) == 3:
                h1, h2 = asked[-1][0] - asked[-2][0], asked[-2][0] - asked[-3][0]
                f1, f2 = (x0 - asked[-2][1]) / h1, (asked[-2][1] - asked[-3][1]) / h2
                total = total + (math.exp(-h) + h - 1) * (f1 * (2 * h1 + h2) - f2 * h1) / (h1 + h2)
                total = total + (h**2 / 2 - h + 1 - math.exp(-h)) * 2 * (f1 - f2) / (h1 + h2)
            x = c / c_s * x + (a - a_s * c / c_s) * Y + b * total
        return x


def ours(solver, times):
    """Ours on the published grid; the output has y's share of its last time put back."""
    path = VPBridge()
    den = wrap_bridge(net, path, shape=(2, 4))
    plan = Booted(solver)(path, torch.tensor([1.0, *times[1:]], dtype=torch.float64))
    assert plan.evaluations == len(times)
    x = sample(den, start=den.start(Y), plan=plan, cond={"y": Y}, seed=6).x
    return x + path.shift(times[-1]) * Y


GRID = torch.linspace(1 - 1e-3, 1e-4, 7, dtype=torch.float64).tolist()


def keyed():
    return KeyedNoise(6, range(3), (2, 4), torch.float64, "cpu")


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_is_the_generalised_sampler(eta):
    want = Printed().generalised(GRID, eta, keyed())
    assert torch.allclose(ours(solver_named("ddim", eta=eta), GRID), want, atol=1e-10)


def test_is_the_second_order_sampler():
    solver = solver_named("dpm-solver++", rule="exact")
    assert torch.allclose(ours(solver, GRID), Printed().high_order(GRID, 2, keyed()), atol=1e-10)
    assert torch.allclose(
        ours(StochasticAdams(2, 0, tau=0.0), GRID), Printed().high_order(GRID, 2, keyed()), atol=1e-10
    )


def test_is_the_third_order_sampler_but_for_the_first_step():
    """Three Adams nodes are the printed rows; "dpm-solver++3m" amends their first step, and errs less for it."""
    want = Printed().high_order(GRID, 3, keyed())
    assert torch.allclose(ours(StochasticAdams(3, 0, tau=0.0), GRID), want, atol=1e-10)
    assert not torch.allclose(ours("dpm-solver++3m", GRID), want, atol=1e-3)
    for steps in (5, 20):
        solvers = (StochasticAdams(3, 0, tau=0.0), "dpm-solver++3m")
        plans = (make_plan(VPBridge(), Booted(solver), "uniform", steps) for solver in solvers)
        printed, amended = (float(gaussian_w2(plan, torch.tensor([0.05, 0.25]))) for plan in plans)
        assert amended < printed


@pytest.mark.parametrize(
    ("path", "solver", "order"),
    [(VPBridge(), "ddim", 1), (VEBridge(1.0), "dpm-solver++", 2), (VPBridge(), "dpm-solver++3m", 3)],
)
def test_order_within_the_bridge(path, solver, order):
    assert Booted(solver).order == order
    assert measured_order(Booted(solver), path) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("path", [VPBridge(), VEBridge(1.0)], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_law_on_a_gaussian(path, solver):
    """From y alone to N(1, ¼): the mean at once, the variance as the steps and the boot grow finer."""

    def wrong(steps):
        mean, variance = gaussian_output(
            make_plan(path, Booted(solver, 0.02 / steps), "uniform", steps), torch.tensor([0.25]), torch.tensor([1.0])
        )
        assert float(mean) == pytest.approx(1, abs=1e-9)
        return 0.25 - float(variance)

    few, many = wrong(40), wrong(80)
    assert 0 < many < few
    assert math.log2(few / many) == pytest.approx(1, abs=0.2)


def test_the_booting_noise_alone_tells_samples_apart():
    """Without it every sample of a deterministic solver is the same."""
    path = VPBridge()
    plan = make_plan(path, "ddim", [0.999, 0.6, 0.3, 0.0])
    keep = math.prod(float(m[0, 0]) for m in plan._matrices()[0][:-1])
    booted = make_plan(path, Booted("ddim"), [1.0, 0.6, 0.3, 0.0])
    assert [len(step.writes[0]) for step in booted] == [2, 2, 2, 1]
    assert [any(kind == "N" for kind, _, _ in step.writes[0]) for step in booted] == [True, False, False, False]
    assert booted.stochastic
    # The drawn noise reaches t = 0.3 by the factors of the plan without it.
    states = booted._matrices()
    assert float(states[2][0, 0, 0]) == pytest.approx(float(path.sigma(0.999)), rel=1e-9)
    assert math.prod(float(m[0, 0]) for m in states[0][1:-1]) == pytest.approx(keep, rel=1e-12)
    with pytest.raises(Exception, match="leaves register x"):
        make_plan(path, "ddim", "uniform", 3)


@pytest.mark.parametrize("path", [VP(), Flow(), ResShift()], ids=lambda p: p.kind)
def test_nothing_pinned_is_the_solver_itself(path):
    assert make_plan(path, Booted("dpm-solver++"), "uniform", 5) == make_plan(path, "dpm-solver++", "uniform", 5)


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++", "dpm-solver++3m", "heun", "ddpm"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(solver, steps, tmp_path):
    plan = make_plan(VPBridge(), Booted(solver), "uniform", steps)
    assert plan.steps == make_plan(VP(), solver, "uniform", steps).steps + 1
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan
    assert len(plan.restarts) == len(make_plan(VP(), solver, "uniform", steps).restarts)


def test_places_boot_when_they_are_pinned_and_others_stand_still_meanwhile():
    rows = torch.tensor([[1.0, 0.8, 1.0, 0.0], [0.5, 0.8, 1.0, 0.0], [0.2, 0.4, 1.0, 0.0]], dtype=torch.float64)
    path = VPBridge()
    plan = Booted("ddim")(path, rows[..., None])
    assert torch.allclose(plan.times[1, :, 0], torch.tensor([0.999, 0.8, 1.0, 0.0], dtype=torch.float64))
    m, b, n = plan._matrices()
    assert m[0, :, 0, 0, 0].tolist() == [0, 1, 1, 1]
    assert torch.allclose(b[0, :, 0, 0, 0], torch.tensor([float(path.alpha(0.999)), 0, 0, 0]).double())
    assert torch.allclose(n[0, :, 0, 0, 0], torch.tensor([float(path.sigma(0.999)), 0, 0, 0]).double())
    alone = Booted("ddim")(path, rows[:, 0])._matrices()
    for got, want in zip((m, b, n), alone, strict=True):
        assert torch.allclose(got[:, 0, 0], want, atol=1e-14)


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="boot must lie"):
        Booted(boot=0.0)
    with pytest.raises(ArgumentError, match="unknown solver"):
        Booted("dimd")
    with pytest.raises(ArgumentError, match="beyond the grid's second time"):
        make_plan(VPBridge(), Booted(boot=0.3), "uniform", 5)
