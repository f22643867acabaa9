"""Resampling: every stretch of steps is noised up again and gone down anew, so that the whole can agree with a guide.

Down by the chain of posteriors, as ddpm goes.  At the levels 0, j, 2j … below T − j, counted from the data, the state
is noised up by j levels by the path's own kernel,

    x⁺ = (α⁺/α)·x + √(σ⁺² − (α⁺/α)²σ²)·ξ,

and comes down anew, r − 1 times.  Both ways keep the path's law, so that without a guide nothing is gained; one that
puts something into the state (`steered-linear`, a restorer that replaces) has the rest follow it.  With j = 1 this is
the multi-step form of Steered Diffusion, with j = r = 10 the walk of RePaint: 2,410 evaluations on 250 levels.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan


def stretches(steps: int, jump_length: int, repeats: int) -> Iterator[tuple[int, int]]:
    """(from, to) in levels counted from the data: down where from is larger, up where it is smaller."""
    jumps = set(range(0, steps - jump_length, jump_length))
    left, level = dict.fromkeys(jumps, repeats - 1), steps
    while level > 0 or left.get(0, 0) > 0:
        if left.get(level, 0) > 0:
            left[level] -= 1
            yield level, level + jump_length
            level += jump_length
        else:
            low = max((k for k in jumps if k < level), default=0)
            yield level, low
            level = low


@method(
    name="resampling",
    papers=["Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis"],
    arxiv="2310.00224", family="solvers", jump_length=1, repeats=2,
    summary="Every step is gone over again, noised up by what it took off, so that the whole agrees with a guide.",
)  # fmt: skip
@dataclass(frozen=True)
class Resampling:
    """Time travel (Lugmayr et al. 2022, Nair et al. 2023): ancestral sampling over stretches of its levels again.

    Args:
        jump_length: j, how many levels a jump goes up, at least 1.
        repeats: r, how often every stretch is gone down, at least 1; 1 is ddpm.

    Raises:
        ArgumentError: a parameter below 1.
    """

    jump_length: int = 1
    repeats: int = 2
    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("jump_length", "repeats"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ArgumentError(f"{name} must be an integer of at least 1, got {value!r}")

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *where); the walk is over its levels."""
        visited = [len(times) - 1]
        for high, low in stretches(len(times) - 1, self.jump_length, self.repeats):
            visited += range(high - 1, low - 1, -1) if high > low else [low]
        levels = len(times) - 1 - torch.tensor(visited)
        at, falls = times[levels], levels[1:] > levels[:-1]
        builder, alpha, sigma = Builder(at, ("x",)), path.alpha(at), path.sigma(at)
        for i in falls.nonzero().flatten().tolist():
            builder.ask("x", at[i : i + 1], range(i, i + 1))
        down = falls.reshape(-1, *[1] * (times.ndim - 1))
        # With α/α′ and the variance v of the forward kernel: the posterior of the earlier state, or the kernel upwards.
        # A place whose time stands still comes out unchanged.
        moves, one, zero = at[1:] != at[:-1], torch.ones_like(at[1:]), torch.zeros_like(at[1:])
        ratio = torch.where(moves, alpha[:-1] / alpha[1:], one)
        noisy = torch.where(moves & down, sigma[:-1] ** 2, one)
        forward = torch.where(moves, (sigma[:-1] ** 2 - ratio**2 * sigma[1:] ** 2).clamp(min=0), zero)
        raised = torch.where(moves, (sigma[1:] ** 2 - (sigma[:-1] / ratio) ** 2).clamp(min=0), zero)
        stays = torch.where(moves, ratio * sigma[1:] ** 2 / noisy, one)
        builder.add("x", "x", torch.where(down, stays, 1 / ratio))
        builder.add("x", 0, torch.where(down, alpha[1:] * forward / noisy, zero))
        builder.add("x", "noise", torch.where(down, forward * sigma[1:] ** 2 / noisy, raised).sqrt())
        return Plan.build(path, builder, order=1, source={**asdict(self), **(source or {})})
