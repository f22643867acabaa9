"""How far to go from a method's own start to the plan that it found: as far as it pays on noises that it never saw.

A tuned plan can be worse than its start: its objective is not the error at the end, or it was fitted to few noises.  So
the plans at the shares s of the way

    coefficients and told times      (1 − s)·start + s·found          where both visit the same times,
    grid                             (1 − s)·λ_start + s·λ_found      where both are one solver on grids,

or else the two ends alone, are measured on noises kept for this; the best is taken, s = 0 being the start itself.
"""

from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import methods
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.tuning.problem import Problem, Tuner

# Noises that it takes at least.
LEAST = 16
SHARES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)
BLEND = "it is a mean of two plans that hear the network at different times"


def between(start: Plan, found: Plan, share: float) -> Plan | None:
    """The plan at a share of the way, 0 for the start and 1 for what was found; None where there is no such plan."""
    if share in (0.0, 1.0):
        return found if share else start
    if start.path != found.path or start.stochastic != found.stochastic or found.skips or start.place or found.place:
        return None
    if torch.equal(start.times, found.times):
        return None if start.stochastic else _blended(start, found, share)
    solver = str(found.source.get("solver"))
    known = any(m.family == "solvers" and m.name == solver for m in methods())
    if len(start.times) != len(found.times) or not known or solver != start.source.get("solver"):
        return None
    lam = [plan.path.lam(plan.times[1:-1]) for plan in (start, found)]
    inner = start.path.t_of_lam(lam[0] + share * (lam[1] - lam[0]))
    return make_plan(start.path, solver, torch.cat([start.times[:1], inner, start.times[-1:]]))


def _blended(start: Plan, found: Plan, share: float) -> Plan | None:
    """The mean of two plans that ask the same registers."""
    asked = [[(step, plan.registers[register]) for step, register in plan.asks.tolist()] for plan in (start, found)]
    if asked[0] != asked[1]:
        return None
    names = (*start.registers, *(name for name in found.registers if name not in start.registers))
    times = start.ask_times + share * (found.ask_times - start.ask_times)
    builder = Builder(start.times, names)
    slots: dict[int, int] = {}
    for (step, name), time in zip(asked[0], times, strict=True):
        builder.ask(name, time[None], range(step, step + 1), slot=slots.get(step, 0))
        slots[step] = slots.get(step, 0) + 1
    for plan, other, part in ((start, found, 1 - share), (found, start, share)):
        filled = _filled(other)
        for step, to, source, value in _entries(plan, other):
            # A register that the other plan has not, or has not filled yet, holds what this one keeps in it.
            shared = filled.get(to, other.steps) <= step
            builder.add(to, source, (part if shared else 1.0) * value[None], range(step, step + 1))
    deviates = found.deviates or start.deviates
    if not torch.equal(start.ask_times, found.ask_times):
        deviates = deviates or BLEND
    return Plan.build(start.path, builder, order=1, source=dict(found.source), deviates=deviates)


def _filled(plan: Plan) -> dict[str, int]:
    """The step in which each register is first written; x is there before."""
    first = {plan.registers[0]: -1}
    for step in plan:
        for to in step.writes:
            first.setdefault(plan.registers[to], step.index)
    return first


def _entries(plan: Plan, other: Plan) -> list[tuple[int, str, str | int, Tensor]]:
    """(step, written, read, factor) of a plan; a register of both plans that a step leaves alone keeps its value."""
    one = torch.ones((), dtype=torch.float64)
    rows: list[tuple[int, str, str | int, Tensor]] = []
    known = {0}
    for step in plan:
        for to, entries in step.writes.items():
            for kind, source, value in entries:
                rows.append((step.index, plan.registers[to], plan.registers[source] if kind == "M" else source, value))
        still = [plan.registers[i] for i in known - set(step.writes)]
        rows += [(step.index, name, name, one) for name in still if name in other.registers]
        known |= set(step.writes)
    return rows


def settling_cost(problem: Problem, tuner: Tuner) -> int:
    """The most evaluations that `settled` spends."""
    return tuner.judging_cost(problem, max(LEAST, problem.samples // 2), len(SHARES))


def settled(problem: Problem, tuner: Tuner, found: Plan) -> tuple[Plan, dict[str, Any]]:
    """The best plan on the way, and what was seen: the share, and the errors at all shares that were tried.

    What was found is taken as it is where the budget does not allow more, where one of the two draws noise and the
    other does not, and where it leaves out layers and so costs less than its start.
    """
    start = tuner.untuned(problem)
    if found.skips:
        return found, {"went": 1.0, "settled": "not measured: it leaves out layers, and so costs less than its start"}
    if start.stochastic != found.stochastic:
        return found, {"went": 1.0, "settled": "not measured: a plan with noise and one without are not alike"}
    n = max(LEAST, problem.samples // 2)
    plans = {share: plan for share in SHARES if (plan := between(start, found, share)) is not None}
    if not problem.left(tuner.judging_cost(problem, n, len(plans))):
        return found, {"went": 1.0, "settled": "not measured: the budget did not allow it"}

    def measured() -> list[Tensor]:
        """The logarithm of how far each plan is off, for every noise or for all of them."""
        return [tuner.judged(problem, plan, n, 3).double().clamp_min(1e-300).log() for plan in plans.values()]

    problem.tell("measuring how far it pays to go")
    logs = dict(zip(plans, problem.once("settled", measured), strict=True))
    # A gain that is within the scatter of so few noises is none.
    share = min((s for s in logs if s == 0 or _gains(logs[0.0] - logs[s])), key=lambda s: float(logs[s].mean()))
    return plans[share], {"went": share, "settled": {f"{s:g}": float(v.mean().exp()) for s, v in logs.items()}}


def _gains(gain: Tensor) -> bool:
    """Whether the mean of what noises gain is more than its standard error."""
    scatter = gain.std() / len(gain) ** 0.5 if len(gain) > 1 else 0.0
    return bool(gain.mean() > scatter)
