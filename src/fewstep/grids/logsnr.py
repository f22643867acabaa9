"""Times evenly spaced in the half-log-SNR λ, then 0."""

from dataclasses import dataclass

from torch import Tensor

from fewstep.grids.karras import descend
from fewstep.paths import Path


@dataclass(frozen=True)
class LogSNR:
    """Times evenly spaced in λ = log(α/σ).

    Args:
        rho_min: the last noise-to-signal ratio σ/α before 0.
        rho_max: where the grid begins if the path's own ratio is larger.
        trained: whether the last ratio is the least one that a discretely trained network has seen, where it is one.
    """

    rho_min: float = 0.01
    rho_max: float = 80.0
    trained: bool = False

    def __call__(self, path: Path, steps: int, start: float = 1.0) -> Tensor:
        """float64 (steps + 1,), from start down to 0."""
        return descend(path, steps, start, self.rho_max, self.rho_min, float("inf"), self.trained)
