"""Ensemble score-based sampling: the particles being sampled estimate one another's drift, from values of U alone.

The state is an ensemble on any path and plan.  At every step each particle proposes draws of x₀ from its posterior
under one Gaussian N(m, C); all draws serve all particles (`denoisers.energy`, pooled), and move the Gaussian towards p:

    v_j ∝ e^{−U(x₀ʲ)}/q(x₀ʲ),      E = 1/Σ v_j²,      γ = E/(E + d²),
    (m, C) ← the moments of the mixture (1 − γ)·N(m, C) + γ·Σ_j v_j δ(x₀ʲ).

E is the effective number of draws; with few for the d²/2 numbers of C the Gaussian hardly moves.  A mode that no early
draw found stays lost, so this is for few dimensions, or for a reference that covers p.  Bischoff & Riel (2024) give
the idea, of ensembles for reverse diffusion without gradients; how particles share draws and the rule for (m, C) are
ours.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.denoisers.energy import EnergyDenoiser, Reference
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.loops.base import Loop, refuse_state_guides
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.program import Program
from fewstep.results import Stats
from fewstep.session import Session


@dataclass(frozen=True)
class EnsembleStats(Stats):
    """What an ensemble cost; `evaluations` counts values of U a particle.

    Args:
        effective: E of the last step, of rows·J draws.
        reference: the Gaussian at the end.
    """

    effective: float = 0.0
    reference: Reference | None = None


@method(
    name="ensemble", papers=["Enhancing Score-Based Sampling Methods with Ensembles"], arxiv="2401.17539",
    family="loops", summary="Samples p ∝ e^{−U} from values of U alone: particles estimate one another's drift.",
)  # fmt: skip
@dataclass(frozen=True)
class EnsembleScore(Loop):
    """An ensemble sampled together; a row depends on all rows.

    Args:
        solver, grid: the names of the plan's solver and grid.
        steps: its number of steps, at least 1.
    """

    couples: ClassVar[bool] = True
    solver: str = "ddpm"
    grid: str | Grid = "uniform"
    steps: int = 30

    def opening(self, path: Path) -> Plan:
        """The plan that is run."""
        plan = make_plan(path, self.solver, self.grid, self.steps)
        return replace(plan, source={**plan.source, **asdict(self), "loop": "ensemble"})

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """The plan's steps with a denoiser that learns its Gaussian from every answer."""
        refuse_state_guides(session, "ensemble")
        base = session.program.denoiser
        if not isinstance(base, EnergyDenoiser):
            raise ArgumentError(f"ensemble samples an energy: it needs an EnergyDenoiser, got {type(base).__name__}")
        if session.cond:
            raise ArgumentError(f"an energy takes no conditions, got {sorted(session.cond)}")
        plan, learning = session.program.plan, _Learning(base)
        program = Program(plan, learning, session.program.guides, session.program.dtype, session.program.device)
        run = program.start(session.start, session.cond, session.noise)
        for index in range(plan.steps):
            program.step(run, index)
        x = run.registers[0]
        assert x is not None
        stats = EnsembleStats(run.evaluations * base.draws, 0.0, float(learning.effective), learning.reference)
        return x, plan, stats


class _Learning(Denoiser):
    """One run's pooled denoiser, whose reference follows its draws."""

    def __init__(self, base: EnergyDenoiser) -> None:
        super().__init__(base.path, base.shape, "x0", limits=base.limits)
        self.base, self.reference, self.effective = base, base.reference, torch.zeros(())

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        base = self.base
        pooled = EnergyDenoiser(base.energy, base.path, base.shape, base.draws, self.reference, True, base.seed)
        weighed = pooled.weigh(x, told)
        assert weighed.target is not None
        draws, share = weighed.draws[0], weighed.target.softmax(0)
        self.effective = 1 / share.square().sum()
        step = self.effective / (self.effective + draws.shape[1] ** 2)
        old_mean, old = self.reference.mean.to(x.device), self.reference.covariance.to(x.device)
        mean = share @ draws
        spread = (draws - mean).mT @ (share[:, None] * (draws - mean))
        apart = mean - old_mean
        covariance = (1 - step) * (old + step * apart[:, None] * apart) + step * spread
        self.reference = Reference(old_mean + step * apart, (covariance + covariance.mT) / 2)
        return (weighed.logs.softmax(1) @ draws).reshape(x.shape).to(x.dtype)
