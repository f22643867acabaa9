"""Which level of noise a state has: q(k | y) for y = x₀ + ρ_k·ε with k uniform on the levels ρ_1 < … < ρ_L.

exact, on a world:   q(k | y) ∝ p_{ρ_k}(y)
learnt:              min E −log q(k | x₀ + ρ_k·ε),      told y/√(m + 1) and log m, m = mean over a sample of y²
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError
from fewstep.paths import VE
from fewstep.worlds import World

# States times levels that are looked at together.
MOST_ROWS = 2**15


class NoiseLevels(Protocol):
    """Tells the level of noise of a state.

    Args:
        ratios: float64 (L,), the levels ρ = σ/α, rising.
    """

    ratios: Tensor

    def __call__(self, y: Tensor, **cond: Any) -> Tensor:
        """log q(k | y) up to a constant, (batch, L), of y = x/α."""


def spread_levels(low: float = 0.01, high: float = 100.0, count: int = 1000) -> Tensor:
    """`count` levels evenly spaced in log ρ, float64, rising.

    Raises:
        ArgumentError: levels that are not positive and rising, or fewer than 2.
    """
    if not 0 < low < high < math.inf or count < 2:
        raise ArgumentError(f"levels need 0 < low < high and at least 2 of them, got {low}, {high} and {count}")
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64)


class ExactLevels:
    """The exact posterior over levels on a world.

    Args:
        world: whose marginals p_ρ are known.
        ratios: float64 (L,), rising; 1,000 from 0.01 to 100 unless given.
    """

    def __init__(self, world: World, ratios: Tensor | None = None) -> None:
        self.world, self.ratios = world, spread_levels() if ratios is None else ratios

    def __call__(self, y: Tensor, **cond: Any) -> Tensor:
        """log p_{ρ_k}(y), (batch, L)."""
        path, rows = VE(float(self.ratios[-1])), len(y)
        found = []
        for times in (self.ratios / self.ratios[-1]).to(y.device).split(max(1, MOST_ROWS // rows)):
            count = len(times)
            label = cond["label"].repeat_interleave(count) if "label" in cond else None
            t = times.repeat(rows).reshape(-1, *[1] * (y.ndim - 1))
            found.append(self.world.log_density(y.repeat_interleave(count, 0), path, t, label).reshape(rows, count))
        return torch.cat(found, 1)


class LearntLevels(nn.Module):
    """A small network that tells levels; made by `train_levels`.

    Args:
        ratios: float64 (L,), rising.
        size: how many numbers a sample has.
        width: of the two hidden layers.
    """

    def __init__(self, ratios: Tensor, size: int, width: int = 128) -> None:
        super().__init__()
        self.ratios = ratios
        self.body = nn.Sequential(
            nn.Linear(size + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, len(ratios))
        )

    def forward(self, y: Tensor, **cond: Any) -> Tensor:
        """Logits (batch, L)."""
        flat = y.flatten(1).float()
        power = flat.square().mean(1, keepdim=True)
        return self.body(torch.cat([flat / (power + 1).sqrt(), power.log()], 1))


def train_levels(
    data: Tensor, ratios: Tensor, steps: int = 2000, batch: int = 256, rate: float = 2e-3, seed: int = 0
) -> LearntLevels:
    """A network of levels, trained on clean data.

    Args:
        data: (samples, *shape), x₀.
        ratios: float64 (L,), the levels, rising.
        steps: of Adam, at least 1; the rate falls to 0 as a cosine.
        batch: samples a step.
        rate: the first learning rate.
        seed: of the weights and of all draws.

    Raises:
        ArgumentError: no data, or no steps.
    """
    if len(data) == 0 or steps < 1:
        raise ArgumentError(f"training needs data and at least one step, got {len(data)} samples and {steps} steps")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LearntLevels(ratios, data[0].numel())
    optimiser = torch.optim.Adam(network.parameters(), rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            x0 = data[torch.randint(len(data), (batch,), generator=generator)].float()
            k = torch.randint(len(ratios), (batch,), generator=generator)
            scale = ratios[k].float().reshape(-1, *[1] * (x0.ndim - 1))
            loss = nn.functional.cross_entropy(network(x0 + scale * torch.randn(x0.shape, generator=generator)), k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            falling.step()
    return network.requires_grad_(False)
