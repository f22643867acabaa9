"""DDNM: the measured part of every answer is replaced by the measurement, the noise part stays.

    x̂₀′ = x̂₀ + A†(y − A x̂₀),      x′ = α′·x̂₀′ + σ′(√(1 − η²)·ε̂ + η·ξ),      ε̂ from the unchanged x̂₀

For y without noise.  On Gaussian data the mean tends to the posterior's for every η, the covariance to (1 + √(1 −
η²))/2 of it; with ε̂ recomputed from x̂₀′ neither does.  `ddnm+` of `ddrm` is the method for noisy measurements.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.restoration.base import RestorationGuide
from fewstep.solvers import Solver
from fewstep.solvers.coefficient_preserving import CoefficientPreserving


def redrawing(eta: float) -> Solver:
    """The one-step solver x′ = α′·x̂₀ + σ′(√(1 − η²)·ε̂ + η·ξ).

    Raises:
        ArgumentError: eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ArgumentError(f"eta must lie in [0, 1], got {eta!r}")
    return CoefficientPreserving(2 / math.pi * math.asin(eta))


@method(
    name="ddnm", papers=["Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model"], arxiv="2212.00490",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DDNM(RestorationGuide):
    """Null-space model: the measured part of every answer is replaced by the measurement (Wang et al. 2023).

    Args:
        eta: η in [0, 1], the share of the noise that a step redraws.

    Raises:
        ArgumentError: eta out of its range, or an operator that is not linear.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    eta: float = 0.85

    def __post_init__(self) -> None:
        redrawing(self.eta)
        self.measurement.need_linear("ddnm")

    def solver(self) -> Solver:
        return redrawing(self.eta)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        return x0 + self.measurement.project(self.measurement.residual(x0)), state
