"""Self-attention guidance: away from what the network says when the places that it attends to are blurred.

    x̃₀ = M·G(x̂₀) + (1 − M)·x̂₀,      x̃ = α·x̃₀ + σ·ε̂ = x + α·(x̃₀ − x̂₀),
    x̂₀′ = x̂₀ + s·(x̃₀ − x̂₀(x̃)),

which is ε̂′ = ε̂ + s·(ε̂(x) − ε̂(x̃)).  G is a Gaussian blur and M marks the places that receive more than their share
of one layer's attention, summed over the queries.  M = 1 is blur guidance; on stationary Gaussian data with Wiener gain
w_k and blur transfer b_k it is the factor 1 − s·(1 − b_k)·(1 − w_k) at frequency k.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Branch, Guide, coefficient
from fewstep.guidance.cfg import unconditional
from fewstep.networks.anatomy import Attended, Edit, anatomy_of


@method(
    name="sag",
    papers=["Improving Sample Quality of Diffusion Models Using Self-Attention Guidance"],
    family="guidance",
    arxiv="2210.00939",
)
@dataclass(frozen=True)
class SAG(Guide):
    """Self-attention guidance (Hong et al. 2023), two evaluations a step; three beside CFG.

    Args:
        scale: s; 0 leaves the answer as it is.  The authors' code counts 1 + s.
        blur: the standard deviation of the blur, in pixels, more than 0.
        layer: the name of the self-attention that is read; the last of the middle unless given.
        mask: whether only the places attended to are blurred; without it this is blur guidance and needs no attention.
        of_null: work on the unconditional answer, as the paper does beside CFG.

    Raises:
        ArgumentError: blur not more than 0; at the run, samples that are no pictures, or no such self-attention.
    """

    level: ClassVar[str] = "network"
    scale: float = 0.5
    blur: float = 1.0
    layer: str = ""
    mask: bool = True
    of_null: bool = False

    def __post_init__(self) -> None:
        if not self.blur > 0:
            raise ArgumentError(f"blur must be more than 0 pixels, got {self.blur}")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        if len(denoiser.shape) != 3:
            raise ArgumentError(f"SAG blurs pictures (channels, height, width), the samples are {denoiser.shape}")
        if self.mask and self.scale:
            self._edit(denoiser, slice(None), [])
        return []

    def _edit(self, denoiser: Denoiser, rows: slice, found: list[Tensor]) -> AbstractContextManager[None]:
        anatomy = anatomy_of(denoiser, "SAG")
        names: Sequence[str] = [self.layer] if self.layer else ()
        part = anatomy.select("attention", "middle", names)[-1]

        def read(seen: Attended) -> None:
            found.append(seen.weights[..., seen.picture, seen.picture].mean(1).sum(-2))

        return anatomy.edit([Edit(part, read, rows)])

    def extra(self) -> int:
        return 0 if self.scale == 0 else 1 + self.of_null

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        if self.scale == 0:
            return []
        told = unconditional(ask, cond, None, "SAG(of_null=True)") if self.of_null else cond
        state.clear()
        return [Branch(told, (lambda rows: self._edit(ask.denoiser, rows, state)) if self.mask else None)]

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        if not others:
            return x0, state
        own = others[0]
        change = blurred(own, self.blur) - own
        if self.mask:
            # The maps of a step of several questions come in the order of the questions.
            change = change * attended_places(state.pop(0), own.shape[-2:]).to(own)
        told = unconditional(ask, ask.cond, None, "SAG") if self.of_null else ask.cond
        again = ask.again(ask.x + coefficient(ask.path.alpha(ask.t), own) * change, ask.t, told)
        return x0 + self.scale * (own + change - again), state


def attended_places(mass: Tensor, size: Sequence[int]) -> Tensor:
    """Where more than the mean attention is received: (batch, tokens) → 0 or 1, (batch, 1, *size).

    Raises:
        ArgumentError: the tokens do not fill a rectangle of the picture's proportions.
    """
    height, width = size
    rows = round((mass.shape[1] * height / width) ** 0.5)
    if rows == 0 or mass.shape[1] % rows:
        raise ArgumentError(f"{mass.shape[1]} tokens do not tile a picture of {height} × {width}")
    mask = (mass > mass.mean(1, keepdim=True)).to(mass.dtype).reshape(len(mass), 1, rows, -1)
    return nn.functional.interpolate(mask, size=(height, width), mode="nearest")


def blurred(x: Tensor, deviation: float) -> Tensor:
    """A Gaussian blur of pictures (batch, channels, height, width), mirrored at the border and cut at 4 deviations."""
    for axis in (2, 3):
        radius = min(int(4 * deviation + 0.5), x.shape[axis] - 1)
        at = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (at / deviation).square())
        kernel = (kernel / kernel.sum()).reshape(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
        kernel = kernel.expand(x.shape[1], 1, -1, -1)
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        x = nn.functional.conv2d(nn.functional.pad(x, pad, mode="reflect"), kernel, groups=x.shape[1])
    return x
