"""DiffusionMBIR: slices denoised one by one, and made one volume by total variation along the third axis.

At every noise level, with x in the units of the data (x_t/α), σ̄ = σ/α and s = (x̂₀ − x)/σ̄²:

    predictor   x ← x + (σ̄² − σ̄′²)·s + √(σ̄² − σ̄′²)·ξ
    corrector   x ← x + ε·s′ + √(2ε)·ξ,      ε = 2(r·‖ξ‖/‖s′‖)² of every slice
    volume      x ← M iterations of conjugate gradients from x on (AᵀA + ρDᵀD)x = Aᵀy + ρDᵀ(z − w)
                z ← soft(Dx + w, λ/ρ),      w ← w + Dx − z

D is the periodic difference along the volume's first axis.  The third line is an iteration of ADMM for ½‖Ax − y‖² +
λ‖Dx‖₁ on the noisy volume; z and w are kept from level to level, so that one iteration at each suffices.  λ/ρ is in
the units of the data and knows neither σ̄ nor σ_y, so the answer is no posterior sample.  The last predictor adds no
noise.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.loops.questions import Questions
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationLoop, levels
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.operators.conjugate_gradients import solve_by_cg
from fewstep.results import Stats
from fewstep.session import Session


def difference(x: Tensor) -> Tensor:
    """D x: every slice taken from the next, the last from the first; x is (batch, depth, …)."""
    return x.roll(-1, 1) - x


def difference_adjoint(v: Tensor) -> Tensor:
    """Dᵀ v."""
    return v.roll(1, 1) - v


def shrunk(v: Tensor, by: float) -> Tensor:
    """soft(v, by) = sign(v)·max(|v| − by, 0)."""
    return v.sign() * (v.abs() - by).clamp_min(0)


@method(
    name="mbir", papers=["Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models"], arxiv="2211.10655",
    family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class MBIR(RestorationLoop):
    """Model-based iterative reconstruction of volumes with a prior of pictures (Chung et al. 2023).

    For a denoiser of volumes such as `Slices(denoiser, depth)` and an operator such as `EverySlice(Tomography(…))`.

    Args:
        measurement: of a linear operator on volumes.
        steps: noise levels, at least 1, evenly spaced in log σ̄; 2,000 as published, at two evaluations each.
        weight: λ ≥ 0, of the total variation; published 0.04 for tomography and 0.005 for MRI, data in [0, 1].
        rho: ρ > 0; published 10 and 0.01.
        iterations: M of conjugate gradients a level, at least 1; 1 as published.
        snr: r ≥ 0 of the corrector; 0 leaves it out.
        sigma_max: the first level σ̄, or the path's own if that is less.
        sigma_min: the last level before 0; more than 0 and less than sigma_max.

    Raises:
        ArgumentError: a parameter out of its range, or an operator that is not linear.
    """

    budget: ClassVar[int] = 4000
    measurement: Measurement
    steps: int = 2000
    weight: float = 0.04
    rho: float = 10.0
    iterations: int = 1
    snr: float = 0.16
    sigma_max: float = 378.0
    sigma_min: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1 or self.iterations < 1:
            raise ArgumentError(f"steps and iterations must be at least 1, got {self.steps} and {self.iterations}")
        if not (self.weight >= 0 and self.rho > 0 and self.snr >= 0):
            raise ArgumentError(
                f"weight and snr must be at least 0 and rho more than 0, got {self.weight}, {self.snr}, {self.rho}"
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ArgumentError(f"sigma_min must lie between 0 and sigma_max, got {self.sigma_min}, {self.sigma_max}")
        self.measurement.need_linear("mbir")

    def spending(self, evaluations: int) -> Self:
        return replace(self, steps=(evaluations + 1) // 2 if self.snr > 0 else evaluations)

    def opening(self, path: Path) -> Plan:
        """The path's flow on the levels."""
        top = min(self.sigma_max, float(torch.exp(-path.lam(1.0))))
        bottom = min(self.sigma_min, top / 2)
        ratios = torch.linspace(math.log(top), math.log(bottom), self.steps, dtype=torch.float64)
        times = path.t_of_lam(-ratios)
        return make_plan(path, "ddim", torch.cat([times, torch.zeros(1, dtype=torch.float64)]))

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Predict, correct, and make the slices one volume, at every level."""
        plan = session.program.plan
        line = levels(plan.path, plan.times)
        asks = Questions(session, plan.times.repeat_interleave(2)[:-1])
        x, memory = session.start / line[0][0], None
        for i, (here, after) in enumerate(pairwise(line)):
            x = self._predict(session, asks, i, x, here, after)
            if after[1] > 0 and self.snr > 0:
                x = self._correct(session, asks, i, x, after)
            memory = memory or (torch.zeros_like(x), torch.zeros_like(x))
            x, memory = self.join(x, memory)
        return x, plan, Stats(asks.evaluations, 0.0)

    @staticmethod
    def _score(asks: Questions, number: int, x: Tensor, level: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """(s, x) at a level; x is another where a guide moved it."""
        alpha, sigma = level
        x0, asked = asks.ask(number, alpha * x)
        return (x0 - asked / alpha) * (alpha / sigma) ** 2, asked / alpha

    def _predict(
        self, session: Session, asks: Questions, i: int, x: Tensor, here: tuple[float, float],
        after: tuple[float, float],
    ) -> Tensor:  # fmt: skip
        score, x = self._score(asks, 2 * i, x, here)
        less = (here[1] / here[0]) ** 2 - (after[1] / after[0]) ** 2
        moved = x + less * score
        return moved if after[1] == 0 else moved + math.sqrt(less) * session.noise.step(i, 0.0, 0.0)

    def _correct(self, session: Session, asks: Questions, i: int, x: Tensor, level: tuple[float, float]) -> Tensor:
        score, x = self._score(asks, 2 * i + 1, x, level)
        xi = session.noise.guide(i)
        sizes = [torch.linalg.vector_norm(v.reshape(*v.shape[:2], -1), dim=-1) for v in (xi, score)]
        ratio = sizes[0] / sizes[1].clamp_min(1e-30)
        step = (2 * (self.snr * ratio) ** 2).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        return x + step * score + (2 * step).sqrt() * xi

    def join(self, x: Tensor, memory: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One iteration of ADMM from a volume and (z, w): the volume and (z, w) after it."""
        operator, (z, w) = self.measurement.operator, memory
        goal = operator.A_adjoint(self.measurement.seen(x)) + self.rho * difference_adjoint(z - w)
        x = solve_by_cg(
            lambda v: operator.A_adjoint(operator.A(v)) + self.rho * difference_adjoint(difference(v)),
            goal.expand_as(x), x, self.iterations,
        )  # fmt: skip
        apart = difference(x)
        z = shrunk(apart + w, self.weight / self.rho)
        return x, (z, w + apart - z)
