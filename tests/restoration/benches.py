"""The benches whose posterior is exact, and the exact law of any restorer that is linear in its noise.

A sampler on Gaussian data with a linear measurement is affine in all noise that it draws.  So it is run in one batch on
no noise and on every unit of noise alone: the first row is the mean, the others' differences to it the factor of the
covariance.  Guides on one-step solvers are affine in the state too, so a few steps at a time are enough.  No sampling
error is left.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from fewstep import VP
from fewstep.noise import KeyedNoise
from fewstep.program import Program
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Mask, Measurement
from fewstep.restoration.base import RestorationGuide
from fewstep.session import prepare
from fewstep.worlds import Gaussian, GaussianMixture

PATH = VP.from_betas("linear")
# Steps that a guide's law takes in one batch, and the draws that a step makes at most.
TOGETHER, DRAWS = 10, 2


def b1(sigma=0.3, scale=1.0, y=1.5):
    """The correlated Gaussian of two numbers of which the first is measured."""
    world = Gaussian(torch.zeros(2), scale**2 * torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    y = torch.tensor([[y, 0.0]], dtype=torch.float64)
    return world, Measurement(Mask(torch.tensor([1, 0])), y, Noise(sigma))


def b2():
    """Two modes at ±(1, 1), the first number measured; the exact weight of the + mode is 0.847."""
    modes = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    world = GaussianMixture([0.5, 0.5], modes, torch.full((2, 1), 0.1))
    y = torch.tensor([[0.3, 0.0]], dtype=torch.float64)
    return world, Measurement(Mask(torch.tensor([1, 0])), y, Noise(0.5))


class Impulses(KeyedNoise):
    """Noise of which every number of every draw is 1 in a row of its own and 0 elsewhere, from row `first` on."""

    def __init__(self, shape, rows, first):
        self.size, self.first, self.found = int(torch.tensor(shape).prod()), first, {}
        super().__init__(0, range(rows), shape, torch.float64, "cpu")

    def _unit(self, key):
        x = torch.zeros(len(self.samples), self.size, dtype=torch.float64)
        first = self.first + self.size * self.found.setdefault(key, len(self.found))
        if len(x) > 1:
            x[first : first + self.size] = torch.eye(self.size, dtype=torch.float64)
        return x.reshape(-1, *self.shape)

    def start(self):
        return self._unit("start")

    def step(self, index, lam, lam_next):
        return self._unit(("step", index))

    def guide(self, index):
        return self._unit(("guide", index))

    def prepare(self, count):
        pass


def guided_law(world, guide, path, evaluations, solver, grid):
    """(mean, covariance) of a guide on a one-step solver, whose steps are affine in the state and in their noise."""
    plan, size = guide.plan(path, evaluations or guide.budget, solver, grid), int(torch.tensor(world.shape).prod())
    program = Program(plan, world.denoiser(path), guide.guides(), torch.float64)
    assert plan.registers == ("x",)
    mean = torch.zeros(size, dtype=torch.float64)
    covariance = float(path.sigma(plan.times[0])) ** 2 * torch.eye(size, dtype=torch.float64)
    for begin in range(0, plan.steps, TOGETHER):
        noise = Impulses(world.shape, 1 + size + DRAWS * TOGETHER * size, 1 + size)
        x = torch.zeros(len(noise.samples), size, dtype=torch.float64)
        x[1 : 1 + size] = torch.eye(size)
        run = program.start(x.reshape(-1, *world.shape), {}, noise)
        with torch.no_grad():
            for index in range(begin, min(begin + TOGETHER, plan.steps)):
                program.step(run, index)
        assert len(noise.found) <= DRAWS * TOGETHER
        out = run.registers[0].flatten(1)
        moved, drawn = (out[1:] - out[0]).split([size, len(out) - 1 - size])
        mean = out[0] + mean @ moved
        covariance = moved.mT @ covariance @ moved + drawn.mT @ drawn
    return mean, covariance


def law(world, restorer, evaluations=None, *, path=PATH, solver=None, grid=None):
    """(mean, covariance) of what a restorer gives on Gaussian data, without sampling error."""
    if isinstance(restorer, RestorationGuide):
        return guided_law(world, restorer, path, evaluations, solver, grid)

    def run(noise):
        session = prepare(world.denoiser(path), len(noise.samples), plan=restorer.opening(path), dtype=torch.float64)
        start = noise.start() * path.sigma(session.program.plan.times[0])
        with torch.no_grad():
            return restorer.run(replace(session, noise=noise, start=start))[0].flatten(1)

    counting = Impulses(world.shape, 1, 1)
    run(counting)
    x = run(Impulses(world.shape, 1 + len(counting.found) * counting.size, 1))
    factor = x[1:] - x[0]
    return x[0], factor.mT @ factor


@dataclass(frozen=True)
class ExactGuide(RestorationGuide):
    """The answer of a denoiser that knows the posterior: what every guide of this kind stands in for."""

    level: ClassVar[str] = "answer"
    posterior: Any = None

    def solver(self):
        return "ddpm"

    def answer(self, ask, x0, state):
        return self.posterior.denoise(ask.x, ask.path, ask.t), state
