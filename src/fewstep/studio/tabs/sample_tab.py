"""The tab *sample*: pictures that appear step by step."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from fewstep.grids import GRIDS
from fewstep.studio.folders import new_folder
from fewstep.studio.models import Model
from fewstep.studio.showing import picture_html, plan_html, progress_html
from fewstep.studio.tabs.parts import (
    WORK,
    GuidePicker,
    ModelPicker,
    Updates,
    Wiring,
    buttons,
    code_box,
    guide_picker,
    model_picker,
    number,
    solver_choices,
    status_line,
    whole_of,
)
from fewstep.studio.work.drawing import Draw, drawn

OWN = "its own"


@dataclass(frozen=True)
class SampleTab:
    """The tab's widgets; the catalogue sets the solver and the guides.

    Args:
        model, guides: pickers.
        solver, grid, steps, n, seed: what else is asked for.
        status, picture, save, code, plan: what is shown.
    """

    model: ModelPicker
    solver: Any
    grid: Any
    steps: Any
    n: Any
    seed: Any
    guides: GuidePicker
    status: Any
    picture: Any
    save: Any
    code: Any
    plan: Any

    def ask(self, name: str, revision: str, told: str, solver: str, grid: str, steps: Any, n: Any, seed: Any,
            guides: list[str], *settings: Any) -> Draw:  # fmt: skip
        """The request that the widgets make."""
        model = Model(name or "", revision or "", told or "")
        chosen = self.guides.read(guides, settings)
        return Draw(model, whole_of(n), solver or "", grid or "", whole_of(steps), chosen, whole_of(seed))

    def work(self, stop: Any, *values: Any) -> Updates:
        """Sample, and show every step."""
        ask = self.ask(*values)
        yield {self.save: gr.update(interactive=False, value=None), self.code: ask.code()}
        for number_, step in enumerate(drawn(ask, stop)):
            state = "stopped" if step.stopped else "done" if step.output is not None else "busy"
            update: dict[Any, Any] = {self.status: progress_html(step.progress, state)}
            if number_ == 0:
                update[self.plan] = plan_html(step.plan)
            if step.picture is not None:
                update[self.picture] = picture_html(step.picture, step.progress.line)
            if step.output is not None:
                file = new_folder() / "samples.png"
                step.output.save(str(file))
                update[self.save] = gr.update(interactive=True, value=str(file))
            yield update


def sample_tab() -> SampleTab:
    """Build the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = model_picker("sample", "mnist")
            with gr.Row():
                solver = gr.Dropdown(
                    solver_choices("mnist", ""), value="dpm-solver++", label="solver", elem_id="sample-solver",
                    min_width=190,
                )  # fmt: skip
                grid = gr.Dropdown([*GRIDS, OWN], value="logsnr", label="grid", elem_id="sample-grid", min_width=190)
            with gr.Row():
                steps = number("sample", "steps", 8, "steps")
                n = number("sample", "n", 16, "pictures")
                seed = number("sample", "seed", 0, "seed")
            guides = guide_picker("sample")
            run, cancel = buttons("sample", "Sample")
        with gr.Column(scale=3, min_width=300):
            status = status_line("sample", "Press Sample: the pictures appear step by step.")
            picture = gr.HTML(elem_id="sample-picture", elem_classes="stage")
            save = gr.DownloadButton("Download the picture", interactive=False, size="sm", elem_id="sample-save")
            code = code_box("sample")
    plan = gr.HTML(elem_id="sample-plan")
    tab = SampleTab(model, solver, grid, steps, n, seed, guides, status, picture, save, code, plan)
    inputs = [*model.inputs, solver, grid, steps, n, seed, *guides.inputs]
    Wiring("sample", run, cancel, status, inputs, [code, picture, plan, save], WORK).connect(tab.work)
    _following(tab)
    return tab


def _following(tab: SampleTab) -> None:
    """Solvers follow the model; the tuned plans of "auto" have grids of their own."""

    def solvers(name: str, revision: str, chosen: str) -> Any:
        choices = solver_choices(name or "", revision or "")
        return gr.update(choices=choices, value=chosen if chosen in choices else "dpm-solver++")

    def grids(chosen: str, grid: str) -> Any:
        return gr.update(
            value=OWN if chosen == "auto" else "logsnr" if grid == OWN else grid, interactive=chosen != "auto"
        )

    tab.model.name.change(solvers, [tab.model.name, tab.model.revision, tab.solver], tab.solver, show_progress="hidden")
    tab.solver.change(grids, [tab.solver, tab.grid], tab.grid, show_progress="hidden")
