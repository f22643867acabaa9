"""Training of the intermediate energy that `ContrastiveEnergy` guides by, from samples and their energies.

A step draws groups of K clean samples of one condition each, one time a group and a noise a sample, and lowers

    energy_loss(f(α·x₀ + σ·ε, t), −β·E(x₀)).
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError
from fewstep.guidance.contrastive_energy import energy_loss
from fewstep.paths import Path

Groups = tuple[Tensor, Tensor, Mapping[str, Tensor]]


class EnergyNetwork(nn.Module):
    """f(x, t, **told) → (batch,): a multilayer perceptron of the flat sample, the time and what else it is told.

    Args:
        size: how many numbers a sample has.
        told: the names of conditions and how many numbers each has.
        width: of the hidden layers.
        depth: how many there are, at least 1.
    """

    waves = 4

    def __init__(self, size: int, told: Mapping[str, int] | None = None, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.told = dict(told or {})
        widths = [size + 1 + 2 * self.waves + sum(self.told.values()), *[width] * depth]
        layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.SiLU())]
        self.body = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        """x (batch, *shape); t one time for all or broadcasting against x; each condition (batch, numbers)."""
        dtype = next(self.parameters()).dtype
        time = torch.as_tensor(t).to(x.device, dtype)
        time = time.reshape(-1, 1).expand(len(x), 1)
        angles = math.pi * time * 2.0 ** torch.arange(self.waves, device=x.device)
        more = [told[name].to(dtype).flatten(1) for name in self.told]
        return self.body(torch.cat([x.to(dtype).flatten(1), time, angles.sin(), angles.cos(), *more], 1))[:, 0]


def train_energy(
    network: nn.Module,
    path: Path,
    groups: Callable[[torch.Generator], Groups],
    *,
    strength: float = 1.0,
    loss: str = "contrastive",
    steps: int = 1000,
    rate: float = 1e-3,
    times: tuple[float, float] = (1e-3, 1.0),
    seed: int = 0,
) -> nn.Module:
    """Train a network to predict −E_t, in place; Adam, whose rate falls as a cosine to 0.

    Args:
        network: net(x, t, **told) → (batch,), such as `EnergyNetwork`.
        path: how data becomes noise.
        groups: groups(generator) → clean samples (groups, K, *shape), their energies E (groups, K) and conditions
            (groups, …) by name, a fresh draw at each call.
        strength: β.
        loss: "contrastive", or the baselines "mse" and "exponential", see `contrastive_energy`.
        steps: how many, at least 1.
        rate: Adam's first rate.
        times: the range that times are drawn from, within (0, 1].
        seed: of all draws.

    Raises:
        ArgumentError: a number out of its range, or energies that do not fit the samples.
    """
    if steps < 1 or not 0 < times[0] < times[1] <= 1:
        raise ArgumentError(f"steps must be at least 1 and times rise within (0, 1], got {steps} and {times}")
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        _step_loss(network, path, groups(generator), strength, loss, times, generator).backward()
        optimiser.step()
        fall.step()
    return network


def _step_loss(
    network: nn.Module,
    path: Path,
    drawn: Groups,
    strength: float,
    loss: str,
    times: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    x0, energies, told = drawn
    if energies.shape != x0.shape[:2]:
        raise ArgumentError(
            f"samples (groups, K, …) need energies (groups, K), got {tuple(x0.shape)} and {tuple(energies.shape)}"
        )
    t = times[0] + (times[1] - times[0]) * torch.rand(len(x0), 1, generator=generator, dtype=torch.float64)
    t = t.expand(energies.shape)
    wide = t.reshape(*t.shape, *[1] * (x0.ndim - 2)).to(x0.device)
    noise = torch.randn(x0.shape, generator=generator).to(x0.device, x0.dtype)
    noisy = path.alpha(wide).to(x0.dtype) * x0 + path.sigma(wide).to(x0.dtype) * noise
    each: dict[str, Any] = {k: v[:, None].expand(*energies.shape, *v.shape[1:]).flatten(0, 1) for k, v in told.items()}
    values = network(noisy.flatten(0, 1), wide.flatten(0, 1), **each)
    return energy_loss(values.reshape(energies.shape), -strength * energies.to(values.dtype), loss)
