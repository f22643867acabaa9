"""A plan's rows written again with other answers: what tuners do that change what a known solver hears.

Where the network is asked at x of time t but told another time τ, and its noise is believed (ε̂ = (x − α_τ·x̂₀)/σ_τ),

    x̂₀ at t = (x − σ_t·ε̂)/α_t = (1 − σ_t/σ_τ)/α_t·x + (σ_t·α_τ)/(σ_τ·α_t)·x̂₀ at τ.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan

Answer = list[tuple[str | int, Tensor]]


def told_noise(path: Path, t: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x and of the network's x̂₀ in the x̂₀ that its noise means; (0, 1) where α = 0.

    Args:
        path: the path.
        t: float64 (…), the times of x.
        told: (…), the times that the network is told, more than 0.
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    safe = torch.where(alpha > 0, alpha, 1.0)
    ratio = sigma / path.sigma(told)
    on_x = torch.where(alpha > 0, (1 - ratio) / safe, 0.0)
    return on_x, torch.where(alpha > 0, ratio * path.alpha(told) / safe, 1.0)


def rewrite(builder: Builder, plan: Plan, told: Tensor, factors: tuple[Tensor, Tensor]) -> list[Answer]:
    """Write a plan's rows, each answer replaced by on_x·(what was asked) + on_answer·x̂₀.

    Args:
        builder: whose registers include the plan's.
        plan: with one answer a row.
        told: float64 (answers,), the times that the network is told.
        factors: (on_x, on_answer) of every answer, (answers,) each.

    Returns:
        What stands for the answer of every row: (register or slot, factor) pairs, each factor (1,).
    """
    answers: list[Answer] = []
    one = torch.ones(1, dtype=torch.float64)
    # With live times a solver's zeros are kept, also those on registers that hold nothing yet.
    known = {0} | {i for i, name in enumerate(plan.registers) if name == "one"}
    for step in plan:
        steps, row = range(step.index, step.index + 1), slice(step.index, step.index + 1)
        asked = plan.registers[step.asks[0][0]]
        builder.ask(asked, told[row], steps)
        answers.append([(asked, factors[0][row]), (0, factors[1][row])])
        for to, entries in step.writes.items():
            for kind, source, value in entries:
                if kind == "M" and source not in known:
                    continue
                terms: Answer = answers[-1] if kind == "B" else [(plan.registers[source], one)]
                for name, factor in terms:
                    builder.add(plan.registers[to], name, value * factor, steps)
        known |= set(step.writes)
    return answers


def one_answer_a_row(plan: Plan, who: str) -> Plan:
    """The plan itself.

    Raises:
        ArgumentError: it draws noise, or a row of it has no answer or several.
    """
    rows: Sequence[int] = plan.asks[:, 0].tolist()
    if plan.stochastic or list(rows) != list(range(plan.steps)):
        raise ArgumentError(f"{who} needs a solver that draws no noise and asks once a row, got {plan!r}")
    return plan
