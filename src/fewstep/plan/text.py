"""A plan as a table that people read."""

from html import escape

from torch import Tensor

from fewstep.aliases import in_tools
from fewstep.plan.plan import Plan
from fewstep.plan.tuned_text import tuned_text


def _number(value: Tensor) -> str:
    if value.ndim == 0:
        return f"{float(value):.5g}"
    low, high = float(value.min()), float(value.max())
    return f"{low:.5g}" if low == high else f"[{low:.5g} … {high:.5g}]"


def _short(value: object) -> str:
    """A number of a source in a few digits, and so each of a list."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _term(value: Tensor, name: str) -> str:
    return name if value.ndim == 0 and float(value) == 1 else f"{_number(value)}·{name}"


def rows_of(plan: Plan) -> list[list[str]]:
    """The plan's table: a head, then a row a step: number, times, half-log-SNR, what is asked, what becomes of it."""
    rows = [["step", "t", "λ", "asks", "becomes"]]
    lam = plan.path.lam(plan.times)
    for step in plan:
        asks = ", ".join(
            plan.registers[r] + ("" if bool((t == step.t).all()) else f"@{_number(t)}") for r, t in step.asks
        )
        becomes = []
        for register, entries in step.writes.items():
            names = {"M": lambda s: plan.registers[s], "B": lambda s: f"x̂₀{'₁₂₃₄'[s - 1] if s else ''}"}
            terms = [_term(v, names[k](s) if k in names else "ξ") for k, s, v in entries]
            becomes.append(f"{plan.registers[register]} = {' + '.join(terms)}".replace("+ -", "− "))
        times = f"{_number(step.t)} → {_number(step.t_next)}"
        rows.append([str(step.index), times, _number(lam[step.index]), asks or "–", "; ".join(becomes)])
    return rows


def about(plan: Plan) -> list[str]:
    """What the plan is, in lines: its source, its size, what tuning gained, and what it means not to do."""
    source = ", ".join(f"{k}={_short(v)}" for k, v in plan.source.items() if k != "tuned")
    kind = "stochastic" if plan.stochastic else "deterministic"
    own = str(plan.source.get("solver")), str(plan.source.get("grid"))
    theirs = [name for name, its in zip(in_tools(*own), own, strict=True) if name != its]
    lines = [
        f"plan: {source or 'by hand'}" + (f" ({' '.join(theirs)} in other tools)" if theirs else ""),
        f"path {plan.path.kind}, {plan.steps} steps, {plan.evaluations} evaluations, order {plan.order}, {kind}",
    ]
    if isinstance(plan.source.get("tuned"), dict):
        lines.append(tuned_text(plan.source["tuned"]))
    if any(plan.skips):
        left = "; ".join(f"answer {i}: {', '.join(names)}" for i, names in enumerate(plan.skips) if names)
        lines.append(f"layers left out: {left}")
    if plan.deviates:
        lines.append(f"deviates: {plan.deviates}")
    return lines


def show(plan: Plan) -> str:
    """The plan as text in columns."""
    rows = rows_of(plan)
    widths = [max(len(row[c]) for row in rows) for c in range(4)]
    table = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
    return "\n".join([*about(plan), *table])


def html(plan: Plan) -> str:
    """The plan as a notebook shows it."""
    head, *rows = ([escape(cell) for cell in row] for row in rows_of(plan))
    lines = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    told = "".join(f"<p>{escape(line)}</p>" for line in about(plan))
    return f"{told}<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{''.join(lines)}</table>"
