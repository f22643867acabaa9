"""Ambient DPS: DPS with a model that was trained on masked data alone, and sees only a mask's part of its state.

    m ∈ {0, 1}, drawn once a sample and kept,      x̂₀ = h(m·x_t, m) ≈ E[x₀ | m·x_t]
    x′ ← x′ − ζ·∇_{x_t}‖y − A(x̂₀)‖,      a step of DDIM before

A need not be the masks of the training.  With m = 1 it is DPS.  What m hides comes out as its mean given what m shows:
too narrow for a sample, and better in squared error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.denoisers.masked import Masked
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask, Guide
from fewstep.restoration.base import RestorationGuide, level_of
from fewstep.restoration.dps import residual_gradient
from fewstep.solvers import Solver

# The number of its draw among those of the first step.
SLOT = 62


@dataclass(frozen=True)
class KeptMask(Guide):
    """Tells a masked denoiser one mask a sample, the same at every step.

    Args:
        seen: the share of places, in (0, 1], that a random mask shows, all channels of a place together.
        mask: zeros and ones that broadcast against a sample, in place of a random one.

    Raises:
        ArgumentError: a share out of its range, or a mask of other values; at the run, a denoiser that takes no mask or
            whose samples have another shape.
    """

    level: ClassVar[str] = "condition"
    seen: float = 1.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 < self.seen <= 1:
            raise ArgumentError(f"seen must lie in (0, 1], got {self.seen!r}")
        mask = self.mask
        if mask is not None and not (isinstance(mask, Tensor) and bool(((mask == 0) | (mask == 1)).all())):
            raise ArgumentError("mask must be a tensor of zeros and ones")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        if not isinstance(denoiser, Masked):
            got = type(denoiser).__name__
            raise ArgumentError(f"ambient-dps needs a model that takes a mask (fewstep.denoisers.Masked), got {got}")
        if self.mask is not None:
            try:
                self.mask.expand(denoiser.shape)
            except RuntimeError:
                shapes = f"samples of {tuple(denoiser.shape)}, got {tuple(self.mask.shape)}"
                raise ArgumentError(f"mask must broadcast against {shapes}") from None
        return None

    def needs_order(self) -> bool:
        return self.mask is None

    def condition(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> tuple[Mapping[str, Any], Any]:
        kept = self._draw(ask) if state is None else state
        return {**cond, "mask": kept}, kept

    def _draw(self, ask: Ask) -> Tensor:
        x = ask.x.detach()
        if self.mask is not None:
            return self.mask.to(x).expand_as(x)
        drawn = torch.special.ndtr(ask.noise(SLOT))
        # Pictures have channels, which are seen or hidden together.
        drawn = drawn[:, :1] if x.ndim == 4 else drawn
        return (drawn < self.seen).to(x).expand_as(x)


@method(
    name="ambient-dps",
    papers=[
        "Ambient Diffusion Posterior Sampling: "
        "Solving Inverse Problems with Diffusion Models trained on Corrupted Data",
    ],
    arxiv="2403.08728", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class AmbientDPS(RestorationGuide):
    """DPS with a model of masked data (Aali et al. 2024); its `guides` are the kept mask and this.

    Args:
        scale: ζ ≥ 0 in the units of x, of the unsquared norm; 2 as published for MRI, 4 for pictures.
        seen: the share of places, in (0, 1], that the model is shown; that of its training.
        mask: a mask in place of a random one, zeros and ones that broadcast against a sample.

    Raises:
        ArgumentError: a parameter out of its range; at the run, a model that takes no mask.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    needs_grad: ClassVar[bool] = True
    budget: ClassVar[int] = 500
    scale: float = 2.0
    seen: float = 1.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ArgumentError(f"scale must be at least 0, got {self.scale!r}")
        KeptMask(self.seen, self.mask)

    def guides(self) -> tuple[Guide, ...]:
        return (KeptMask(self.seen, self.mask), self)

    def solver(self) -> str | Solver:
        return "ddim"

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        size = self.scale / level_of(ask, "ambient-dps").alpha_next
        return x0 - size * residual_gradient(ask, x0, self.measurement, "ambient-dps"), state
