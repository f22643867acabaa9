"""ReSample: latent DPS, and now and then an answer that is optimised until it agrees with y, its noise resampled.

    every step     z′ ← z′ − ½α²·∇_{z_t}‖y − A D(ẑ₀)‖,      a step of DDIM before
    now and then   ẑ₀ after 5 more steps;  ẑ₀(y) = argmin_z ‖y − A D(z)‖² from there, stopped at the noise level;
                   z′ ~ N(α′ẑ₀(y), σ′²)·N(z′, v),      v = γ·(σ′²/σ²)·(1 − α²/α′²)

The product of the two laws is N((v·α′ẑ₀(y) + σ′²z′)/(v + σ′²), vσ′²/(v + σ′²)): narrower than σ′², the variance of
plain noising of ẑ₀(y).  The first third of a run is left alone; the second optimises the picture and encodes it, the
last one the latent itself, which also ends the run.  Published code differs in its ẑ₀ for the gradient (z − σ²ε̂)/α, and
lets the optimiser's weight decay pull pictures to 0; neither is done here.  For models of pictures E and D change
nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.guidance import Ask, Guide
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.restoration.base import RestorationGuide, level_of
from fewstep.restoration.decoded import of_pictures
from fewstep.restoration.dps import residual_gradient
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.measurement_noise import Gaussian
from fewstep.solvers import Solver

BETAS = (0.9, 0.999)
# A row whose loss is no lower than so many moves ago has settled.
PATIENCE = 200
LOOK = 25
# The number of its draw among those of a step.
SLOT = 63


@torch.no_grad()
def fit(
    loss: Callable[[Tensor], Tensor], x: Tensor, rate: float, moves: int, enough: float, patience: int = PATIENCE
) -> Tensor:
    """Adam from x down a loss of each row, (batch, …); a row stays once its loss is enough or has not fallen for long.

    Args:
        loss: (batch, …) → (batch,).
        x: where each row begins.
        rate: Adam's, more than 0.
        moves: the most steps, at least 0.
        enough: the loss at which a row stops.
        patience: a row also stops where its loss is no less than it was so many steps ago.
    """
    moment, square = torch.zeros_like(x), torch.zeros_like(x)
    going, past = torch.ones(len(x), dtype=torch.bool, device=x.device), []
    for k in range(moves):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            values = loss(at)
            (slope,) = torch.autograd.grad(values.sum(), at)
        past.append(values.detach())
        going = going & (past[-1] > enough)
        if k >= patience:
            going = going & (past[-1] < past[k - patience])
        # Whether all have stopped is asked seldom: the answer has to come from the device.
        if k % LOOK == LOOK - 1 and not bool(going.any()):
            break
        moment = BETAS[0] * moment + (1 - BETAS[0]) * slope
        square = BETAS[1] * square + (1 - BETAS[1]) * slope.square()
        size = rate * math.sqrt(1 - BETAS[1] ** (k + 1)) / (1 - BETAS[0] ** (k + 1))
        moved = x - size * moment / (square.sqrt() + 1e-8)
        x = torch.where(going.reshape(-1, *[1] * (x.ndim - 1)), moved, x)
    return x


@dataclass(frozen=True)
class HardConsistency(Guide):
    """The occasional part of ReSample, after a step.

    Args:
        measurement: of pictures, or of latents through a decoder.
        every: how many steps lie between two of them, at least 1.
        gamma: γ > 0 in v.
        further: the questions on from z′ of which the last answer is optimised, at least 1.
        enough: the root of the mean squared residual at which an optimisation stops; the larger of σ_y and 1e-3 unless
            given.
        moves: the most moves of Adam at pictures, and at latents.
        rates: Adam's rates at pictures, and at latents.
    """

    level: ClassVar[str] = "state"
    measurement: Measurement
    every: int = 10
    gamma: float = 40.0
    further: int = 5
    enough: float | None = None
    moves: tuple[int, int] = (2000, 500)
    rates: tuple[float, float] = (1e-2, 5e-3)

    def due(self, index: int, of: int) -> bool:
        """Whether it acts after step `index`, counted from 0, of so many."""
        left = of - 1 - index
        return left == 0 or (index > 0 and left <= of - of // 3 and left % self.every == 0)

    def init(self, denoiser: Any, batch: int) -> Any:
        """The time before the step, which the next level's noise is compared with."""
        return None

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        left = ask.of - 1 - ask.index
        if left == 0:
            return self._to_latent(x), ask.t, True
        if not self.due(ask.index, ask.of):
            return x, ask.t, False
        answer = self._ahead(ask, x, state)
        fitted = self._to_picture(answer) if left >= ask.of // 3 else self._to_latent(answer)
        return self._resampled(ask, fitted, x, state), ask.t, True

    def _ahead(self, ask: Ask, z: Tensor, before: Tensor) -> Tensor:
        """ẑ₀ after up to `further` questions, each a step of DDIM as long as the last one after the one before."""
        path, t, length = ask.path, ask.t, before - ask.t
        answer = ask.again(z, t, ask.cond)
        for _ in range(self.further - 1):
            t_next = t - length
            if not bool(t_next > 0):
                break
            kept = float(path.sigma(t_next) / path.sigma(t))
            z = kept * z + float(path.alpha(t_next) - kept * path.alpha(t)) * answer
            t, answer = t_next, ask.again(z, t_next, ask.cond)
        return answer

    def _enough(self) -> float:
        noise = self.measurement.noise
        known = noise.sigma if isinstance(noise, Gaussian) else 0.0
        return (max(known, 1e-3) if self.enough is None else self.enough) ** 2

    def _to_picture(self, z: Tensor) -> Tensor:
        """The latent of a picture that is optimised from D(z)."""
        seen, encode, decode = of_pictures(self.measurement)
        return encode(fit(lambda x: misfit(seen, x), decode(z), self.rates[0], self.moves[0], self._enough()))

    def _to_latent(self, z: Tensor) -> Tensor:
        """The latent itself, optimised."""
        return fit(lambda z: misfit(self.measurement, z), z, self.rates[1], self.moves[1], self._enough())

    def _resampled(self, ask: Ask, fitted: Tensor, z: Tensor, before: Tensor) -> Tensor:
        """A draw of N(α′ẑ₀(y), σ′²)·N(z′, v)."""
        path = ask.path
        below, noise = float(path.alpha(ask.t)), float(path.sigma(ask.t))
        v = self.gamma * (noise / float(path.sigma(before))) ** 2 * (1 - (float(path.alpha(before)) / below) ** 2)
        mean = (v * below * fitted + noise**2 * z) / (v + noise**2)
        return mean + math.sqrt(v / (v + noise**2)) * noise * ask.noise(SLOT)


@method(
    name="resample",
    papers=["Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency"],
    arxiv="2307.08123", family="restoration",
)  # fmt: skip
@dataclass(frozen=True)
class ReSample(RestorationGuide):
    """Hard data consistency with stochastic resampling (Song et al. 2024); its `guides` are this and that.

    Args:
        scale: the factor ½ of the gradient's step, at least 0.
        every, gamma, further, enough, moves, rates: of `HardConsistency`.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    level: ClassVar[str] = "answer"
    keeps: ClassVar[str] = "eps"
    needs_grad: ClassVar[bool] = True
    budget: ClassVar[int] = 665
    scale: float = 0.5
    every: int = 10
    gamma: float = 40.0
    further: int = 5
    enough: float | None = None
    moves: tuple[int, int] = (2000, 500)
    rates: tuple[float, float] = (1e-2, 5e-3)

    def __post_init__(self) -> None:
        if not self.scale >= 0 or not self.gamma > 0:
            raise ArgumentError(f"scale must be at least 0 and gamma more than 0, got {self.scale!r}, {self.gamma!r}")
        if self.every < 1 or self.further < 1 or min(self.moves) < 0 or not min(self.rates) > 0:
            raise ArgumentError("every and further must be at least 1, moves at least 0 and rates more than 0")

    def guides(self) -> tuple[Guide, ...]:
        return (self, self._consistency())

    def _consistency(self) -> HardConsistency:
        return HardConsistency(
            self.measurement, self.every, self.gamma, self.further, self.enough, self.moves, self.rates
        )

    def solver(self) -> str | Solver:
        return "ddim"

    def plan(self, path: Path, evaluations: int, solver: str | Solver | None, grid: str | Grid | None) -> Plan:
        """The most steps that fit, the questions of the occasional part counted."""
        steps, due = evaluations, self._consistency().due
        while steps > 1 and steps + self.further * sum(due(i, steps) for i in range(steps - 1)) > evaluations:
            steps -= 1
        return make_plan(path, self.solver() if solver is None else solver, "uniform" if grid is None else grid, steps)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        here = level_of(ask, "resample")
        size = self.scale * here.alpha**2 / here.alpha_next
        return x0 - size * residual_gradient(ask, x0, self.measurement, "resample"), state


def misfit(measurement: Measurement, x: Tensor) -> Tensor:
    """The mean squared residual of every row, over what is measured, (batch,)."""
    restrict = getattr(measurement.operator, "restrict", None)
    ones = torch.ones_like(measurement.y[:1], dtype=x.dtype, device=x.device)
    count = ones.numel() if restrict is None else restrict(ones).sum()
    return measurement.residual(x).flatten(1).square().sum(1) / count
