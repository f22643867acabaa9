"""SA-Solver: Adams methods, predictor and corrector, for the reverse equation with as much fresh noise as one likes.

With τ(t) ≥ 0 (0 the probability flow, 1 the reverse equation), constant over a step, and c = 1 + τ²,

    x′ = e^{−τ²h}(σ′/σ)y + cα′∫₀ʰ e^{−c(h−s)} P(λ+s) ds + σ′√(1 − e^{−2τ²h})·ξ

with P the polynomial in λ through the last answers (predictor), then through the new answer and the last ones
(corrector), with the same ξ.  Here τ is one number within a window of λ and 0 outside it; unless given, the window is
that of the times 0.2 to 0.8 of the variance-preserving path, so that it means the same on every path.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.solvers.exponential_adams import Adams


@method(
    name="sa-solver",
    papers=["SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models"],
    arxiv="2309.05019", family="solvers", predictor=3, corrector=4,
    summary="Stochastic Adams predictor–corrector: one evaluation a step, fresh noise τ in the middle of the way.",
)  # fmt: skip
@dataclass(frozen=True)
class StochasticAdams:
    """SA-Solver (Xue et al. 2023).

    Args:
        predictor: the number of answers that the predictor looks at, 1 to 4.
        corrector: the number that the corrector looks at, the new one counted, 2 to 5; 0 for none.
        tau: τ within the window, at least 0.
        window: the least and the largest half-log-SNR λ from which a step draws noise.
        form: "data" or "noise": which answer is taken for a polynomial.  The noise form with τ > 0 leaves its path.
        few_steps: whether two nodes in data form take h/2 for the integral of the line, as authors do at few steps.
        lower_order_final: whether the last steps look at no more answers than there are steps left.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    predictor: int = 3
    corrector: int = 4
    tau: float = 1.0
    window: tuple[float, float] = (-3.22, 0.33)
    form: str = "data"
    few_steps: bool = False
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if self.predictor not in range(1, 5):
            raise ArgumentError(f"predictor must be 1, 2, 3 or 4, got {self.predictor!r}")
        if self.corrector not in (0, 2, 3, 4, 5):
            raise ArgumentError(f"corrector must be 0 (none), 2, 3, 4 or 5, got {self.corrector!r}")
        if not 0 <= self.tau < math.inf:
            raise ArgumentError(f"tau must be at least 0 and finite, got {self.tau!r}")
        if len(self.window) != 2 or not -math.inf < self.window[0] <= self.window[1] < math.inf:
            raise ArgumentError(f"window must be two finite values of λ, rising, got {self.window!r}")
        if self.form not in ("data", "noise"):
            raise ArgumentError(f"form must be 'data' or 'noise', got {self.form!r}")

    @property
    def order(self) -> int:
        """The order of convergence from a cold start: of the samples where τ = 0, of their law where τ > 0."""
        if self.tau > 0:
            return min(self.predictor, 2)
        return min(self.predictor + 1, self.corrector, 3) if self.corrector else min(self.predictor, 2)

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.tau > 0

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place)."""
        slope = "bh1" if self.few_steps and self.form == "data" else "vary"
        adams = Adams(self.predictor, self.corrector, slope, self.form, self.lower_order_final)
        low, high = self.window
        lam = path.lam(times[:-1])
        inside = (lam >= low) & (lam <= high)
        tau = torch.where(inside, self.tau, torch.zeros_like(times[:-1]))
        deviates = ""
        if self.form == "noise" and self.tau:
            deviates = (
                "sa-solver in noise form holds ε̂ under an integral that its noise does not match: σ comes out large"
            )
        source = {**asdict(self), "window": [low, high], **(source or {})}
        return adams.plan(path, times, self.order, source, tau, deviates)
