"""Perturbed-attention guidance: away from what the network says when its self-attention looks nowhere.

    x̂₀′ = x̂₀ + s·(x̂₀(x) − x̂₀(x with softmax(QKᵀ) := identity in chosen layers))

Both answers, and the one of classifier-free guidance beside it, are rows of one batch; with it the perturbed answer is
the conditional one: x̂₀′ = x̂₀(∅) + w·(x̂₀(c) − x̂₀(∅)) + s·(x̂₀(c) − x̂₀(c, perturbed)).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.guidance.base import Ask, Branch, Guide
from fewstep.networks.anatomy import Attended, Edit, anatomy_of


@method(
    name="pag",
    papers=["Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance"],
    family="guidance",
    arxiv="2403.17377",
)
@dataclass(frozen=True)
class PAG(Guide):
    """Perturbed-attention guidance (Ahn et al. 2024), without training, conditions or gradients.

    Args:
        scale: s; 0 leaves the answer as it is.  The authors' code counts 1 + s.
        place: whose self-attentions are perturbed: "encoder", "middle", "decoder", or "" for all.
        layers: the names of self-attentions instead, as `fewstep.networks.anatomy` lists them.

    Raises:
        ArgumentError: at the run, when the network has no such self-attention.
    """

    level: ClassVar[str] = "network"
    scale: float = 3.0
    place: str = "middle"
    layers: Sequence[str] = ()

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        if self.scale:
            anatomy_of(denoiser, "PAG").select("attention", self.place, self.layers)
        return None

    def extra(self) -> int:
        return int(self.scale != 0)

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        if self.scale == 0:
            return []
        anatomy = anatomy_of(ask.denoiser, "PAG")
        parts = anatomy.select("attention", self.place, self.layers)

        def within(rows: slice) -> AbstractContextManager[None]:
            return anatomy.edit([Edit(part, look_nowhere, rows) for part in parts])

        return [Branch(cond, within, changes=True)]

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        return (x0 + self.scale * (main - others[0]), state) if others else (x0, state)


def look_nowhere(seen: Attended) -> Tensor:
    """The attention's result when each token of the picture sees, of the picture, itself alone.

    Where a text is attended jointly only the block between the picture's tokens is masked.
    """
    count = seen.value.shape[-2]
    picture = torch.arange(count, device=seen.value.device)[seen.picture]
    if len(picture) == count:
        return seen.value
    allowed = torch.ones(count, count, dtype=torch.bool, device=seen.value.device)
    allowed[picture[:, None], picture] = False
    allowed[picture, picture] = True
    logits = seen.query @ seen.key.mT * seen.query.shape[-1] ** -0.5
    return logits.masked_fill(~allowed, -torch.inf).softmax(-1) @ seen.value
