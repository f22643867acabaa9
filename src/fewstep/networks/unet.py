"""One compact UNet: residual blocks scaled and shifted by time and label, self-attention at the coarse levels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError
from fewstep.networks.attention import Conditioning, SelfAttention


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))·(1 + scale) + shift)))."""

    def __init__(self, width_in: int, width: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, width_in), nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.modulate = nn.Linear(condition, 2 * width)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv1(nn.functional.silu(self.norm1(x)))
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        return self.skip(x) + self.conv2(nn.functional.silu(hidden))


class Attend(nn.Module):
    """x + self-attention(norm(x)) over the places of a feature map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.attention = SelfAttention(width, heads)
        nn.init.zeros_(self.attention.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens).transpose(1, 2).reshape(x.shape)


class Stage(nn.Module):
    """A block, and attention after it where the level has it."""

    def __init__(self, width_in: int, width: int, condition: int, heads: int) -> None:
        super().__init__()
        self.block = Block(width_in, width, condition)
        self.attend = Attend(width, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.attend(self.block(x, condition))


class UNet(nn.Module):
    """A UNet for small pictures: net(x, time, label) → the same shape as x.

    Args:
        channels: the channels of the picture.
        classes: the number of class labels; label `classes` is the null label.
        width: the channels of the finest level; a multiple of 8.
        multipliers: the width of each level in units of `width`, finest first; each level halves the picture.
        depth: blocks a level on the way down (one more on the way up).
        attention: heads of the self-attention at each level, 0 for none.
        patch: side of the squares that are folded into channels first, so that large pictures start coarse.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        depth: int = 1,
        attention: Sequence[int] = (0, 0, 4),
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "kind": "unet", "channels": channels, "classes": classes, "width": width,
            "multipliers": list(multipliers), "depth": depth, "attention": list(attention), "patch": patch,
        }  # fmt: skip
        condition = 4 * width
        self.condition = Conditioning(condition, classes)
        self.fold, self.unfold = nn.PixelUnshuffle(patch), nn.PixelShuffle(patch)
        self.first = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        now, skips = width, [width]
        for level, (factor, heads) in enumerate(zip(multipliers, attention, strict=True)):
            for _ in range(depth):
                self.down.append(Stage(now, factor * width, condition, heads))
                now = factor * width
                skips.append(now)
            last = level == len(multipliers) - 1
            self.shrink.append(nn.Identity() if last else nn.Conv2d(now, now, 3, stride=2, padding=1))
            if not last:
                skips.append(now)
        self.middle = Stage(now, now, condition, attention[-1])
        for level, (factor, heads) in reversed(list(enumerate(zip(multipliers, attention, strict=True)))):
            for _ in range(depth + 1):
                self.up.append(Stage(now + skips.pop(), factor * width, condition, heads))
                now = factor * width
            self.grow.append(nn.Identity() if level == 0 else nn.Conv2d(now, now, 3, padding=1))
        self.depth = depth
        final = nn.Conv2d(now, channels * patch**2, 3, padding=1)
        for parameter in final.parameters():
            nn.init.zeros_(parameter)
        self.last = nn.Sequential(nn.GroupNorm(8, now), nn.SiLU(), final)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """x (batch, channels, height, width), time (batch,), label (batch,) int64 or None → the shape of x."""
        least = self.fold.downscale_factor << (len(self.shrink) - 1)
        if x.shape[-1] % least or x.shape[-2] % least:
            raise ArgumentError(f"the sides of a picture must be multiples of {least} here, got {tuple(x.shape[-2:])}")
        condition = self.condition(time, label)
        x = self.first(self.fold(x))
        skips = [x]
        for level, shrink in enumerate(self.shrink):
            for stage in self.down[level * self.depth : (level + 1) * self.depth]:
                x = stage(x, condition)
                skips.append(x)
            if isinstance(shrink, nn.Conv2d):
                x = shrink(x)
                skips.append(x)
        x = self.middle(x, condition)
        for level, grow in enumerate(self.grow):
            for stage in self.up[level * (self.depth + 1) : (level + 1) * (self.depth + 1)]:
                x = stage(torch.cat([x, skips.pop()], 1), condition)
            if isinstance(grow, nn.Conv2d):
                x = grow(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.unfold(self.last(x))
