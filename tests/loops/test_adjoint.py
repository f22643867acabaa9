"""The adjoint's orders against the flow's own derivative, conditions and weights, noise, memory, and what it is for."""

import math
from functools import cache

import pytest
import torch

from fewstep import CFG, VP, Flow, make_plan, sample, wrap
from fewstep.analysis import exact_flow
from fewstep.errors import ArgumentError
from fewstep.grids import LogSNR
from fewstep.guidance import Guide
from fewstep.loops import loop_named
from fewstep.loops.adjoint import Adjoint
from fewstep.worlds import GaussianMixture

MEANS = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
WORLD = GaussianMixture([0.3, 0.7], MEANS, torch.tensor([[0.0625, 0.1], [0.16, 0.05]]))


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(run, start, direction):
    start = start.clone().requires_grad_()
    return torch.autograd.grad((run(start).x * direction).sum(), start)[0]


def error(got, want):
    return float((got - want).norm() / want.norm())


BEGIN, RANGE = float(VP().t_of_lam(-2.0)), LogSNR(rho_min=0.05)


@cache
def derivative_of_the_flow():
    """∂L/∂x at the start, by central differences of the exact flow to the last time but one, and x̂₀ there."""
    den, end = WORLD.denoiser(VP()), float(make_plan(VP(), "ddim", RANGE, 20, start=BEGIN).times[-2])
    x, c, e = draw(0, 4, 2), draw(1, 4, 2), 1e-4 * torch.eye(2, dtype=torch.float64)
    moved = torch.cat([x + e[0], x - e[0], x + e[1], x - e[1]])
    found = (den(exact_flow(den, moved, BEGIN, end, tolerance=1e-11), end) * c.repeat(4, 1)).sum(1).reshape(4, 4)
    return torch.stack([found[0] - found[1], found[2] - found[3]], 1) / 2e-4


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("form", ["eps", "x0"])
def test_the_order_against_the_flows_own_derivative(form, order):
    """Over a range where both forms behave."""
    den, errors = WORLD.denoiser(VP()), []
    for steps in (40, 80):
        loop = Adjoint(order, form, "dpm-solver++3m", RANGE, steps, BEGIN)
        got = gradient(lambda s, run=loop: run(den, start=s), draw(0, 4, 2), draw(1, 4, 2))
        errors.append(error(got, derivative_of_the_flow()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)
    assert errors[1] < (0.15 if order == 1 else 0.01)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_from_pure_noise_the_x0_form_is_near_the_runs_own_gradient(path):
    den, x, c = WORLD.denoiser(path), draw(0, 4, 2), draw(1, 4, 2)
    plan = make_plan(path, "dpm-solver++", "logsnr", 40)
    own = gradient(lambda s: sample(den, start=s, plan=plan, grad=True), x, c)
    again = gradient(lambda s: sample(den, start=s, plan=plan, grad="checkpoint"), x, c)
    assert error(again, own) < 1e-10
    assert error(gradient(lambda s: Adjoint(2, "x0", "dpm-solver++", steps=40)(den, start=s), x, c), own) < 0.03


def test_a_step_of_the_published_form_by_hand():
    """Three times: the last step's own derivative, then one step of order 1 to the start."""
    path, den, x, c = VP(), WORLD.denoiser(VP()), draw(0, 3, 2), draw(1, 3, 2)
    loop = Adjoint(1, "eps", "ddim", "uniform", 2, 0.5)
    got = gradient(lambda s: loop(den, start=s), x, c)
    t, s = 0.25, 0.5
    (a_t, s_t), (a_s, s_s) = ((path.alpha(u), path.sigma(u)) for u in (t, s))
    state = (s_t / s_s * x + (a_t - a_s * s_t / s_s) * den(x, s)).requires_grad_()
    a = torch.autograd.grad((den(state, t) * c).sum(), state)[0]
    pulled = torch.autograd.grad((((state - a_t * den(state, t)) / s_t) * a).sum(), state)[0]
    h = path.lam(s) - path.lam(t)
    want = a_t / a_s * a + s_s * torch.expm1(h) * a_t**2 / a_s**2 * pulled
    assert torch.allclose(got, want, rtol=1e-9)


def conditional():
    net = torch.nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, 0.2], [-0.1, 0.4]]))
        net.bias.copy_(torch.tensor([0.3, -0.2]))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x, time, z):
            return torch.tanh(self.inner(x) + z) * (1 + 0.2 * time[:, None])

    return wrap(Net(), VP(), "x0", shape=(2,), time="t", null={"z": torch.zeros(1, 2, dtype=torch.float64)})


@pytest.mark.parametrize(
    ("solver", "order", "counts", "falls"), [("dpm-solver++", 2, (25, 50), 0.3), ("ddpm", 1, (50, 200), 0.7)]
)
@pytest.mark.parametrize("form", ["eps", "x0"])
def test_conditions_and_weights_and_a_noisy_run(form, solver, order, counts, falls):
    """Against backpropagation through the run itself, with the same noise; the difference falls with the steps."""
    den, c, differences = conditional(), draw(1, 6, 2), []
    for steps in counts:
        found = []
        for adjoint in (True, False):
            x, z = (draw(k, 6, 2).requires_grad_() for k in (0, 2))
            if adjoint:
                out = Adjoint(order, form, solver, RANGE, steps, 0.6)(den, start=x, cond={"z": z})
            else:
                plan = make_plan(VP(), solver, RANGE, steps, start=0.6)
                out = sample(den, start=x, cond={"z": z}, plan=plan, grad=True)
            found.append(torch.autograd.grad((out.x * c).sum(), [x, z, *den.net.parameters()]))
        differences.append([error(a, b) for a, b in zip(*found, strict=True)])
    coarse, fine = map(max, differences)
    assert fine < 0.4
    assert fine < falls * coarse


def test_guidance_is_differentiated_and_counted():
    den, x, z, c = conditional(), draw(0, 4, 2), draw(2, 4, 2), draw(1, 4, 2)
    fields = {"cond": {"z": z}, "guides": [CFG(2.0)]}
    plan = make_plan(VP(), "dpm-solver++", RANGE, 50, start=0.6)
    own = gradient(lambda s: sample(den, start=s, plan=plan, grad=True, **fields), x, c)
    loop = Adjoint(2, "x0", "dpm-solver++", RANGE, 50, 0.6)
    assert error(gradient(lambda s: loop(den, start=s, **fields), x, c), own) < 0.02
    plain = gradient(lambda s: loop(den, start=s, cond={"z": z}), x, c)
    assert error(plain, own) > 0.05
    assert loop(den, start=x, **fields).stats.evaluations == 100


def test_samples_are_the_plans_and_no_graph_of_the_run_is_kept():
    den, x = conditional(), draw(0, 4, 2).requires_grad_()
    cond, saved = {"z": torch.zeros(4, 2, dtype=torch.float64)}, {}
    plan = make_plan(VP(), "ddim", "logsnr", 20)
    for name in ("adjoint", "graph"):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t.shape) or t, lambda t: t):
            if name == "adjoint":
                out = loop_named("adjoint-deis")(den, start=x, cond=cond)
            else:
                want = sample(den, start=x, cond=cond, plan=plan, grad=True)
        saved[name] = len(kept)
    assert torch.equal(out.x, want.x)
    assert out.x.requires_grad
    assert saved["adjoint"] < 3 < 40 < saved["graph"]


def test_a_start_is_found_that_gives_a_wanted_sample():
    den, loop = WORLD.denoiser(VP()), Adjoint(steps=10)
    wanted = loop(den, start=draw(5, 8, 2)).x.detach()
    x = draw(6, 8, 2).requires_grad_()
    optimiser, losses = torch.optim.Adam([x], lr=0.1), []
    for _ in range(25):
        optimiser.zero_grad()
        loss = (loop(den, start=x).x - wanted).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


class Remembers(Guide):
    level = "answer"

    def needs_order(self):
        return True

    def init(self, denoiser, batch):
        return 0


def test_bad_arguments():
    for name, bad in (("order", 3), ("form", "v"), ("steps", 1)):
        with pytest.raises(ArgumentError, match=name):
            Adjoint(**{name: bad})
    with pytest.raises(ArgumentError, match="divides by α"):
        Adjoint(form="eps")(WORLD.denoiser(Flow()))
    with pytest.raises(ArgumentError, match="without noise"):
        Adjoint(solver="cps")(WORLD.denoiser(VP()))
    with pytest.raises(ArgumentError, match="Remembers"):
        Adjoint()(WORLD.denoiser(VP()), guides=[Remembers()])
