"""The searches' bench of exact answers: two modes on a line, reward r = x, κ = 1, on 200 geometric levels."""

import math

import torch
from torch import Tensor

from fewstep import VE, Plan, make_plan
from fewstep.search import TiltedMixture
from fewstep.worlds import GaussianMixture

PATH = VE(10.0)
WORLD = GaussianMixture([0.6, 0.4], torch.tensor([[-1.5], [1.5]]), torch.tensor([[0.3], [0.15]]))
MODEL = WORLD.denoiser(PATH)
TILT = TiltedMixture(WORLD, torch.ones(1))
EXACT = "exact .926, 1.438, .721"


def plan(steps: int = 200, solver: str = "ddpm") -> Plan:
    """Levels from σ = 10 to .005 and 0; ancestral sampling unless another solver is named."""
    levels = torch.logspace(1, math.log10(0.005), steps + 1, dtype=torch.float64) / 10
    return make_plan(PATH, solver, torch.cat([levels.clamp_max(1), torch.zeros(1)]))


def first(x: Tensor) -> Tensor:
    """The reward, x itself."""
    return x[:, 0]


def value(x: Tensor, t: Tensor) -> Tensor:
    """The exact soft value."""
    return TILT.value(PATH, x, t)


def moments(x: Tensor, weights: Tensor | None = None) -> tuple[float, float, float]:
    """P(x > 0), mean and variance of weighted samples."""
    x = x[..., 0].flatten().double()
    w = torch.full_like(x, 1 / len(x)) if weights is None else weights.flatten() / weights.sum()
    mean = (w * x).sum()
    return float((w * (x > 0)).sum()), float(mean), float((w * (x - mean) ** 2).sum())


def told(moments: tuple[float, float, float]) -> str:
    """Three figures."""
    return ", ".join(f"{v:.3f}" for v in moments)
