"""The bench of the searches: two modes, reward r = x, whose tilt and soft value are exact; on 200 geometric levels."""

import math

import torch

from fewstep import VE, make_plan
from fewstep.search.tilted_mixture import TiltedMixture
from fewstep.worlds import GaussianMixture

PATH = VE(10.0)
WORLD = GaussianMixture([0.6, 0.4], torch.tensor([[-1.5], [1.5]]), torch.tensor([[0.3], [0.15]]))
DENOISER = WORLD.denoiser(PATH)
TILT = TiltedMixture(WORLD, torch.ones(1))
# P(x > 0), mean and variance of p*, and of p.
EXACT, UNSTEERED = (0.9255, 1.438, 0.721), (0.4015, -0.3, 2.37)


def levels(steps=200, top=10.0):
    return torch.cat([torch.logspace(math.log10(top), math.log10(0.005), steps + 1).double(), torch.zeros(1)]) / 10


def plan(steps=200, solver="ddpm"):
    return make_plan(PATH, solver, levels(steps).clamp_max(1.0))


def first(x):
    return x[:, 0]


def value(x, t):
    return TILT.value(PATH, x, t)


def moments(x, weights=None):
    """P(x > 0), mean and variance of weighted particles."""
    x = x[..., 0].flatten().double()
    w = torch.full_like(x, 1 / len(x)) if weights is None else (weights / weights.sum()).flatten()
    mean = (w * x).sum()
    return tuple(float(v) for v in ((w * (x > 0)).sum(), mean, (w * (x - mean) ** 2).sum()))
