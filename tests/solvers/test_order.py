"""Every solver converges at its declared order to an exact flow, on every path; plans against formulas written anew."""

import math

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan, sample, wrap
from fewstep.catalog import methods
from fewstep.grids import LogSNR
from fewstep.solvers import solver_named

WEIGHTS, MEANS, SPREADS = [0.3, 0.7], [-0.6, 0.8], [0.25, 0.4]
NAMES = [m.name for m in methods() if m.family == "solvers"]
ORDERED = [n for n in NAMES if not solver_named(n).stochastic]


def mixture(path):
    """E[x₀ | x_t] of a mixture of two normal laws, by Bayes' rule."""

    def net(x, t):
        t = t.double().reshape(-1, *[1] * (x.ndim - 1))
        alpha, sigma = path.alpha(t), path.sigma(t)
        variance = [alpha**2 * s**2 + sigma**2 for s in SPREADS]
        logs = torch.stack([
            math.log(w) - 0.5 * v.log() - 0.5 * (x - alpha * m) ** 2 / v
            for w, m, v in zip(WEIGHTS, MEANS, variance, strict=True)
        ])  # fmt: skip
        parts = torch.stack([
            m + alpha * s**2 / v * (x - alpha * m) for m, s, v in zip(MEANS, SPREADS, variance, strict=True)
        ])  # fmt: skip
        return (logs.softmax(0) * parts).sum(0)

    return wrap(net, path, "x0", shape=(16,), time="t")


def errors(path, solver, counts, end=-2.0, start=2.5):
    """Distances to the exact flow between half-log-SNR −2 and 2.5, on grids uniform in λ."""
    den = mixture(path)
    lam = torch.linspace(end, start, max(counts) * 16 + 1, dtype=torch.float64)
    first = float(path.t_of_lam(end))
    x = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = float(path.alpha(first)) * 0.4 + float(path.sigma(first)) * x

    def run(name, n):
        times = path.t_of_lam(torch.linspace(end, start, n + 1, dtype=torch.float64))
        return sample(den, start=x, plan=make_plan(path, name, times)).x

    exact = run("heun", len(lam) - 1)
    return [float((run(solver, n) - exact).square().mean().sqrt()) for n in counts]


@pytest.mark.parametrize("path", [VP(), VE(), Flow(), Cosine()], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", ORDERED)
def test_order_of_convergence(path, solver):
    coarse, fine = errors(path, solver, [40, 80])
    assert math.log2(coarse / fine) == pytest.approx(solver_named(solver).order, abs=0.2)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_a_multistep_plan_integrates_sines_of_lambda(path):
    """With x̂₀ = sin λ the step is σ′∫e^u sin u du, whose antiderivative is e^u (sin u − cos u)/2."""
    den = wrap(
        lambda x, lam: torch.sin(lam.double()).reshape(-1, 1).expand_as(x), path, "x0", shape=(1,), time="lambda"
    )

    def error(rule, n):
        lam = torch.linspace(-2, 2, n + 1, dtype=torch.float64)
        plan = solver_named("dpm-solver++", rule=rule)(path, path.t_of_lam(lam))
        got = sample(den, start=torch.zeros(1, 1, dtype=torch.float64), plan=plan).x.item()
        exact = float(path.sigma(plan.times[-1])) * sum(
            s * math.exp(u) * (math.sin(u) - math.cos(u)) / 2 for s, u in ((1, 2.0), (-1, -2.0))
        )
        return abs(got - exact)

    for rule in ("midpoint", "exact"):
        assert math.log2(error(rule, 80) / error(rule, 160)) == pytest.approx(2, abs=0.2)


def gaussian_variance(plan, data_variance):
    """The exact variance of a plan's samples when the data is N(0, data_variance), by one scalar recurrence."""
    path, variance, seen = plan.path, None, []
    for step in plan:
        alpha, sigma = path.alpha(step.t), path.sigma(step.t)
        if variance is None:
            variance = alpha**2 * data_variance + sigma**2
        gain = alpha * data_variance / (alpha**2 * data_variance + sigma**2)
        factor = {"M": torch.ones(()), "B": gain}
        entries = step.writes[0]
        linear = sum(v * factor[k] for k, _, v in entries if k != "N")
        variance = linear**2 * variance + sum(v**2 for k, _, v in entries if k == "N")
        seen.append(float(variance))
    return seen[-1]


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_exact_variance_of_one_step_plans_on_gaussian_data(path, solver):
    def wrong(n):
        times = path.t_of_lam(torch.linspace(-3, 2.5, n + 1, dtype=torch.float64))
        target = path.alpha(times[-1]) ** 2 * 0.3 + path.sigma(times[-1]) ** 2
        return abs(gaussian_variance(make_plan(path, solver, times), 0.3) / float(target) - 1)

    assert wrong(200) < 0.04
    assert math.log2(wrong(100) / wrong(200)) == pytest.approx(1, abs=0.2)
    den = wrap(
        lambda x, t: x * (lambda a, s: a * 0.3 / (a**2 * 0.3 + s**2))(path.alpha(t), path.sigma(t))[:, None],
        path, "x0", shape=(4000,), time="t",
    )  # fmt: skip
    plan = make_plan(path, solver, "logsnr", 6)
    start = torch.randn(5, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first = plan.times[0]
    start = start * (path.alpha(first) ** 2 * 0.3 + path.sigma(first) ** 2).sqrt()
    measured = float(sample(den, start=start, plan=plan).x.var())
    assert measured == pytest.approx(gaussian_variance(plan, 0.3), rel=0.04)


def test_ddim_with_all_its_noise_is_ancestral_sampling():
    for path in (VP(), Flow(), VE()):
        one = solver_named("ddim", eta=1.0)(path, LogSNR()(path, 6, 1.0))
        two = make_plan(path, "ddpm", "logsnr", 6)
        for name in "MBN":
            a, b = getattr(one, name), getattr(two, name)
            keep = [i for i, v in enumerate(a.value) if abs(float(v)) > 1e-12]
            assert torch.allclose(a.value[keep], b.value[: len(keep)], rtol=1e-6, atol=1e-12)


def test_euler_is_ddim():
    for path in (VP(), Flow(), VE(), Cosine()):
        one, two = (make_plan(path, name, "logsnr", 5) for name in ("euler", "ddim"))
        assert torch.allclose(one.M.value, two.M.value, rtol=1e-12)
        assert torch.allclose(one.B.value, two.B.value, rtol=1e-9)
