"""DDS: a few conjugate-gradient iterations from x̂₀ towards the measurement, no gradient through the network.

    σ_y > 0:  x̂₀′ = M iterations from x̂₀ on (I + γAᵀA)x = x̂₀ + γAᵀy
    σ_y = 0:  x̂₀′ = M iterations from x̂₀ on AᵀA x = Aᵀy
    x′ = α′·x̂₀′ + σ′(√(1 − η²)·ε̂ + η·ξ),      ε̂ from the unchanged x̂₀

The correction lies in span{(AᵀA)^k Aᵀ(y − A x̂₀), k < M}.  γ does not know σ_y and is the same at all levels, so with
many steps the measured part goes to y itself.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.restoration.base import RestorationGuide
from fewstep.restoration.ddnm import redrawing
from fewstep.restoration.operators.conjugate_gradients import solve_by_cg
from fewstep.solvers import Solver


@method(
    name="dds", papers=["Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems"],
    arxiv="2303.05754", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class DDS(RestorationGuide):
    """Decomposed diffusion sampling: conjugate gradients from every answer (Chung et al. 2024).

    Args:
        iterations: M, at least 1; 5 as published.
        gamma: γ > 0, the weight of a noisy measurement.
        eta: η in [0, 1]; published with 0.15, 0.5 and 0.8 for 19, 49 and 99 evaluations.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    budget: ClassVar[int] = 50
    iterations: int = 5
    gamma: float = 1.0
    eta: float = 0.85

    def __post_init__(self) -> None:
        redrawing(self.eta)
        if self.iterations < 1 or not self.gamma > 0:
            raise ArgumentError(
                f"iterations must be at least 1 and gamma more than 0, got {self.iterations!r}, {self.gamma!r}"
            )
        self.measurement.need_linear("dds")

    def solver(self) -> Solver:
        return redrawing(self.eta)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        operator, y = self.measurement.operator, self.measurement.seen(x0)
        pulled = operator.A_adjoint(y)

        def normal(x: Tensor) -> Tensor:
            return operator.A_adjoint(operator.A(x))

        if self.measurement.sigma == 0:
            return solve_by_cg(normal, pulled, x0, self.iterations), state
        goal = x0 + self.gamma * pulled
        return solve_by_cg(lambda x: x + self.gamma * normal(x), goal, x0, self.iterations), state
