"""Splitting in phase space: the plans are the paper's integrators, converge in law, and reduced beats naive."""

import math

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample
from fewstep.analysis import gaussian_output
from fewstep.analysis.convergence import convergence_errors
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.paths.phase_space import PhaseSpace
from fewstep.program import Program
from fewstep.solvers.phase_space_integrators import SCHEMES, PhaseSpaceIntegrator
from fewstep.worlds import GaussianMixture
from fewstep.worlds.phase_space import PhaseSpaceWorld

SPACE = PhaseSpace(0.05, 3.05, 0.1)
G, NU, MASS = SPACE.friction, SPACE.momentum_friction, SPACE.mass
MEANS = torch.tensor([[-1.0, 0.4], [0.9, -0.2]], dtype=torch.float64)
WORLD = GaussianMixture([0.3, 0.7], MEANS, torch.tensor([[0.05, 0.2], [0.1, 0.3]], dtype=torch.float64))
TIMES = torch.tensor([0.9, 0.6, 0.35, 0.1], dtype=torch.float64)
SPLITTINGS = [scheme for scheme in SCHEMES if scheme != "conjugate"]


def solver(scheme, **fields):
    return PhaseSpaceIntegrator(scheme, friction=G, momentum_friction=NU, start=SPACE.start, **fields)


def step(scheme, x, m, s, h, b, draw):
    """One step of the paper from b to b − h, with the joint score s(x, m, b), as it stands there."""
    if scheme == "euler-maruyama":
        a, c = s(x, m, b)
        new = x + h / 2 * (G * x - m / MASS + 2 * G * a), m + h / 2 * (x + NU * m + 2 * MASS * NU * c)
        return new[0] + math.sqrt(h * G) * draw(), new[1] + math.sqrt(h * MASS * NU) * draw()
    if scheme.endswith("symplectic-euler"):
        a, c = s(x, m, b)
        x = x + h / 2 * (G * x - m / MASS + G * a)
        c = s(x, m, b)[1] if scheme.startswith("naive") else c
        return x, m + h / 2 * (x + NU * m + MASS * NU * c)
    if scheme.endswith("velocity-verlet"):
        a, c = s(x, m, b)
        m = m + h / 4 * (x + NU * m + MASS * NU * c)
        a = s(x, m, b)[0] if scheme.startswith("naive") else a
        x = x + h / 2 * (G * x - m / MASS + G * a)
        c = s(x, m, b if scheme.startswith("naive") else b - h)[1]
        return x, m + h / 4 * (x + NU * m + MASS * NU * c)
    x = math.exp(-h * G / 2) * x + math.sqrt(1 - math.exp(-h * G)) * draw()
    m = math.exp(-h * NU / 2) * m + math.sqrt(MASS * (1 - math.exp(-h * NU))) * draw()
    a, c = s(x, m, b)
    m = m + h / 2 * (x + 2 * NU * m + 2 * MASS * NU * c)
    a = s(x, m, b)[0] if scheme.startswith("naive") else a
    return x + h / 2 * (2 * G * x - m / MASS + 2 * G * a), m


@pytest.mark.parametrize("scheme", SPLITTINGS)
def test_a_plan_is_the_papers_integrator(scheme):
    """Against the integrator written out on the joint score of the world in phase space."""
    path, n = VP(), 5
    plan = solver(scheme)(path, TIMES)
    start = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run = sample(WORLD.denoiser(path), start=start, plan=plan, seed=4, keep="trajectory")
    noise = KeyedNoise(4, range(n), (2,), torch.float64, "cpu")
    b = SPACE.b_of_lam(path.lam(TIMES))
    world, kernels, sigma = PhaseSpaceWorld(WORLD, SPACE), [SPACE.kernel(v) for v in b], path.sigma(TIMES)

    def joint(x, m, at):
        return world.score(torch.stack([x, m], 1), float(at)).unbind(1)

    # Draws are numbered with room for the most that any row makes, restarts included; O and Euler–Maruyama use two.
    width = Program(plan, WORLD.denoiser(path)).draws
    drawing = SCHEMES[scheme].opens or scheme == "euler-maruyama"
    pooled = [noise.step(width * row + k, 0.0, 0.0) for row in range(1, plan.steps) for k in range(2) if drawing]
    kernel, first = kernels[0], noise.step(0, 0.0, 0.0)
    x, m = (kernel.mean[k] / kernel.worth / sigma[0] * start + kernel.rest[k] * first for k in range(2))
    if scheme == "naive-oba":  # the rows between the parts of a step draw nothing
        pooled = [v for row in (0, 2, 4) for v in pooled[2 * row : 2 * row + 2]]
    for i in range(3):
        x, m = step(scheme, x, m, joint, float(b[i] - b[i + 1]), b[i], lambda: pooled.pop(0))
    seen = sigma[3] * (kernels[3].seen[0] * x + kernels[3].seen[1] * m)
    assert torch.allclose(run.x, seen, rtol=1e-5, atol=1e-5)
    per = {"naive-velocity-verlet": 3, "velocity-verlet": 2, "naive-symplectic-euler": 2, "naive-oba": 2}
    assert plan.evaluations == 3 * per.get(scheme, 1)


@pytest.mark.parametrize("scheme", SPLITTINGS)
def test_order_of_the_law(scheme):
    coarse, fine = convergence_errors(PhaseSpaceIntegrator(scheme), VP(), (160, 320))
    assert math.log2(coarse / fine) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_opening_has_the_law_of_the_pair(path):
    """The pair of a state and a fresh draw has the covariance μμᵀ + Σ of data of variance 1, and x itself stays."""
    plan = make_plan(path, PhaseSpaceIntegrator("symplectic-euler"), [0.8, 0.4])
    row = next(iter(plan))
    assert not row.asks
    assert {(to, kind, float(v)) for to, entries in row.writes.items() for kind, _, v in entries} == {(1, "N", 1.0)}
    b = PhaseSpace().b_of_lam(path.lam(0.8))
    kernel, lam = PhaseSpace().kernel(b), path.lam(0.8)
    seen = kernel.frame @ torch.diag(torch.stack([1 + torch.exp(2 * lam), torch.ones(())]).double()) @ kernel.frame.mT
    mean = PhaseSpace().mean(b)
    assert torch.allclose(seen, mean[:, None] * mean + PhaseSpace().covariance(b), rtol=1e-9)
    assert gaussian_output(plan, torch.tensor([0.1, 1.5], dtype=torch.float64))[1].isfinite().all()


def test_reduced_needs_fewer_evaluations_for_the_same_error():
    """At equal evaluations on Gaussian data: reduced OBA ahead of naive, reduced Verlet ahead of naive and Euler."""

    def error(scheme, evaluations):
        per = len(SCHEMES[scheme].rows)
        return convergence_errors(PhaseSpaceIntegrator(scheme), VP(), (evaluations // per,))[0]

    for evaluations in (24, 48, 96):
        assert error("oba", evaluations) < 0.75 * error("naive-oba", evaluations)
        assert error("velocity-verlet", evaluations) < 0.5 * error("naive-velocity-verlet", evaluations)
        assert error("velocity-verlet", evaluations) < 0.5 * error("symplectic-euler", evaluations)


def test_noise_in_the_position():
    """λ_s scales the rate at which O draws for the position, and nothing else."""
    plans = [PhaseSpaceIntegrator(position_noise=v, friction=0.3)(VP(), TIMES) for v in (1.0, 0.5, 0.0)]
    space, b = PhaseSpace(0.3), PhaseSpace(0.3).b_of_lam(VP().lam(TIMES))
    h = float(b[1] - b[2])
    frame = space.kernel(b[1]).frame @ torch.diag(torch.stack([1 / VP().sigma(TIMES[1]), torch.ones(())]).double())
    drawn = []
    for plan in plans:
        row = list(plan)[2]  # ends with the O of the second step
        noises = torch.zeros(2, 2, dtype=torch.float64)
        for to, entries in row.writes.items():
            for kind, source, value in entries:
                if kind == "N":
                    noises[to, source] = value
        pair = frame @ noises  # what the two draws are in position and momentum
        drawn.append((pair @ pair.mT).flatten().tolist())
    momentum = space.mass * -math.expm1(-h * 4.01)
    for found, rate in zip(drawn, (0.3, 0.15, 0.0), strict=True):
        assert found == pytest.approx([-math.expm1(-h * rate), 0, 0, momentum], abs=1e-12)
    c = torch.tensor([0.1, 1.0], dtype=torch.float64)
    widths = [gaussian_output(plan, c)[1] for plan in plans]
    assert (widths[0] > widths[1]).all()
    assert (widths[1] > widths[2]).all()


def test_bad_arguments_are_refused():
    for message, call in {
        "scheme": lambda: PhaseSpaceIntegrator("verlet"),
        "position_noise": lambda: PhaseSpaceIntegrator(position_noise=-1.0),
        "friction": lambda: PhaseSpaceIntegrator(friction=5.0),
        "one time for all": lambda: PhaseSpaceIntegrator()(VP(), TIMES[:, None]),
    }.items():
        with pytest.raises(ArgumentError, match=message):
            call()
