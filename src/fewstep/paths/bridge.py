"""Paths towards a known degraded picture y: x_t = a(t)·x₀ + b(t)·y + c(t)·ε.

Subtract b(t)·y and it is an ordinary path with α = a and σ = c.  The state that samplers see is z_t = x_t − b(t)·y;
whoever asks the network adds b(t)·y back (`fewstep.denoisers.wrap_bridge`).  So every solver, grid and guide serves
bridges and none is theirs alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, PlanError
from fewstep.paths.base import Path, as_time

Curve = Callable[[Tensor], Tensor]
# A node's time that went through float32 may lie this share of an interval beside it.
NEAR = 1e-3


def _slope(curve: Callable[[Tensor | float], Tensor], t: Tensor | float) -> Tensor:
    with torch.enable_grad():
        t = as_time(t).detach().requires_grad_()
        (slope,) = torch.autograd.grad(curve(t).sum(), t, allow_unused=True)
    return torch.zeros_like(t) if slope is None else slope.detach()


class Bridge(Path, ABC):
    """A path x_t = a(t)·x₀ + b(t)·y + c(t)·ε: α = a, σ = c and the shift b."""

    @abstractmethod
    def shift(self, t: Tensor | float) -> Tensor:
        """b(t), the share of the degraded picture in the state; 0 at t = 0."""

    def d_shift(self, t: Tensor | float) -> Tensor:
        """b′(t) = db/dt."""
        return _slope(self.shift, t)

    def lam(self, t: Tensor | float) -> Tensor:
        return self.alpha(t).log() - self.sigma(t).log()

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        lam = as_time(lam)
        low, high = torch.zeros_like(lam), torch.ones_like(lam)
        # 60 halvings of [0, 1] leave an interval below the spacing of float64 near 1.
        for _ in range(60):
            middle = (low + high) / 2
            later = self.lam(middle) < lam
            low, high = torch.where(later, low, middle), torch.where(later, middle, high)
        return (low + high) / 2

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return _slope(self.alpha, t)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return _slope(self.sigma, t)


@dataclass(frozen=True)
class BridgePath(Bridge):
    """The path x_t = a(t)·x₀ + b(t)·y + c(t)·ε of three curves of one's own.

    Args:
        a: the factor of the data, from 1 at t = 0; a differentiable function of float64 tensors.
        b: the factor of the degraded picture, from 0 at t = 0.
        c: the factor of the noise, from 0 at t = 0; a/c falls strictly as t grows.

    Raises:
        ArgumentError: the ends are not a(0) = 1, b(0) = 0, c(0) = 0, or a/c does not fall.
    """

    kind: ClassVar[str] = "bridge"
    a: Curve = field(compare=True)
    b: Curve = field(compare=True)
    c: Curve = field(compare=True)

    def __post_init__(self) -> None:
        t = torch.linspace(0, 1, 257, dtype=torch.float64)
        ends = [float(curve(t[0])) for curve in (self.a, self.b, self.c)]
        if not torch.allclose(torch.tensor(ends), torch.tensor([1.0, 0.0, 0.0]), atol=1e-6):
            raise ArgumentError(f"a bridge starts at a(0)=1, b(0)=0, c(0)=0; got {ends}")
        if not (self.lam(t[1:]).diff() < 0).all():
            raise ArgumentError("a(t)/c(t) must fall strictly as t goes from 0 to 1")

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.a(as_time(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.c(as_time(t))

    def shift(self, t: Tensor | float) -> Tensor:
        return self.b(as_time(t))

    def to_json(self) -> dict[str, Any]:
        raise PlanError("a BridgePath of plain functions has no JSON form; save its parameters yourself")


class NodeBridge(Bridge, ABC):
    """A bridge of a network trained on n levels: a, b and c are linear in t between the nodes t = k/n.

    A slope at a node is that of the interval below it, into which a sampler steps.
    """

    @abstractmethod
    def nodes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(a, b, c, index) at the nodes, float64 (n + 1,) each; index is what the network was told there."""

    @cached_property
    def _table(self) -> Tensor:
        return torch.stack(self.nodes())

    def _at(self, row: int, t: Tensor | float) -> Tensor:
        t, table = as_time(t), self._table[row]
        table, n = table.to(t.device), len(table) - 1
        place = t * n
        left = place.detach().floor().long().clamp(0, n - 1)
        share = place - left.double()
        return table[left] * (1 - share) + table[left + 1] * share

    def _rise(self, row: int, t: Tensor | float) -> Tensor:
        t, table = as_time(t), self._table[row]
        table, n = table.to(t.device), len(table) - 1
        left = ((t.detach() * n - NEAR).ceil().long() - 1).clamp(0, n - 1)
        return (table[left + 1] - table[left]) * n

    def alpha(self, t: Tensor | float) -> Tensor:
        return self._at(0, t)

    def shift(self, t: Tensor | float) -> Tensor:
        return self._at(1, t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return self._at(2, t)

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return self._rise(0, t)

    def d_shift(self, t: Tensor | float) -> Tensor:
        return self._rise(1, t)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        return self._rise(2, t)

    def model_time(self, t: Tensor | float) -> Tensor:
        """The index that the network was trained with, as a real number."""
        return self._at(3, t)
