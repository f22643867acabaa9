"""Soft values learned by Monte Carlo: a network f(x_t, t) fitted on trajectories to the rewards at their end.

    exponential   min Σ (e^{κ·r(x₀)} − e^{f(x_t, t)})²,      whose minimum is V_t = log E[e^{κ·r(x₀)} | x_t]
    squared       min Σ (κ·r(x₀) − f(x_t, t))²,              whose minimum κ·E[r(x₀) | x_t] is below V

The paper has the first, its released networks were trained with the second.  No derivative of the reward is needed, and
x₀ is scored once for all states of its trajectory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.paths import Path
from fewstep.sampling import sample
from fewstep.search.particles import count, number
from fewstep.search.rewards import Function, Reward, Scorer

LOSSES = ("exponential", "squared")


class _Perceptron(nn.Module):
    """f of the state at unit size and of λ, for samples of few numbers."""

    def __init__(self, numbers: int, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(numbers + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        lam = lam.clamp(-10, 10).to(x)
        told = torch.stack([lam / 4, (lam / 2).tanh()], -1).expand(len(x), 2)
        return self.body(torch.cat([x.flatten(1), told], 1))[:, 0]


@dataclass(frozen=True, eq=False)
class LearnedValue:
    """V(x, t) of a fitted network.

    Args:
        network: network(x/√(α² + σ²), λ) → (batch,), λ a number or (batch,).
        path: of the model.
        losses: the loss of every iteration.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    path: Path
    losses: list[float]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """V, float64 (batch,)."""
        scale = (self.path.alpha(t).square() + self.path.sigma(t).square()).sqrt()
        with torch.no_grad():
            return self.network(x.float() / float(scale), self.path.lam(t).to(x.device)).double()


def fit_value(
    denoiser: Denoiser,
    reward: Function | Reward,
    strength: float = 1.0,
    *,
    trajectories: int = 1024,
    iterations: int = 1000,
    batch: int = 1024,
    rate: float = 5e-3,
    loss: str = "exponential",
    network: nn.Module | None = None,
    seed: int = 0,
    **options: Any,
) -> LearnedValue:
    """Fit a soft value on trajectories of the model.

    Args:
        denoiser: the model.
        reward: r, a callable on pictures.
        strength: κ.
        trajectories: how many are rolled out, at least 2.
        iterations, batch, rate: steps of Adam, states in each, and its first rate, which falls to 0 by a cosine.
        loss: "exponential" or "squared".
        network: called as network(x/√(α² + σ²), λ); a small perceptron on all numbers of x unless given.
        seed: of the trajectories, the network and the batches.
        options: those of `sample`; "ddpm" unless a solver or a plan is given.

    Raises:
        ArgumentError: a bad argument.
    """
    count("trajectories", trajectories, 2)
    count("iterations", iterations)
    count("batch", batch)
    number("strength", strength)
    number("rate", rate, open_=True)
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if {"keep", "search"} & set(options):
        raise ArgumentError("fit_value keeps the trajectory and takes no search")
    options = options if options.get("plan") is not None else {"solver": "ddpm", **options}
    out = sample(denoiser, trajectories, keep="trajectory", seed=seed, **options)
    assert out.trajectory is not None
    path, times = denoiser.path, out.plan.times
    wanted = strength * Scorer(reward, {}, trajectories)(out.x).float()
    scale = (path.alpha(times).square() + path.sigma(times).square()).sqrt().float()
    states = out.trajectory.float() / scale.reshape(-1, *[1] * (out.trajectory.ndim - 1)).to(out.x.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = network or _Perceptron(out.x[0].numel()).to(out.x.device)
        losses = _fit(net, states[:-1], path.lam(times[:-1]).float(), wanted, iterations, batch, rate, loss)
    return LearnedValue(net, path, losses)


def _fit(
    net: nn.Module, states: Tensor, lam: Tensor, wanted: Tensor, iterations: int, batch: int, rate: float, loss: str
) -> list[float]:
    """Adam on random states of random trajectories."""
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    # Both exponentials are divided by the largest, which scales the loss and moves no minimum.
    top, losses = wanted.max(), []
    for _ in range(iterations):
        level, row = torch.randint(len(states), (batch,)), torch.randint(len(wanted), (batch,))
        believed, true = net(states[level, row], lam[level].to(states.device)), wanted[row]
        if loss == "exponential":
            # A belief far above the largest reward is pulled back in a straight line instead of overflowing.
            over = believed - top
            off = torch.where(over < 1, over.clamp_max(1).exp(), torch.e * over) - (true - top).exp()
        else:
            off = believed - true
        value = off.square().mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        losses.append(value.detach())
    return torch.stack(losses).tolist()
