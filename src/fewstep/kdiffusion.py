"""The protocol of k-diffusion, which ComfyUI and Forge share: any solver or plan of ours as a sampler of theirs.

Their model answers x̂₀ = model(x, σ·1, **extra_args).  Their state is x = x₀ + σ·ε, which is the path VE with t = σ/σ_0,
σ_0 the first level; flow models have x = (1 − σ)·x₀ + σ·ε, which is the straight path with t = σ.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.grids import Levels
from fewstep.noise import KeyedNoise, comfyui_generator
from fewstep.paths import VE, Flow, Path
from fewstep.plan import Plan
from fewstep.planning import make_plan, named
from fewstep.program import Program
from fewstep.solvers import Solver

Sampler = Callable[[Tensor, Tensor], Tensor]


class _TheirModel(Denoiser):
    """model(x, σ, **extra_args) → x̂₀ as a denoiser."""

    def __init__(self, path: Path, shape: tuple[int, ...], model: Callable[..., Tensor]) -> None:
        super().__init__(path, shape)
        self.model = model

    def told(self, t: Tensor) -> Tensor:
        return self.path.sigma(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        out = self.model(x, told.to(x.dtype).expand(len(x)), **cond)
        if out.shape != x.shape:
            raise ArgumentError(f"the model answered with shape {tuple(out.shape)} to a state of {tuple(x.shape)}")
        return out


class _TheirNoise(KeyedNoise):
    """noise_sampler(σ, σ′) as the noise of a run.

    A row's draw belongs to the way from where its network is asked to where it is asked next; that of a row without a
    question to the way from where x was asked last.
    """

    def __init__(self, sampler: Sampler, program: Program, like: Tensor) -> None:
        super().__init__(0, range(len(like)), like.shape[1:], like.dtype, like.device)
        self.sampler, self.draws = sampler, program.draws
        asked, own = program.plan.times[0], []
        for row in program.rows:
            of_x = [q.t for q in row.questions if q.register == 0]
            asked = of_x[0] if of_x else asked
            own.append(row.questions[0].t if row.questions else asked)
        after = [program.plan.times[-1]]
        for row in reversed(program.rows[1:]):
            after.insert(0, row.questions[0].t if row.questions else after[0])
        levels = program.plan.path.sigma(torch.stack([torch.stack(own), torch.stack(after)], 1))
        self.levels = levels.to(like.device, like.dtype)

    def prepare(self, count: int) -> None:
        """Nothing is drawn ahead: the order of the draws is theirs."""

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        before, after = self.levels[index // self.draws]
        return self.sampler(before, after)


def to_sigmas(path: Path, times: Tensor) -> Tensor:
    """The levels of a grid as the tools have them: float32, σ/α, or t itself on the straight path.

    Args:
        path: the path.
        times: (steps + 1,), falling.
    """
    return (path.sigma(times) if isinstance(path, Flow) else path.sigma(times) / path.alpha(times)).float()


def from_sigmas(path: Path, sigmas: Tensor) -> Tensor:
    """The times of a tool's list of levels; the inverse of `to_sigmas`.

    Args:
        path: the path.
        sigmas: (steps + 1,), falling, in the path's reach.

    Raises:
        ArgumentError: a list that does not fall strictly, or that leaves the path.
    """
    return Levels(sigmas).times(path)


@torch.no_grad()
def sample_fewstep(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    *,
    solver: str | Solver | None = None,
    plan: Plan | None = None,
    flow: bool = False,
    noise_sampler: Sampler | None = None,
) -> Tensor:
    """Sample with a solver or a plan of ours where a sampler function of k-diffusion is wanted.

    Args:
        model: model(x, σ, **extra_args) → x̂₀; σ (batch,).
        x: (batch, …), the state at the first level, its noise included.
        sigmas: (steps + 1,), levels that fall; fewer than two do nothing, as in these tools.
        extra_args: what the model is given besides; its "seed", as ComfyUI passes one, is what noise is drawn from.
        callback: called once a grid interval with {x, i, sigma, sigma_hat, denoised}.
        disable: False shows a bar.
        solver: a name of the catalogue or of these tools ("dpmpp_2m"), or a solver; "dpm-solver++" unless given.
        plan: a plan on VE or Flow instead; its levels must be `sigmas`.
        flow: whether the state is (1 − σ)·x₀ + σ·ε; a plan's path says so itself.
        noise_sampler: noise_sampler(σ, σ′) → standard normal like x; unless given one draw a step for the whole batch,
            as ComfyUI's own from extra_args["seed"], and from torch's default generator where there is none.

    Raises:
        ArgumentError: levels that do not fall, another plan's levels, a solver beside a plan, or an answer of another
            shape.
    """
    if plan is not None and (solver is not None or flow):
        raise ArgumentError("a plan has its own solver and path; leave solver and flow out")
    if len(sigmas) < 2:
        return x
    plan = _plan_on(sigmas, plan, solver, flow)
    path = plan.path
    program = Program(plan, _TheirModel(path, x.shape[1:], model), (), x.dtype, x.device)
    told = dict(extra_args or {})
    run = program.start(x, told, _TheirNoise(noise_sampler or _drawn(x, told.get("seed")), program, x))
    interval = 0
    for index, row in enumerate(_shown(program.rows, disable)):
        before = run.registers[0]
        program.step(run, index)
        if row.questions and row.questions[0].register == 0 and row.questions[0].t == row.t:
            if callback is not None:
                level = path.sigma(row.t).to(x.device, x.dtype)
                answer = program.preview(run)
                callback({"x": before, "i": interval, "sigma": level, "sigma_hat": level, "denoised": answer})
            interval += 1
    out = run.registers[0]
    assert out is not None
    return out


def _plan_on(sigmas: Tensor, plan: Plan | None, solver: str | Solver | None, flow: bool) -> Plan:
    """The plan on these levels: the one that was given, if it is on them, or the solver's."""
    if not float(sigmas[0]) > float(sigmas[-1]):
        raise ArgumentError(f"sigmas must fall, got {[float(level) for level in sigmas]}")
    path: Path = plan.path if plan is not None else Flow() if flow else VE(float(sigmas[0]))
    if not isinstance(path, (VE, Flow)):
        raise ArgumentError(f"here the state is that of VE or Flow; this plan is for {path.kind!r}")
    times = from_sigmas(path, sigmas)
    its = named(solver, None)[1] if isinstance(solver, str) else None
    if its is not None or solver == "auto":
        raise ArgumentError(f"solver={solver!r} names the grid itself, and here sigmas are it: name the sampler alone")
    if plan is None:
        return make_plan(path, solver or "dpm-solver++", times)
    own = plan.times.unique().flip(0)
    if own.shape != times.shape or not torch.allclose(own, times, atol=1e-6):
        raise ArgumentError(f"the plan's levels are {path.sigma(own).tolist()}, got {path.sigma(times).tolist()}")
    return plan


def _drawn(like: Tensor, seed: int | None) -> Sampler:
    """One draw a step for the whole batch, as k-diffusion's and ComfyUI's ancestral samplers draw."""
    generator = None if seed is None else comfyui_generator(seed, like.device)
    return lambda before, after: torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _shown(rows: list[Any], disable: bool | None) -> Any:
    if disable is not False:
        return rows
    from rich.console import Console
    from rich.progress import track

    return track(rows, "sampling", console=Console(stderr=True))
