"""Autoguidance: the answer, pushed away from that of a weaker version of the same model.

x̂₀′ = x̂₀ + (w − 1)·(x̂₀(good) − x̂₀(weak))
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide


@method(name="autoguidance", papers=[], family="guidance", arxiv="2406.02507")
@dataclass(frozen=True)
class Autoguidance(Guide):
    """Autoguidance (Karras et al. 2024): a smaller or less trained denoiser of the same data is the bad example.

    Args:
        weak: the weaker denoiser, on the same path and of the same shape; it gets the same conditions.
        scale: w; 1 leaves the answer as it is and asks the weak one nothing.

    Raises:
        ArgumentError: weak is no denoiser; at the run, when the path or the shape of the two denoisers differ.
    """

    level: ClassVar[str] = "network"
    weak: Denoiser
    scale: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.weak, Denoiser):
            raise ArgumentError(f"weak must be a denoiser (see fewstep.wrap), got {type(self.weak).__name__}")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        if (self.weak.path, self.weak.shape) != (denoiser.path, denoiser.shape):
            raise ArgumentError(
                f"the weak denoiser must be on {denoiser.path} with shape {denoiser.shape}, "
                f"it is on {self.weak.path} with {self.weak.shape}"
            )
        return None

    def extra(self) -> int:
        return int(self.scale != 1)

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        if self.scale == 1:
            return x0, state
        weak = ask.again(ask.x, ask.t, ask.cond, self.weak)
        return x0 + (self.scale - 1) * (main - weak), state
