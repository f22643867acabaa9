"""Real digits made coarse, 28×28 to 7×7, and what the shipped restoration models make of them.

Three figures: PSNR to the true digit; the mean distance to it in the features of the shipped classifier (what LPIPS is
for photographs); and the Fréchet distance of those features to 1,000 real digits, which sees how real the set looks.
"""

from functools import cache
from typing import NamedTuple

from torch import Tensor

import fewstep
from claims.guidance.judge import digits, distance, judge
from fewstep.denoisers import Bridged
from fewstep.metrics import psnr
from fewstep.plan import Plan
from fewstep.restoration import AverageDownsample

COUNT = 200


class Seen(NamedTuple):
    """How near restored digits are to the true ones and to real ones; PSNR higher, the others lower the better."""

    psnr: float
    features: float
    frechet: float

    def __str__(self) -> str:
        return f"{self.psnr:.1f} dB/{self.features:.2f}/{self.frechet:.2f}"


@cache
def pairs() -> tuple[Tensor, Tensor]:
    """(digits x₀, 20 of each class; the same made coarse and spread over their squares again)."""
    x0, coarse = digits()[0][:: 1000 // COUNT], AverageDownsample(4)
    return x0, coarse.A_dagger(coarse.A(x0))


@cache
def model(kind: str) -> Bridged:
    """The shipped restoration model of a kind."""
    den = fewstep.load(f"mnist-{kind}")
    assert isinstance(den, Bridged)
    return den


def seen(x: Tensor) -> Seen:
    """How near they are, cut off at black and white."""
    x0, _ = pairs()
    x = x.clamp(-1, 1)
    apart = (judge()(x) - judge()(x0)).norm(dim=1).mean()
    return Seen(float(psnr(x, x0).mean()), float(apart), float(distance(x)))


def restored(den: Bridged, plan: Plan, seed: int = 0) -> Tensor:
    """What a plan makes of the coarse digits."""
    _, y = pairs()
    return fewstep.sample(den, start=den.start(y, float(plan.times[0]), seed), cond={"y": y}, plan=plan, seed=seed).x


def figures(den: Bridged, plan: Plan) -> Seen:
    """How near what a plan makes of the coarse digits is."""
    return seen(restored(den, plan))
