"""The tab *compare*: several samplers on the same noises."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from fewstep.comparison import Comparison
from fewstep.grids import GRIDS
from fewstep.studio.guides import Chosen
from fewstep.studio.models import Model
from fewstep.studio.tabs.parts import (
    WORK,
    Updates,
    Wiring,
    buttons,
    code_box,
    model_picker,
    number,
    shown_as_it_goes,
    solver_choices,
    status_line,
    whole_of,
)
from fewstep.studio.work.contrasting import Contrast, comparison_html, contrasted, counts

MODEL = "cifar10-lowrank"


def guided(scale: Any) -> tuple[Chosen, ...]:
    """Classifier-free guidance, or none at scale 1."""
    return () if scale in (None, 1) else (Chosen.of("cfg", {"scale": scale}),)


@dataclass(frozen=True)
class CompareTab:
    """The widgets that show something: the line, the table with its pictures, the code."""

    status: Any
    shown: Any
    code: Any

    def work(self, stop: Any, name: str, revision: str, told: str, solvers: list[str], grids: list[str],
             evaluations: str, n: Any, scale: Any, seed: Any) -> Updates:  # fmt: skip
        """Compare, and say how far it is."""
        ask = Contrast(
            Model(name or "", revision or "", told or ""), tuple(solvers or ()), tuple(grids or ()),
            counts(evaluations or ""), whole_of(n), guided(scale), whole_of(seed),
        )  # fmt: skip
        yield {self.code: ask.code(), self.shown: ""}

        def ended(result: Comparison) -> tuple[str, dict[Any, Any]]:
            line = f"{len(result.rows)} runs, {sum(row.seconds for row in result.rows):.1f} s beside the reference"
            return line, {self.shown: comparison_html(ask, result)}

        yield from shown_as_it_goes(self.status, contrasted(ask, stop), ended)


def compare_tab() -> None:
    """Build the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = model_picker("compare", MODEL)
            solvers = gr.Dropdown(
                solver_choices(MODEL, ""), value=["ddim", "heun", "dpm-solver++"], multiselect=True, label="solvers",
                elem_id="compare-solvers",
            )  # fmt: skip
            grids = gr.Dropdown(list(GRIDS), value=["logsnr"], multiselect=True, label="grids", elem_id="compare-grids")
            evaluations = gr.Textbox(
                "4, 8, 16", label="evaluations a sample", info="whole numbers with commas",
                elem_id="compare-evaluations",
            )  # fmt: skip
            with gr.Row():
                n = number("compare", "n", 8, "noises")
                scale = gr.Number(1, label="guidance (CFG)", elem_id="compare-cfg", min_width=80)
                seed = number("compare", "seed", 0, "seed")
            run, cancel = buttons("compare", "Compare")
        with gr.Column(scale=3, min_width=300):
            status = status_line("compare", "Press Compare: every sampler starts at the same noises.")
            shown = gr.HTML(elem_id="compare-shown")
            code = code_box("compare")
    inputs = [*model.inputs, solvers, grids, evaluations, n, scale, seed]
    Wiring("compare", run, cancel, status, inputs, [code, shown], WORK).connect(CompareTab(status, shown, code).work)
