"""A denoiser whose batches are cut between the processes of a torch.distributed group, a device each.

Every process runs the same program on the same noises, which are keyed and so need no sending; only the network's rows
are shared out.  With b rows and w processes, process r answers the rows r·⌈b/w⌉ … (r + 1)·⌈b/w⌉ − 1, and all gather
all answers:

    raw(x) = [raw₀(x₀), …, raw_{w−1}(x_{w−1})].

So every solver, guide and loop runs as it does in one process, ParaDiGMS's window with it, whose steps are rows of one
batch.  A gradient goes back the same way: the rows of dL/draw to their process, and dL/dx gathered from all.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import FunctionCtx, once_differentiable

from fewstep.denoisers.around import Around
from fewstep.denoisers.base import Denoiser
from fewstep.errors import ArgumentError


class Distributed(Around):
    """The same denoiser, asked by all processes of a group together.

    All must ask the same questions in the same order, as they do when each runs the same script on the same arguments.
    Devices of one kind give the same bits in every process; of different kinds, loops that look at the state to decide
    may part ways.

    Args:
        inner: the model, on this process's own device.
        group: the processes; all of them unless given.

    Raises:
        ArgumentError: torch.distributed has not begun (`torch.distributed.init_process_group`, or `torchrun`), or the
            inner denoiser is no denoiser.
    """

    def __init__(self, inner: Denoiser, group: "dist.ProcessGroup | None" = None) -> None:
        if not isinstance(inner, Denoiser):
            raise ArgumentError(f"inner must be a fewstep denoiser, got {type(inner).__name__}")
        if not dist.is_available() or not dist.is_initialized():
            raise ArgumentError("torch.distributed has not begun: call torch.distributed.init_process_group first")
        super().__init__(inner)
        self.group, self.rank, self.world = group, dist.get_rank(group), dist.get_world_size(group)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """The rows' answers, each from the process whose it is."""
        count = len(x)
        size = math.ceil(count / self.world)
        begin, end = min(self.rank * size, count), min((self.rank + 1) * size, count)

        def own(value: Any) -> Any:
            rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
            return value[begin:end] if rows else value

        mine = _Scatter.apply(x, self, begin, end, size) if x.requires_grad else x[begin:end]
        answer = mine
        if end > begin:
            answer = self.inner.raw(mine, own(told), **{key: own(value) for key, value in cond.items()})
        if answer.requires_grad:
            whole: Tensor = _Gather.apply(answer, self, begin, end, size, count)
            return whole
        return self.gathered(answer, size)[:count]

    def gathered(self, rows: Tensor, size: int) -> Tensor:
        """The rows of all processes, `size` of each: those of this one filled up with zeros."""
        full = rows.new_zeros(size, *rows.shape[1:])
        full[: len(rows)] = rows
        out = full.new_empty(self.world * size, *rows.shape[1:])
        dist.all_gather(list(out.chunk(self.world)), full, group=self.group)
        return out


class _Scatter(torch.autograd.Function):
    """The rows of this process; their gradients are gathered from all."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, whole: Distributed, begin: int, end: int, size: int) -> Tensor:
        ctx.whole, ctx.size, ctx.count = whole, size, len(x)  # type: ignore[attr-defined]
        return x[begin:end].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.whole.gathered(grad.contiguous(), ctx.size)[: ctx.count], None, None, None, None


class _Gather(torch.autograd.Function):
    """The rows of all processes; a row's gradient goes to the process whose it is."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, rows: Tensor, whole: Distributed, begin: int, end: int, size: int, count: int
    ) -> Tensor:
        ctx.begin, ctx.end = begin, end  # type: ignore[attr-defined]
        return whole.gathered(rows, size)[:count].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return grad[ctx.begin : ctx.end], None, None, None, None, None
