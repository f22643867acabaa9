"""The mean-reverting path: x drifts towards y while noise of a stationary size comes in (Luo et al. 2023).

dx = f·(y − x) dt + g dW with g² = 2f·σ_∞² gives

    x_t = α·x₀ + (1 − α)·y + σ_∞√(1 − α²)·ε,      α = e^{−∫f},

so that a = α, b = 1 − α, c = σ_∞√(1 − α²): without y it is a variance-preserving path with σ_∞ times the noise.
A network was trained on the levels k = 1 … T with f_k = 1 − ᾱ_{k+1}/ᾱ_0 of Nichol and Dhariwal's cosine, scaled so that
α_T is as small as wished; level 0 holds a little noise too, and t = (k + 1)/(T + 1).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths.base import as_time
from fewstep.paths.bridge import Bridge
from fewstep.paths.vp import DiscreteVP


@method(
    name="mr-sampler", papers=["MRS: A Fast Sampler for Mean Reverting Diffusion based on ODE and SDE Solvers"],
    arxiv="2502.07856", family="bridges",
    summary="The mean-reverting path; the paper's solvers on it are `dpm-solver++` (rule exact) and `sa-solver`'s kin.",
)  # fmt: skip
@dataclass(frozen=True)
class MeanReverting(Bridge):
    """The mean-reverting path with the cosine rate: a = α, b = 1 − α, c = σ_∞√(1 − α²).

    Args:
        steps: T, the levels that the network was trained on; it is told k.
        noise: σ_∞ > 0 in units of the data; 50/255 for data in [0, 1], twice that in [−1, 1].
        rest: α_T in (0, 1), what is left of the data at t = 1.

    Raises:
        ArgumentError: a number out of its range.
    """

    kind: ClassVar[str] = "mean-reverting"
    steps: int = 100
    noise: float = 50 / 255
    rest: float = 0.005

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ArgumentError(f"MeanReverting needs at least one step, got {self.steps}")
        if not 0 < self.noise < math.inf:
            raise ArgumentError(f"MeanReverting needs noise above 0, got {self.noise}")
        if not 0 < self.rest < 1:
            raise ArgumentError(f"MeanReverting needs a rest between 0 and 1, got {self.rest}")

    @cached_property
    def _unit(self) -> DiscreteVP:
        """The variance-preserving path of the same α."""
        k = torch.arange(self.steps + 2, dtype=torch.float64) / (self.steps + 2)
        bar = torch.cos((k + 0.008) / 1.008 * math.pi / 2) ** 2
        rate = 1 - bar[1:] / bar[0]
        fall = rate / rate.sum() * math.log(self.rest)
        return DiscreteVP(tuple((-torch.expm1(2 * fall)).tolist()))

    def alpha(self, t: Tensor | float) -> Tensor:
        return self._unit.alpha(t)

    def shift(self, t: Tensor | float) -> Tensor:
        return 0.0 - torch.expm1(self._unit.log_alpha(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.noise * self._unit.sigma(t).abs()

    def lam(self, t: Tensor | float) -> Tensor:
        return self._unit.lam(t) - math.log(self.noise)

    def t_of_lam(self, lam: Tensor | float) -> Tensor:
        return self._unit.t_of_lam(as_time(lam) + math.log(self.noise))

    def d_alpha(self, t: Tensor | float) -> Tensor:
        return self._unit.d_alpha(t)

    def d_shift(self, t: Tensor | float) -> Tensor:
        return -self._unit.d_alpha(t)

    def d_sigma(self, t: Tensor | float) -> Tensor:
        # σ never falls; at t = 0 its slope is infinite and its sign that of a zero.
        return self.noise * self._unit.d_sigma(t).abs()

    def model_time(self, t: Tensor | float) -> Tensor:
        """The level k that the network was trained with, as a real number; −1 for clean data."""
        return self._unit.model_time(t)
