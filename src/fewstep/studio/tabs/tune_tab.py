"""The tab *tune*: say what a sample may cost, see how far it is, take the plan away."""

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from fewstep.catalog import methods
from fewstep.plan import Plan
from fewstep.studio.bounds import number_in
from fewstep.studio.folders import new_folder
from fewstep.studio.models import Model
from fewstep.studio.showing import plan_html
from fewstep.studio.tabs.compare_tab import guided
from fewstep.studio.tabs.parts import (
    LONG,
    Updates,
    Wiring,
    buttons,
    code_box,
    model_picker,
    number,
    shown_as_it_goes,
    status_line,
    whole_of,
)
from fewstep.studio.work.refining import Refine, refined
from fewstep.tuning.report import report


@dataclass(frozen=True)
class TuneTab:
    """The widgets that show something: the line, the gain, the file, the code and the plan."""

    status: Any
    shown: Any
    save: Any
    code: Any
    plan: Any

    def work(self, stop: Any, name: str, revision: str, told: str, method: str, evaluations: Any, noises: Any,
             budget: str, scale: Any, seed: Any) -> Updates:  # fmt: skip
        """Tune, and say how far it is."""
        ask = Refine(
            Model(name or "", revision or "", told or ""), whole_of(evaluations), method or "", whole_of(noises),
            whole_of(number_in("budget", budget or "")), guided(scale), whole_of(seed),
        )  # fmt: skip
        yield {
            self.code: ask.code(), self.shown: "", self.plan: "",
            self.save: gr.update(interactive=False, value=None),
        }  # fmt: skip

        def ended(plan: Plan) -> tuple[str, dict[Any, Any]]:
            file = new_folder() / f"tuned-{ask.evaluations}.json"
            plan.save(str(file))
            return str(report(plan)), {
                self.shown: gain_html(plan), self.plan: plan_html(plan),
                self.save: gr.update(interactive=True, value=str(file)),
            }  # fmt: skip

        yield from shown_as_it_goes(self.status, refined(ask, stop), ended, "stopped; nothing was kept")


def tune_tab() -> Any:
    """Build the tab.

    Returns:
        The widget of methods, for the catalogue.
    """
    names = [m.name for m in methods() if m.family == "tuning"]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = model_picker("tune", "mnist")
            method = gr.Dropdown(names, value="gits", label="method", elem_id="tune-method")
            with gr.Row():
                evaluations = number("tune", "n", 6, "evaluations a sample", 120)
                noises = number("tune", "noises", 16, "noises it sees", 120)
            with gr.Row():
                budget = gr.Textbox(label="budget in all", placeholder="none", elem_id="tune-budget", min_width=80)
                scale = gr.Number(1, label="guidance (CFG)", elem_id="tune-cfg", min_width=80)
                seed = number("tune", "seed", 0, "seed")
            run, cancel = buttons("tune", "Tune")
        with gr.Column(scale=3, min_width=300):
            status = status_line("tune", "Press Tune: this may take minutes, and can be cancelled.")
            shown = gr.HTML(elem_id="tune-shown")
            save = gr.DownloadButton("Download the plan", interactive=False, size="sm", elem_id="tune-save")
            code = code_box("tune")
    plan = gr.HTML(elem_id="tune-plan")
    inputs = [*model.inputs, method, evaluations, noises, budget, scale, seed]
    tab = TuneTab(status, shown, save, code, plan)
    Wiring("tune", run, cancel, status, inputs, [code, shown, plan, save], LONG).connect(tab.work)
    return method


def gain_html(plan: Plan) -> str:
    """The panels of the report's picture, each by itself, so that they stand below one another where it is narrow."""
    figure, panels = report(plan)._figure(), []
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_tightbbox().transformed(figure.dpi_scale_trans.inverted()).padded(0.06)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=170, bbox_inches=box)
        data = base64.b64encode(buffer.getvalue()).decode()
        says = escape(axes.get_title() or "what the tuning gained")
        panels.append(f'<img class="plot panel" src="data:image/png;base64,{data}" alt="{says}">')
    return f'<div class="shots">{"".join(panels)}</div>'
