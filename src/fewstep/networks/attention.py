"""Self-attention over the places of a picture; one class, so that guides can find, read and replace it."""

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError


class SelfAttention(nn.Module):
    """softmax(QKᵀ/√d)·V over tokens, with the projections that surround it.

    Args:
        width: the channels of a token.
        heads: the number of heads; divides width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) → the same shape."""
        batch, length, width = tokens.shape
        q, k, v = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Conditioning(nn.Module):
    """One vector from the time and the class label that the blocks of a network are scaled and shifted by.

    Args:
        width: the length of the vector.
        classes: the number of classes; label `classes` is the null label, which stands for no class.
    """

    frequencies: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("frequencies", torch.exp(torch.linspace(-2.0, 3.0, width // 4)), persistent=False)
        self.mix = nn.Sequential(nn.Linear(2 * (width // 4), width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)

    def forward(self, time: Tensor, label: Tensor | None) -> Tensor:
        """time (batch,) and label (batch,) int64, or None for the null label → (batch, width).

        Raises:
            ArgumentError: there is no such class; a GPU does not tell, and ends the process.
        """
        angle = time.to(self.frequencies.dtype)[:, None] * self.frequencies
        if label is None:
            label = torch.full(time.shape, self.classes, dtype=torch.int64, device=time.device)
        try:
            told = self.label(label)
        except (IndexError, RuntimeError, TypeError) as error:
            allowed = f"labels must be 0 … {self.classes - 1}, or {self.classes} for none"
            if not isinstance(label, Tensor) or label.is_floating_point():
                kind = f"a tensor of {label.dtype}" if isinstance(label, Tensor) else repr(label)
                raise ArgumentError(f"{allowed}, as whole numbers, got {kind}") from error
            if not isinstance(error, IndexError):
                raise
            raise ArgumentError(f"{allowed}, got {label.unique().tolist()[:8]}") from error
        return nn.functional.silu(self.mix(torch.cat([angle.cos(), angle.sin()], -1)) + told)
