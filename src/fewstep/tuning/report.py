"""What tuning gained and what it cost, read from a tuned plan."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.checking import checked_plot
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.plan.tuned_text import tuned_text
from fewstep.planning import make_plan


@dataclass(frozen=True)
class Report:
    """What tuning gained; it prints as a few sentences and draws the plan's grid, the errors and the way there.

    Args:
        about: what `tune` measured: method, model, evaluations, before, after, spent, seconds and more.
        plan: the tuned plan.
    """

    about: dict[str, Any]
    plan: Plan

    def __str__(self) -> str:
        return tuned_text(self.about)

    def to_json(self) -> str:
        """What was measured, as JSON."""
        return json.dumps(self.about, ensure_ascii=False)

    def save(self, path: str | Path) -> None:
        """Write the picture (PNG, SVG or PDF by the name): errors, the grid, and what the method saw on its way."""
        checked_plot(path)
        self._figure().savefig(path, bbox_inches="tight", dpi=150)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self._figure().savefig(buffer, bbox_inches="tight", dpi=110, format="png")
        return buffer.getvalue()

    def _figure(self) -> Any:
        from matplotlib.figure import Figure

        a, path = self.about, self.plan.path
        history = a.get("history") or []
        figure = Figure(figsize=(10 if history else 7, 3), layout="constrained")
        errors, grid, *way = figure.subplots(1, 3 if history else 2)
        bars = {"before": a["before"], **({"default": a["default"]} if "default" in a else {}), "after": a["after"]}
        drawn = errors.bar(list(bars), list(bars.values()), color=["0.7"] * (len(bars) - 1) + ["C0"])
        errors.bar_label(drawn, fmt="{:.3g}")
        errors.margins(y=0.14)
        errors.set(title=a.get("measure", "median RMSE to the flow"))
        plain = make_plan(path, "ddim", "logsnr", max(self.plan.evaluations, 2))
        for name, plan in (("tuned", self.plan), ("logsnr", plain)):
            asked = path.lam(plan.ask_times.detach().reshape(len(plan.ask_times), -1)[:, 0])
            asked = asked[asked.isfinite()]
            grid.plot(asked.numpy(), [name] * len(asked), "o", label=name)
        grid.set(xlabel="λ", title="where the network is asked")
        if history:
            way[0].plot([spent for spent, _ in history], [value for _, value in history])
            way[0].set(xlabel="evaluations spent" if history[-1][0] else "round", title="what the method minimised")
            if not history[-1][0]:
                way[0].lines[0].set_xdata(range(len(history)))
                way[0].relim()
                way[0].autoscale_view()
        figure.suptitle(f"{a['method']}, {a['evaluations']} evaluations: {a['before']:.3g} → {a['after']:.3g}")
        return figure


def report(plan: Plan) -> Report:
    """What tuning gained, from a plan that `tune` made or that was read from its file.

    Raises:
        ArgumentError: the plan was not tuned.
    """
    about = plan.source.get("tuned")
    if not isinstance(about, dict):
        raise ArgumentError(f"this plan was not tuned; it comes from {plan.source.get('solver', 'a table')!r}")
    return Report(about, plan)
