"""A multistep method whose nodes and weights are free: one evaluation a step, every earlier answer at hand.

    x′ = (σ′/σ)·x + (α′ − α·σ′/σ)·Σ_j w_j m_j,      Σ_j w_j = 1,      m_j the answer j steps back.

In λ the flow does not depend on the path, so nodes λ and weights w that are good on one path are good on all that begin
near the same λ.  DDIM is w = (1); the weights of every linear multistep method in data form are a choice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan


def free_multistep(
    path: Path, times: Tensor, weights: Tensor, source: dict[str, Any] | None = None, order: int = 1
) -> Plan:
    """The plan of given weights on a grid; differentiable in both.

    Args:
        path: any.
        times: float64 (steps + 1,), falling.
        weights: float64 (steps, depth − 1), the weights of the answers 1, 2 … steps back; m₀ gets what is left of 1,
            and what would reach before the first answer is not looked at.
        source: where it came from.
        order: the order that the plan declares.

    Raises:
        ArgumentError: shapes that do not fit.
    """
    steps, depth = len(times) - 1, weights.shape[-1] + 1
    if times.ndim != 1 or weights.shape != (steps, depth - 1):
        raise ArgumentError(f"{steps} steps need weights ({steps}, depth − 1), got {tuple(weights.shape)}")
    alpha, sigma = path.alpha(times), path.sigma(times)
    keep = sigma[1:] / sigma[:-1]
    answer = alpha[1:] - alpha[:-1] * keep
    past = min(depth - 1, steps - 1)
    builder = Builder(times, ("x", *(f"m{j}" for j in range(1, past + 1))))
    builder.ask("x")
    builder.add("x", "x", keep)
    reach = torch.arange(steps)[:, None] >= torch.arange(1, past + 1)
    used = torch.where(reach, weights[:, :past], 0.0)
    builder.add("x", 0, answer * (1 - used.sum(1)))
    for j in range(1, past + 1):
        builder.add("x", f"m{j}", (answer * used[:, j - 1])[j:], range(j, steps))
        builder.add(f"m{j}", 0 if j == 1 else f"m{j - 1}", 1.0, range(j - 1, steps))
    return Plan.build(path, builder, order=order, source=source or {})


@dataclass(frozen=True)
class Table:
    """Nodes and weights that were tuned, free of any path.

    Args:
        first: the λ of the path's noisy end for which it was tuned; −∞ where α(1) = 0.
        nodes: the λ between the ends, rising.
        weights: as in `free_multistep`, one row a step.
        about: what it was tuned for and how well it did there.
    """

    first: float
    nodes: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    about: dict[str, Any]

    def plan(self, path: Path) -> Plan:
        """The plan on a path."""
        inner = path.t_of_lam(torch.tensor(self.nodes, dtype=torch.float64))
        times = torch.cat([torch.ones(1, dtype=torch.float64), inner, torch.zeros(1, dtype=torch.float64)])
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return free_multistep(path, times, weights, {"solver": "auto", "grid": "tuned", "tuned": self.about})


def table_of(plan: Plan) -> Table:
    """The nodes and weights of a plan that `free_multistep` made.

    Raises:
        ArgumentError: it is another kind of plan.
    """
    alpha, sigma = plan.path.alpha(plan.times), plan.path.sigma(plan.times)
    answer = alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]
    names, depth = plan.registers[1:], len(plan.registers) - 1
    weights = torch.zeros(plan.steps, depth, dtype=torch.float64)
    if names != tuple(f"m{j}" for j in range(1, depth + 1)) or plan.stochastic or plan.evaluations != plan.steps:
        raise ArgumentError(f"only a plan of free_multistep has such a table, got {plan!r}")
    for (step, to, source), value in zip(plan.M.index.tolist(), plan.M.value.detach(), strict=True):
        if to == 0 and source:
            weights[step, source - 1] = value / answer[step]
    nodes = plan.path.lam(plan.times[1:-1]).detach()
    rows = tuple(tuple(row) for row in weights.tolist())
    return Table(float(plan.path.lam(1.0)), tuple(nodes.tolist()), rows, dict(plan.source.get("tuned", {})))
