"""The variational bound of a chain of steps, its hybrid with the plain loss, and which steps to train on.

For times t_0 > … > t_N = 0, the posterior q(x_{i+1} | x_i, x₀) of variance β̃ and the step N(mean(x̂₀), Σ) that the
denoiser takes in its place, in nats for each number of x₀ (Ho et al. 2020; Nichol & Dhariwal 2021),

    L_i     = ½(log Σ − log β̃ − 1 + (β̃ + (α′β/σ²)²(x₀ − x̂₀)²)/Σ)      i = 0 … N − 2
    L_{N−1} = −log N(x₀; x̂₀, Σ), or of its bin where the data has bins
    L_start = α²x₀²/(2σ²)                                               at t_0, where sampling begins with N(0, σ²)

    hybrid  = ‖raw − target‖² + weight·N·L_i, in which L_i teaches Σ alone.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.learned_variance import VarianceDenoiser, step_posterior
from fewstep.errors import ArgumentError
from fewstep.noise import KeyedNoise
from fewstep.paths import change_of_basis

# A bin's probability is read as at least this, as a Gaussian far from its bin has none in floating point.
LEAST = 1e-12


@dataclass(frozen=True)
class Chain:
    """The steps that the bound is summed over.

    Args:
        denoiser: one that tells variances.
        times: float64 (N + 1,), falling to 0.
        bins: into how many values the data's range is divided, 256 for pictures of 8 bits; 0 for data without bins.

    Raises:
        ArgumentError: times that do not fall to 0, or bins out of range.
    """

    denoiser: VarianceDenoiser
    times: Tensor
    bins: int = 0

    def __post_init__(self) -> None:
        t = self.times
        if t.ndim != 1 or len(t) < 2 or not bool((t[1:] < t[:-1]).all()) or float(t[-1]) != 0 or float(t[0]) > 1:
            raise ArgumentError(f"times must fall from at most 1 to 0, got {t.tolist()}")
        if self.bins < 0 or self.bins == 1:
            raise ArgumentError(f"bins must be 0 or at least 2, got {self.bins!r}")

    @property
    def steps(self) -> int:
        """N."""
        return len(self.times) - 1

    @cached_property
    def _floor(self) -> float:
        """What stands for β̃ on the step to clean data, where it is 0: that of the step before, as published."""
        step = step_posterior(self.denoiser.path, self.times[:-1], self.times[1:])
        return float(step.small[-2] if self.steps > 1 else step.large[-1])

    def _place(self, values: Tensor, x: Tensor) -> Tensor:
        return values.to(x.device).reshape(-1, *[1] * (x.ndim - 1))

    def _answer(self, x0: Tensor, index: Tensor, noise: Tensor, **cond: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(the target of the network, its prediction, x̂₀ cut off from it, log Σ) at the start of steps `index`."""
        path, denoiser = self.denoiser.path, self.denoiser
        t, t_next = (self._place(self.times[index + k], x0) for k in (0, 1))
        x = (path.alpha(t) * x0 + path.sigma(t) * noise).to(x0.dtype)
        raw, second = denoiser.both(x, denoiser.told(t), **cond)
        on_x, on_x0 = (v.to(x0.dtype) for v in change_of_basis(path, t, "x0", denoiser.predicts))
        a, c = (v.to(x0.dtype) for v in denoiser.basis(t))
        believed = raw if denoiser.predicts == "x0" else a * x + c * raw
        floor = (t_next == 0).double() * self._floor
        return on_x * x + on_x0 * x0, raw, believed.detach(), denoiser.log_variance(second, t, t_next, floor)

    def _nats(self, x0: Tensor, index: Tensor, believed: Tensor, log_variance: Tensor) -> Tensor:
        """L_i of every sample, (batch,)."""
        t, t_next = (self._place(self.times[index + k], x0) for k in (0, 1))
        step, last = step_posterior(self.denoiser.path, t, t_next), t_next == 0
        small, gain = (v.to(x0.dtype) for v in (torch.where(last, 1.0, step.small), step.on_x0))
        off = (small + (gain * (x0 - believed)).square()) / log_variance.exp()
        divergence = 0.5 * (log_variance - small.log() - 1 + off)
        return torch.where(last, self._decoded(x0, believed, log_variance), divergence).flatten(1).mean(1)

    def _decoded(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """−log of the density of x₀ under the last step, or of the probability of its bin."""
        spread = (0.5 * log_variance).exp()
        if not self.bins:
            return 0.5 * (((x0 - mean) / spread).square() + log_variance + math.log(2 * math.pi))
        low, high = self.denoiser.limits
        half = (high - low) / (self.bins - 1) / 2
        above, below = (torch.special.ndtr((x0 + side - mean) / spread) for side in (half, -half))
        # The outer bins reach to infinity; put there before, it would make the gradient NaN.
        share = torch.where(x0 > high - half, 1.0, above) - torch.where(x0 < low + half, 0.0, below)
        return -share.clamp_min(LEAST).log()

    def nats(self, x0: Tensor, index: Tensor, noise: Tensor, **cond: Any) -> Tensor:
        """L_i of every sample, in nats for each number, (batch,).

        Args:
            x0: (batch, *shape), clean data.
            index: int64 (batch,), the step of each, 0 … N − 1.
            noise: of x0's shape, standard normal.
            cond: what the network is told.
        """
        _, _, believed, log_variance = self._answer(x0, index, noise, **cond)
        return self._nats(x0, index, believed, log_variance)

    def hybrid(self, x0: Tensor, index: Tensor, noise: Tensor, weight: float = 1e-3, **cond: Any) -> Tensor:
        """The plain loss and a little of the bound, (batch,); arguments are those of `nats`, `weight` at least 0."""
        target, raw, believed, log_variance = self._answer(x0, index, noise, **cond)
        simple = (raw - target).square().flatten(1).mean(1)
        return simple + weight * self.steps * self._nats(x0, index, believed, log_variance)

    @torch.no_grad()
    def bits_per_dimension(self, x0: Tensor, seed: int = 0, **cond: Any) -> Tensor:
        """The whole bound of every sample, in bits for each number, (batch,); of one draw of noise a step.

        Args:
            x0: (batch, *shape), clean data.
            seed: of the noise; row i is sample i.
            cond: what the network is told.
        """
        noise = KeyedNoise(seed, range(len(x0)), self.denoiser.shape, x0.dtype, x0.device)
        path, t = self.denoiser.path, self.times[0]
        ratio = float((path.alpha(t) / path.sigma(t)).square())
        total = 0.5 * ratio * x0.square().flatten(1).mean(1)
        for i in range(self.steps):
            total = total + self.nats(x0, torch.full((len(x0),), i), noise.step(i, 0.0, 0.0), **cond)
        return total / math.log(2)


class ImportanceTimes:
    """Draws steps as often as their losses are large: p_i ∝ √E[L_i²], mixed with a little of the uniform.

    Until every step has been seen `history` times the draw is uniform.

    Args:
        steps: N, at least 1.
        history: how many of its last losses each step is judged by, at least 1.
        uniform: the share of the uniform draw, in [0, 1].

    Raises:
        ArgumentError: a parameter out of its range.
    """

    def __init__(self, steps: int, history: int = 10, uniform: float = 1e-3) -> None:
        if steps < 1 or history < 1 or not 0 <= uniform <= 1:
            raise ArgumentError(
                f"steps and history must be at least 1 and uniform in [0, 1], got {steps}, {history}, {uniform}"
            )
        self.uniform = uniform
        self._losses = torch.zeros(steps, history, dtype=torch.float64)
        self._seen = torch.zeros(steps, dtype=torch.int64)

    @property
    def memory(self) -> dict[str, Tensor]:
        """All that it has recorded, as tensors that `record` changes in place."""
        return {"losses": self._losses, "seen": self._seen}

    @property
    def probabilities(self) -> Tensor:
        """p, float64 (N,)."""
        steps, history = self._losses.shape
        if bool((self._seen < history).any()):
            return torch.full((steps,), 1 / steps, dtype=torch.float64)
        size = self._losses.square().mean(1).sqrt()
        return (1 - self.uniform) * size / size.sum() + self.uniform / steps

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` steps, int64, and the weights 1/(N·p) that keep the mean loss unbiased, float64."""
        p = self.probabilities
        index = torch.multinomial(p, count, replacement=True, generator=generator)
        return index, 1 / (len(p) * p[index])

    def record(self, index: Tensor, losses: Tensor) -> None:
        """Remember the losses of the steps `index`, both (batch,); each step forgets its oldest."""
        for i, loss in zip(index.tolist(), losses.detach().double().tolist(), strict=True):
            self._losses[i, int(self._seen[i]) % self._losses.shape[1]] = loss
            self._seen[i] += 1
