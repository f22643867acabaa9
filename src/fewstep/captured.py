"""A whole run as one CUDA graph: every step of every sample, launched by one call.

A run of a plan is a fixed list of kernels, since every coefficient is known before it begins.  So it is taken once
without recording, for what libraries allocate on first use, then recorded, and from then on replayed: the start, the
conditions and the noise are copied into the places where the record reads them.

    x(0) = replay(x(1), conditions, ξ₁ … ξₙ)

The record of the last run is kept with the denoiser, and used again where plan, guides, shapes, dtypes and device are
the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.program import Program


class HeldNoise:
    """Draws that were made before: the noise that a record reads.

    Args:
        draws: (draws, batch, *shape).
    """

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """Draw number `index`."""
        return self.draws[index]

    def guide(self, index: int) -> Tensor:
        """None is held for guides."""
        raise ArgumentError("cuda_graph=True takes no guide that draws noise of its own")

    def prepare(self, count: int) -> None:
        """Nothing: it is all there."""


def draws_of(program: Program, noise: KeyedNoise) -> Tensor:
    """All draws of a run, (draws, batch, *shape), on the device."""
    noise.prepare(program.plan.steps * program.draws)
    per_step = program.draws
    wanted = [(i * per_step + k, row) for i, row in enumerate(program.rows) for k in range(row.draws)]
    made = {index: noise.step(index, *row.lam) for index, row in wanted}
    if not made:
        return torch.zeros(0, device=program.device)
    # A step that draws less than others has a place that nobody reads.
    unread = torch.zeros_like(next(iter(made.values())))
    return torch.stack([made.get(index, unread) for index in range(len(program.rows) * per_step)])


class Captured:
    """A recorded run.

    Args:
        program: what is recorded.
        start, cond, draws: of the first run; what later runs bring must be of the same shapes.
    """

    def __init__(self, program: Program, start: Tensor, cond: Mapping[str, Any], draws: Tensor) -> None:
        self.program = program
        self.start = start.clone()
        self.cond = {k: v.clone() if isinstance(v, Tensor) else v for k, v in cond.items()}
        self.noise = HeldNoise(draws.clone())
        self._record()

    def _record(self) -> None:
        aside = torch.cuda.Stream(self.start.device)
        aside.wait_stream(torch.cuda.current_stream(self.start.device))
        with torch.cuda.stream(aside):
            self._run()
        torch.cuda.current_stream(self.start.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.run = self._run()

    @torch.no_grad()
    def _run(self) -> Any:
        run = self.program.start(self.start, self.cond, self.noise)  # type: ignore[arg-type]
        for index in range(self.program.plan.steps):
            self.program.step(run, index)
        return run

    def __call__(self, start: Tensor, cond: Mapping[str, Any], draws: Tensor) -> Any:
        """The run of another start, other conditions and other noise: its registers are the record's, read them now."""
        self.start.copy_(start)
        for key, value in self.cond.items():
            if isinstance(value, Tensor):
                value.copy_(cond[key])
        self.noise.draws.copy_(draws)
        self.graph.replay()
        return self.run


def _on_a_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


def _signature(program: Program, start: Tensor, cond: Mapping[str, Any], guides: Sequence[Any]) -> tuple[Any, ...]:
    shapes = [(k, tuple(v.shape), v.dtype) if isinstance(v, Tensor) else (k, repr(v)) for k, v in sorted(cond.items())]
    # A record holds the kernels that it was made with.
    strict = torch.are_deterministic_algorithms_enabled()
    return (tuple(start.shape), start.dtype, start.device, tuple(map(id, guides)), tuple(shapes), strict)


def captured_run(program: Program, start: Tensor, cond: Mapping[str, Any], noise: KeyedNoise) -> Any:
    """The finished run of a program, by the denoiser's record where there is one of this kind, else by a new one.

    Raises:
        ArgumentError: not on a CUDA device, or a guide that needs gradients or moves the state.
    """
    if not _on_a_gpu(start.device):
        raise ArgumentError(f"cuda_graph=True needs a CUDA device, got {start.device}")
    for guide in program.guides:
        if guide.needs_grad or guide.level == "state":
            raise ArgumentError(
                f"cuda_graph=True takes no guide that needs gradients or moves the state, got {guide!r}"
            )
    draws = draws_of(program, noise)
    key = _signature(program, start, cond, program.guides)
    kept = program.denoiser.__dict__.get("_captured")
    if kept is None or kept[0] != key or kept[1].program.plan != program.plan:
        # The guides are held with the record, so that their ids stay theirs.
        kept = (key, Captured(program, start, cond, draws))
        program.denoiser.__dict__["_captured"] = kept
        made: Captured = kept[1]
        made.graph.replay()
        return made.run
    return kept[1](start, cond, draws)
