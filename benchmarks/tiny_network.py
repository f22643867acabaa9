"""A tiny network with random weights, on which the tests run every guide; and the guides on it."""

from typing import Any

import torch
from every_guide import Kit, chain, every_guide
from torch import Tensor

from fewstep import wrap
from fewstep.denoisers import Denoiser
from fewstep.guidance import Guide
from fewstep.networks import UNet
from fewstep.paths import Path


class Tiny(UNet):
    """A UNet with attention that also takes an embedding, and counts the rows that it is asked."""

    rows = 0

    def forward(self, x: Tensor, time: Tensor, label: Any = None, emb: Tensor | None = None) -> Tensor:
        self.rows += len(x)
        shift: Any = 0 if emb is None else 0.2 * emb.mean(1)[:, None, None, None] + 0.1 * emb[:, :1, None, None]
        return torch.tanh(0.5 * x + shift + 0.3 * super().forward(x, time, label))


def tiny(path: Path, seed: int = 0, multipliers: tuple[int, ...] = (1, 2)) -> tuple[Denoiser, Tiny]:
    """(denoiser, network) of three classes and 8×8 pixels, float64, conditions "label" and "emb" (batch, 4)."""
    attention = (*[0] * (len(multipliers) - 1), 2)
    net = Tiny(1, 3, width=8, multipliers=multipliers, attention=attention).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    net.requires_grad_(False)
    return wrap(net, path, "x0", shape=(1, 8, 8), null={"label": 3}), net


def quadratic(x: Tensor, t: Any = None) -> Tensor:
    """A log-probability of every noisy state, (batch,)."""
    return -(x - 0.3).square().flatten(1).sum(1)


def logits(x: Tensor, t: Any = None) -> Tensor:
    """Those of two classes, (batch, 2)."""
    return torch.stack([x.flatten(1).sum(1), -x.flatten(1).square().sum(1)], 1)


def tiny_guides(path: Path, multipliers: tuple[int, ...] = (1, 2)) -> dict[str, tuple[Guide, Guide]]:
    """`every_guide` on the tiny network of a path."""
    weak = tiny(path, 1, multipliers)[0]
    return every_guide(Kit(weak, quadratic, logits, {"label": 2}, "emb", -60.0, chain(64, 2, 3)))
