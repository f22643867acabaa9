"""One compact diffusion transformer (Peebles & Xie 2023): blocks whose norms are scaled, shifted and gated.

    h ← h + g₁·attention((1 + s₁)·norm(h) + b₁),      h ← h + g₂·mlp((1 + s₂)·norm(h) + b₂)

(s, b, g) are linear in the condition and start at zero, so that every block starts as the identity.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fewstep.networks.attention import Conditioning, SelfAttention


def _modulation(condition: int, width: int, parts: int) -> nn.Linear:
    layer = nn.Linear(condition, parts * width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TransformerBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each gated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulate = _modulation(width, width, 6)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulate(condition)[:, None].chunk(6, -1)
        tokens = tokens + gate1 * self.attention(self.norm1(tokens) * (1 + scale1) + shift1)
        return tokens + gate2 * self.mlp(self.norm2(tokens) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """A transformer over the patches of a square picture: net(x, time, label) → the same shape as x.

    Args:
        channels: the channels of the picture.
        classes: the number of class labels; label `classes` is the null label.
        side: the side of the picture; a multiple of `patch`.
        patch: the side of a patch.
        width: the channels of a token; a multiple of `heads`.
        depth: the number of blocks.
        heads: the heads of each self-attention.

    Raises:
        ValueError: side is not a multiple of patch, or width of heads.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        side: int = 32,
        patch: int = 4,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if side % patch or width % heads:
            raise ValueError(f"side {side} must be a multiple of patch {patch}, and width {width} of heads {heads}")
        self.config: dict[str, Any] = {
            "kind": "dit", "channels": channels, "classes": classes, "side": side, "patch": patch,
            "width": width, "depth": depth, "heads": heads,
        }  # fmt: skip
        self.condition = Conditioning(width, classes)
        self.fold, self.unfold = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.first = nn.Linear(channels * patch**2, width)
        self.place = nn.Parameter(0.02 * torch.randn((side // patch) ** 2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm, self.modulate = nn.LayerNorm(width, elementwise_affine=False), _modulation(width, width, 2)
        self.last = nn.Linear(width, channels * patch**2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """x (batch, channels, side, side), time (batch,), label (batch,) int64 or None → the shape of x."""
        condition = self.condition(time, label)
        folded = self.fold(x)
        tokens = self.first(folded.flatten(2).transpose(1, 2)) + self.place
        for block in self.blocks:
            tokens = block(tokens, condition)
        scale, shift = self.modulate(condition)[:, None].chunk(2, -1)
        tokens = self.last(self.norm(tokens) * (1 + scale) + shift)
        return self.unfold(tokens.transpose(1, 2).reshape(folded.shape))
