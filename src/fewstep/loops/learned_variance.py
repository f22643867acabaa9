"""Ancestral sampling with a variance that the network tells for every element (Nichol & Dhariwal 2021).

On any falling times, also few of those that the network was trained with,

    x′ = (α_{t|t′}σ′²/σ²)·x + (α′β/σ²)·x̂₀ + √Σ·ξ,      log Σ = v·log β + (1 − v)·log β̃,

with v the network's second answer to the same question; see `denoisers.learned_variance` for β and β̃.  The last step,
to σ′ = 0, draws nothing.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.denoisers.learned_variance import VarianceDenoiser
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.loops.base import LaterNoise, Loop
from fewstep.noise import KeyedNoise
from fewstep.paths import Path
from fewstep.plan import Plan, Table
from fewstep.planning import make_plan
from fewstep.program import Program
from fewstep.results import Stats
from fewstep.session import Session


@method(
    name="improved-ddpm", papers=["Improved Denoising Diffusion Probabilistic Models"], arxiv="2102.09672",
    family="loops", summary="Ancestral sampling in few steps with the variances that the network has learnt.",
)  # fmt: skip
@dataclass(frozen=True)
class LearnedVariance(Loop):
    """Ancestral sampling of a denoiser that tells its variances.

    Args:
        steps: the number of steps, at least 1.
        grid: the name of the grid; "uniform" strides evenly through the times of training.
    """

    steps: int = 100
    grid: str | Grid = "uniform"

    def opening(self, path: Path) -> Plan:
        """The ancestral plan with noise of variance 1, which the network's own then scales."""
        plan = make_plan(path, "ddpm", self.grid, self.steps)
        deviates = "the variance of every step is the network's own"
        source = {"solver": "improved-ddpm", **asdict(self)}
        unit = Table(plan.N.index, torch.ones_like(plan.N.value))
        return replace(plan, N=unit, deviates=deviates, source=source)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """The steps; the plan has noise of variance 1 in each."""
        plan, denoiser = session.program.plan, session.program.denoiser
        if not isinstance(denoiser, VarianceDenoiser):
            raise ArgumentError(
                "improved-ddpm needs a denoiser that tells variances, such as wrap_with_variance makes; "
                f"got {type(denoiser).__name__}"
            )
        heard = _Heard(denoiser)
        program = Program(plan, heard, session.program.guides, session.program.dtype, session.program.device)
        run = program.start(session.start, session.cond, _Scaled(session.noise, heard, plan))
        for index in range(plan.steps):
            heard.second = None
            program.step(run, index)
        x = run.registers[0]
        assert x is not None
        return x, plan, Stats(run.evaluations, 0.0)


class _Heard(Denoiser):
    """One run's ear at a denoiser: keeps the second answer to the first question of a step."""

    def __init__(self, inner: VarianceDenoiser) -> None:
        super().__init__(inner.path, inner.shape, inner.predicts, inner.null, inner.limits)
        # Guides that change the network's inside find it here.
        self.inner, self.net = inner, getattr(inner, "net", None)
        self.second: Tensor | None = None

    def told(self, t: Tensor) -> Tensor:
        return self.inner.told(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        answer, second = self.inner.both(x, told, **cond)
        self.second = second if self.second is None else self.second
        return answer


class _Scaled(LaterNoise):
    """Draws of the variance that the network has just told."""

    def __init__(self, noise: KeyedNoise, heard: _Heard, plan: Plan) -> None:
        super().__init__(noise, 0)
        self._heard, self._plan = heard, plan

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """√Σ·ξ of step `index`."""
        drawn = super().step(index, lam, lam_next)
        assert self._heard.second is not None
        # Guidance asks further questions in the same batch, after the plain one.
        second = self._heard.second[: len(drawn)]
        log = self._heard.inner.log_variance(second, self._plan.times[index], self._plan.times[index + 1])
        return drawn * (0.5 * log).exp().to(drawn.dtype)
