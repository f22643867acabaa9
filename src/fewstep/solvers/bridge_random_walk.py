"""The sampler of paths whose noise comes in as a random walk, whatever happens to the mean (RDDM, ResShift).

Where x_k = x_{k−1} + (its share of the mean) + (its share of the noise), the noise is a random walk of variance σ², and
given x₀ and x the state before is Gaussian around its mean with the variance of a Brownian bridge.  Of that, a share η:

    x′ = (r/σ)·x + (α′ − α·r/σ)·x̂₀ + ω·ξ,      ω² = η·σ′²(1 − σ′²/σ²),      r = √(σ′² − ω²).

η = 0 is DDIM; η = 1 is the chain's own posterior, where r/σ = σ′²/σ²: ancestral sampling where α does not change, and
less noise than that where α falls.  On a bridge, x here is x − b·y, and y drops out.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.solvers.exponential_multistep import held_answer


@method(
    name="random-walk",
    papers=[
        "Residual Denoising Diffusion Models",
        "ResShift: Efficient Diffusion Model for Image Super-resolution by Residual Shifting",
        "Efficient Diffusion Model for Image Restoration by Residual Shifting",
    ],
    arxiv="2308.13712", family="solvers", eta=1.0,
    summary="The posterior of a chain whose noise is a random walk: the sampler of ResShift and, with any η, of RDDM.",
)  # fmt: skip
@dataclass(frozen=True)
class RandomWalk:
    """The first-order sampler of a chain whose noise is a random walk (Liu et al. 2024, Yue et al. 2023).

    Args:
        eta: the share of the posterior's variance that is drawn afresh, in [0, 1]; of the variance, not of its root.

    Raises:
        ArgumentError: eta out of its range.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ArgumentError(f"eta must lie in [0, 1], got {self.eta!r}")

    @property
    def order(self) -> int:
        """The order of convergence; with fresh noise that of the law."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise."""
        return self.eta > 0

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1, *place).

        Raises:
            ArgumentError: the path's noise grows along the grid, so that it is no random walk (a bridge pinned to y).
        """
        alpha, sigma = path.alpha(times), path.sigma(times)
        before, after = sigma[:-1], sigma[1:]
        if bool((after > before * (1 + 1e-12)).any()):
            raise ArgumentError(f"a random walk's noise falls towards t = 0, and that of {path!r} grows on this grid")
        noisy = torch.where(before > 0, before, torch.ones_like(before))
        drawn = (self.eta * (1 - (after / noisy) ** 2).clamp(min=0)).sqrt() * after
        keep, gain = held_answer(torch.stack([alpha[:-1], alpha[1:]]), torch.stack([before, after]), drawn)
        builder = Builder(times, ("x",))
        builder.ask("x")
        builder.add("x", "x", keep)
        builder.add("x", 0, gain)
        builder.add("x", "noise", drawn)
        return Plan.build(path, builder, order=1, source={**asdict(self), **(source or {})})
