"""Dynamic thresholding: answers beyond the range of the data are pressed back into it, each sample by its own measure.

With the data in [c − r, c + r] and s the q-quantile of |x̂₀ − c|/r over one sample, but at least 1,

    x̂₀′ = c + r·clamp((x̂₀ − c)/r, −s, s)/s.

Strong guidance drives pictures out of range; this pulls their saturated parts inwards.  An answer within the range
stays as it is.  Latents have no such range: a latent model is refused.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide


def upper_quantile(values: Tensor, share: float) -> Tensor:
    """The quantile of each row, linear between the two values around it.

    Args:
        values: (rows, n), n at least 1.
        share: in [0, 1].

    Returns:
        (rows, 1).
    """
    place = share * (values.shape[1] - 1)
    rank = math.floor(place)
    # Only the largest values are sorted: one in two hundred of a picture, as a rule.
    top = values.topk(values.shape[1] - rank, dim=1).values
    above = top[:, -2:-1] if top.shape[1] > 1 else top[:, -1:]
    return torch.lerp(top[:, -1:], above, place - rank)


@method(
    name="thresholding",
    papers=["DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models"],
    arxiv="2211.01095", family="guidance",
    summary="Dynamic thresholding: answers beyond the data's range are pressed back, each sample by its own quantile.",
)  # fmt: skip
@dataclass(frozen=True)
class Thresholding(Guide):
    """Dynamic thresholding (Saharia et al. 2022), as DPM-Solver++ uses it for models of pixels.

    Args:
        quantile: q in [0, 1]; 0.995 as published.

    Raises:
        ArgumentError: a parameter out of its range, or, at the run, a latent model.
    """

    level: ClassVar[str] = "answer"
    quantile: float = 0.995

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ArgumentError(f"quantile must lie in [0, 1], got {self.quantile!r}")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        if denoiser.latent:
            raise ArgumentError("thresholding needs a model of pixels, whose range is known; this model's are latents")

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        low, high = ask.denoiser.limits
        middle, reach = (low + high) / 2, (high - low) / 2
        # A quantile between two numbers of half precision is not one of them.
        scaled = ((x0.float() if x0.dtype.itemsize < 4 else x0) - middle) / reach
        size = upper_quantile(scaled.abs().flatten(1), self.quantile).clamp(min=1)
        size = size.reshape(-1, *[1] * (x0.ndim - 1))
        return (middle + reach * scaled.clamp(-size, size) / size).to(x0.dtype), state
