"""The benches whose posterior is exact, and the exact law of any restorer that is linear in its noise.

A sampler on Gaussian data with a linear measurement is affine in all noise that it draws.  So it is run in one batch on
no noise and on every unit of noise alone: the first row is the mean, the others' differences to it the factor of the
covariance.  No sampling error is left.
"""

from dataclasses import replace

import torch

from fewstep import VP
from fewstep.noise import KeyedNoise
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Mask, Measurement
from fewstep.restoration.base import RestorationGuide
from fewstep.session import prepare
from fewstep.worlds import Gaussian, GaussianMixture

PATH = VP.from_betas("linear")


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
    """Noise that is 0 but for one number of one draw, another in every row."""

    def __init__(self, shape, keys=None):
        self.size, self.keys = int(torch.tensor(shape).prod()), keys
        self.found = {}
        super().__init__(0, range(1 if keys is None else 1 + len(keys) * self.size), shape, torch.float64, "cpu")

    def _unit(self, key):
        x = torch.zeros(len(self.samples), self.size, dtype=torch.float64)
        self.found.setdefault(key, None)
        if self.keys is not None:
            first = 1 + self.keys[key] * self.size
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


def _run(world, restorer, path, noise, evaluations, solver, grid):
    denoiser = world.denoiser(path)
    rows = len(noise.samples)
    if isinstance(restorer, RestorationGuide):
        plan = restorer.plan(path, evaluations or restorer.budget, solver, grid)
        session = prepare(denoiser, rows, plan=plan, guides=restorer.guides(), dtype=torch.float64)
    else:
        session = prepare(denoiser, rows, plan=restorer.opening(path), dtype=torch.float64)
    start = noise.start() * session.program.plan.path.sigma(session.program.plan.times[0])
    session = replace(session, noise=noise, start=start)
    if isinstance(restorer, RestorationGuide):
        for event in session.events():
            x = event.x
        return x
    with torch.no_grad():
        return restorer.run(session)[0]


def law(world, restorer, evaluations=None, *, path=PATH, solver=None, grid=None):
    """(mean, covariance) of what a restorer gives on Gaussian data, without sampling error."""
    counting = Impulses(world.shape)
    _run(world, restorer, path, counting, evaluations, solver, grid)
    keys = {key: number for number, key in enumerate(counting.found)}
    x = _run(world, restorer, path, Impulses(world.shape, keys), evaluations, solver, grid).flatten(1)
    factor = x[1:] - x[0]
    return x[0], factor.mT @ factor
