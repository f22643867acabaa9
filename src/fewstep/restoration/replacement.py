"""Replacement: after every step the measured part of the state becomes the measurement at that noise level.

    x ← x − P x + α·A†y + σ·P ξ,      P = A†A

The state's unmeasured part learns of the measurement only through later answers, so that correlations are under-used;
methods that go over a step again (`repaint`) or push the rest along (`mcg`) are built on it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.guidance import Ask
from fewstep.guidance.base import coefficient
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.measurement import Measurement, observed_share
from fewstep.solvers import Solver


def replaced(ask: Ask, x: Tensor, measurement: Measurement) -> Tensor:
    """x − P x + α·A†y + σ·P ξ at the state's own time, with draw 0 of the ask's noise."""
    alpha, sigma = coefficient(ask.path.alpha(ask.t), x), coefficient(ask.path.sigma(ask.t), x)
    known = alpha * measurement.project(measurement.seen(x))
    return x + known - observed_share(measurement, x - sigma * ask.noise(0))


@method(
    name="replacement", papers=["Score-Based Generative Modeling through Stochastic Differential Equations"],
    arxiv="2011.13456", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class Replacement(RestorationGuide):
    """The measured part of the state is replaced by the measurement, noised afresh after every step.

    Raises:
        ArgumentError: an operator that is not linear.
    """

    level: ClassVar[str] = "state"

    def __post_init__(self) -> None:
        self.measurement.need_linear("replacement")

    def solver(self) -> str | Solver:
        return "ddpm"

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        return replaced(ask, x, self.measurement), state, False
