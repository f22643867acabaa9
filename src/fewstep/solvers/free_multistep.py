"""A multistep method whose nodes and weights are free: one evaluation a step, every earlier answer at hand.

    x′ = a·(σ′/σ)·x + (α′ − α·σ′/σ)·Σ_j w_j m_j,      Σ_j w_j = b,      m_j the answer j steps back.

With a = b = 1 every state lands on its path, and the weights of every linear multistep method in data form are a
choice: DDIM is w = (1).  Other a and b say that the network may be told another noise level than that of the state,
which at few steps is worth most; the last step always has a = b = 1, so that its end is a mean of answers.  In λ the
flow does not depend on the path, so nodes λ, weights, a and b that are good on one path are good on all that begin near
the same λ; a first told time only on those whose states are of the same size there.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan

# How much the sizes of states may differ between the path of a table and another.
STRETCH = 0.01
DEVIATES = "inner states are scaled freely, so that only the end lands on the path"


def free_multistep(
    path: Path,
    times: Tensor,
    weights: Tensor,
    source: dict[str, Any] | None = None,
    order: int = 1,
    scales: Tensor | None = None,
    told: Tensor | None = None,
) -> Plan:
    """The plan of given weights on a grid; differentiable in all of them.

    Args:
        path: any.
        times: float64 (steps + 1,), falling.
        weights: float64 (steps, depth − 1), the weights of the answers 1, 2 … steps back; m₀ gets what is left of b,
            and what would reach before the first answer is not looked at.
        source: where it came from.
        order: the order that the plan declares.
        scales: (steps − 1, 2), a and b of all steps but the last; 1 unless given.
        told: the time that the network is told at the first step, in (0, 1]; that of the state unless given.

    Raises:
        ArgumentError: shapes that do not fit.
    """
    steps, depth = len(times) - 1, weights.shape[-1] + 1
    if times.ndim != 1 or weights.shape != (steps, depth - 1):
        raise ArgumentError(f"{steps} steps need weights ({steps}, depth − 1), got {tuple(weights.shape)}")
    if scales is not None and scales.shape != (steps - 1, 2):
        raise ArgumentError(f"{steps} steps need scales ({steps - 1}, 2), got {tuple(scales.shape)}")
    one = torch.ones(1, 2, dtype=torch.float64)
    on_x, on_answers = torch.cat([one.expand(steps - 1, 2) if scales is None else scales, one]).unbind(1)
    alpha, sigma = path.alpha(times), path.sigma(times)
    keep = sigma[1:] / sigma[:-1]
    answer = alpha[1:] - alpha[:-1] * keep
    past = min(depth - 1, steps - 1)
    builder = Builder(times, ("x", *(f"m{j}" for j in range(1, past + 1))))
    builder.ask("x", times[:-1] if told is None else torch.cat([told.reshape(1), times[1:-1]]))
    builder.add("x", "x", on_x * keep)
    reach = torch.arange(steps)[:, None] >= torch.arange(1, past + 1)
    used = torch.where(reach, weights[:, :past], 0.0)
    builder.add("x", 0, answer * (on_answers - used.sum(1)))
    for j in range(1, past + 1):
        builder.add("x", f"m{j}", (answer * used[:, j - 1])[j:], range(j, steps))
        builder.add(f"m{j}", 0 if j == 1 else f"m{j - 1}", 1.0, range(j - 1, steps))
    deviates = "" if scales is None else DEVIATES
    return Plan.build(path, builder, order=order, source=source or {}, deviates=deviates)


@dataclass(frozen=True)
class Table:
    """Nodes and weights that were tuned, free of any path.

    Args:
        first: the λ of the path's noisy end for which it was tuned; −∞ where α(1) = 0.
        nodes: the λ between the ends, rising.
        weights: as in `free_multistep`, one row a step.
        about: what it was tuned for and how well it did there.
        scales: a and b of all steps but the last; empty where they are 1.
        told: the λ that the network is told at the first step; None where it is that of the state.
        stretch: √(α² + σ²) at that λ over that at the path's noisy end, 1 on a variance-preserving path: with `told` a
            table is good only where it is the same, as a network told another level expects a state of another size.
    """

    first: float
    nodes: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    about: dict[str, Any]
    scales: tuple[tuple[float, ...], ...] = ()
    told: float | None = None
    stretch: float = 1.0

    def suits(self, path: Path, reach: float) -> bool:
        """Whether a path's noisy end lies before all nodes, and near enough to the one that they were tuned for."""
        first = float(path.lam(1.0))
        if not (math.isinf(first) and math.isinf(self.first)) and not abs(first - self.first) < reach:
            return False
        if self.nodes and self.nodes[0] <= first:
            return False
        return self.told is None or abs(stretch_of(path, self.told) / self.stretch - 1) < STRETCH

    def plan(self, path: Path) -> Plan:
        """The plan on a path."""
        inner = path.t_of_lam(torch.tensor(self.nodes, dtype=torch.float64))
        times = torch.cat([torch.ones(1, dtype=torch.float64), inner, torch.zeros(1, dtype=torch.float64)])
        weights = torch.tensor(self.weights, dtype=torch.float64)
        source = {"solver": "auto", "grid": "tuned", "tuned": self.about}
        scales = torch.tensor(self.scales, dtype=torch.float64) if self.scales else None
        told = None if self.told is None else path.t_of_lam(torch.tensor(self.told, dtype=torch.float64))
        return free_multistep(path, times, weights, source, scales=scales, told=told)


def stretch_of(path: Path, lam: float) -> float:
    """√(α² + σ²) at λ over that at t = 1."""
    t = torch.stack([path.t_of_lam(torch.tensor(lam, dtype=torch.float64)), torch.ones((), dtype=torch.float64)])
    size = (path.alpha(t).square() + path.sigma(t).square()).sqrt()
    return float(size[0] / size[1])


def table_of(plan: Plan) -> Table:
    """The nodes, weights and scales of a plan that `free_multistep` made.

    Raises:
        ArgumentError: it is another kind of plan.
    """
    alpha, sigma = plan.path.alpha(plan.times), plan.path.sigma(plan.times)
    keep = sigma[1:] / sigma[:-1]
    answer = alpha[1:] - alpha[:-1] * keep
    names, depth = plan.registers[1:], len(plan.registers) - 1
    if names != tuple(f"m{j}" for j in range(1, depth + 1)) or plan.stochastic or plan.evaluations != plan.steps:
        raise ArgumentError(f"only a plan of free_multistep has such a table, got {plan!r}")
    # A row's weights of all answers, newest first, and its a.
    weights, scale = torch.zeros(plan.steps, depth + 1, dtype=torch.float64), torch.zeros(plan.steps).double()
    for table in (plan.M, plan.B):
        for (step, to, source), value in zip(table.index.tolist(), table.value.detach(), strict=True):
            if to == 0 and table is plan.M and source == 0:
                scale[step] = value / keep[step]
            elif to == 0:
                weights[step, source if table is plan.M else 0] = value / answer[step]
    nodes = plan.path.lam(plan.times[1:-1]).detach()
    rows = tuple(tuple(row) for row in weights[:, 1:].tolist())
    free = torch.stack([scale, weights.sum(1)], 1)[:-1] if plan.deviates else torch.zeros(0, 2)
    first, told = plan.path.lam(1.0), plan.path.lam(plan.ask_times[0].detach())
    return Table(
        float(first), tuple(nodes.tolist()), rows, dict(plan.source.get("tuned", {})),
        tuple(tuple(row) for row in free.tolist()), None if bool(told == first) else float(told),
        1.0 if bool(told == first) else stretch_of(plan.path, float(told)),
    )  # fmt: skip
