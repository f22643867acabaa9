"""The printed solvers of the mean-reverting equation (MR Sampler) are those of the path without y."""

import math

import pytest
import torch

from fewstep import sample
from fewstep.denoisers import wrap_bridge
from fewstep.noise import KeyedNoise
from fewstep.paths import MeanReverting
from fewstep.solvers import solver_named
from fewstep.solvers.stochastic_adams import StochasticAdams

Y = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PATH, STEPS = MeanReverting(), 6
# From level T to level 0, evenly: level 0 holds a little noise, so that every λ is finite.
TIMES = torch.linspace(100, 0, STEPS + 1, dtype=torch.float64) / 101 + 1 / 101
ALWAYS = (-100.0, 100.0)


def net(x, time, y):
    return torch.tanh(0.7 * x + 0.2 * y) + 0.002 * time.reshape(-1, 1, 1)


def printed(kind, form, order, halved=True):
    """The paper's recursion in the state with y in it; `halved` keeps the printed D₂ of its third order."""
    a, s, lam = (f(TIMES).tolist() for f in (PATH.alpha, PATH.sigma, PATH.lam))
    noise = KeyedNoise(8, range(3), (2, 4), torch.float64, "cpu")
    x, q = Y + s[0] * noise.start(), []
    for i in range(1, STEPS + 1):
        answer = net(x, torch.full((3,), float(PATH.model_time(TIMES[i - 1])), dtype=torch.float64), Y)
        q.insert(0, answer if form == "data" else (x - Y - (answer - Y) * a[i - 1]) / s[i - 1])
        h, n = lam[i] - lam[i - 1], min(order, i)
        d1, d2 = 0 * x, 0 * x
        if n >= 2:
            r = (lam[i - 1] - lam[i - 2]) / h
            d1 = (q[0] - q[1]) / r
        if n == 3:
            older = (lam[i - 2] - lam[i - 3]) / h
            d11 = (q[1] - q[2]) / older
            d2 = (d1 - d11) / (r + older) * (1 if halved else 2)
            d1 = d1 + (d1 - d11) * r / (r + older)
        sign = -1 if form == "data" else 1
        p1 = math.exp(sign * h) - 1
        p2 = p1 / h - sign
        p3 = p2 / h - 0.5
        xi = noise.step(i - 1, 0.0, 0.0)
        if (kind, form) == ("ode", "data"):
            ratio = s[i] / s[i - 1]
            x = ratio * x - a[i] * (p1 * q[0] - p2 * d1 + p3 * d2) + Y * (1 - ratio + ratio * a[i - 1] - a[i])
        elif (kind, form) == ("ode", "noise"):
            ratio = a[i] / a[i - 1]
            x = ratio * x - s[i] * (p1 * q[0] + p2 * d1 + p3 * d2) + Y * (1 - ratio)
        elif form == "data":
            f1 = 1 - math.exp(-2 * h)
            mean = s[i] / s[i - 1] * math.exp(-h) * x + a[i] * (f1 * q[0] + (1 - f1 / 2 / h) * d1)
            x = mean + s[i] * math.sqrt(f1) * xi + Y * (1 - a[i] / a[i - 1] * math.exp(-2 * h) - a[i] * f1)
        else:
            mean = a[i] / a[i - 1] * x - 2 * s[i] * (p1 * q[0] + p2 * d1) + Y * (1 - a[i] / a[i - 1])
            x = mean + s[i] * math.sqrt(math.exp(2 * h) - 1) * xi
    return x


def ours(solver, predicts="x0", network=net):
    den = wrap_bridge(network, PATH, predicts, shape=(2, 4))
    plan = solver(PATH, TIMES)
    x = sample(den, start=den.start(Y, seed=8), plan=plan, cond={"y": Y}, seed=8).x
    return x + PATH.shift(TIMES[-1]) * Y


@pytest.mark.parametrize(
    ("kind", "form", "order", "solver"),
    [
        ("ode", "data", 1, solver_named("ddim")),
        ("ode", "data", 2, solver_named("dpm-solver++", rule="exact")),
        ("ode", "data", 3, solver_named("dpm-solver++3m", rule="printed")),
        ("ode", "noise", 1, solver_named("ddim")),
        ("ode", "noise", 2, StochasticAdams(2, 0, tau=0.0, form="noise")),
        ("sde", "data", 1, solver_named("ddim", eta=1.0)),
        ("sde", "data", 1, solver_named("ddpm")),
        ("sde", "data", 2, solver_named("sde-dpm-solver++", rule="exact")),
        ("sde", "noise", 1, StochasticAdams(1, 0, tau=1.0, window=ALWAYS, form="noise")),
        ("sde", "noise", 2, StochasticAdams(2, 0, tau=1.0, window=ALWAYS, form="noise")),
    ],
)
def test_is_the_printed_solver(kind, form, order, solver):
    assert torch.allclose(ours(solver), printed(kind, form, order), atol=1e-10)


@pytest.mark.parametrize("form", ["data", "noise"])
def test_its_third_order_halves_the_second_difference(form):
    """With D₂ whole it is the polynomial through three answers."""
    whole = ours(StochasticAdams(3, 0, tau=0.0, form=form))
    assert torch.allclose(whole, printed("ode", form, 3, halved=False), atol=1e-10)
    assert not torch.allclose(whole, printed("ode", form, 3), atol=1e-6)


def test_the_papers_three_predictions_tell_the_same():
    def velocity(x, time, y):
        t = (time.double() + 1).reshape(-1, 1, 1) / 101
        sine = PATH.sigma(t) / PATH.noise
        return (PATH.alpha(t) * x + (1 - PATH.alpha(t)) * y - net(x, time, y)) / sine

    def noise(x, time, y):
        t = (time.double() + 1).reshape(-1, 1, 1) / 101
        return (x - y - (net(x, time, y) - y) * PATH.alpha(t)) / PATH.sigma(t)

    want = ours(solver_named("dpm-solver++"))
    assert torch.allclose(ours(solver_named("dpm-solver++"), "velocity", velocity), want, atol=1e-9)
    assert torch.allclose(ours(solver_named("dpm-solver++"), "eps", noise), want, atol=1e-9)
