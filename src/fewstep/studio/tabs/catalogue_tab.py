"""The tab *catalogue*: look a method up, see what it claims and what we measured, and try it."""

from typing import Any

import gradio as gr

from fewstep.studio.tabs.sample_tab import SampleTab
from fewstep.studio.work.looking_up import families, found, method_html, method_named, tried_in

ALL = "all families"


def catalogue_tab(tabs: Any, sample: SampleTab, restorer: Any, tuner: Any) -> None:
    """Build the tab.

    Args:
        tabs: the frame of all tabs, where "try it" goes elsewhere.
        sample: the tab of samples.
        restorer, tuner: the widgets of methods in the tabs of restoring and tuning.
    """
    first = found("")
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            text = gr.Textbox(
                label="search", placeholder="a name, words of a paper's title, an arXiv number",
                elem_id="catalogue-search",
            )  # fmt: skip
            family = gr.Dropdown([ALL, *families()], value=ALL, label="family", elem_id="catalogue-family")
            names = gr.Radio(
                _choices(first), value="dpm-solver++", label=f"{len(first)} methods", elem_id="catalogue-names",
                elem_classes="list",
            )  # fmt: skip
        with gr.Column(scale=3, min_width=300):
            about = gr.HTML(method_html(method_named("dpm-solver++")), elem_id="catalogue-about")
            attempt = gr.Button("Try it", variant="primary", elem_id="catalogue-try")

    def search(words: str, chosen: str) -> Any:
        rows = found((words or "")[:200], "" if chosen == ALL else chosen or "")
        label = f"{len(rows)} methods" if rows else "no method has all these words"
        return gr.update(choices=_choices(rows), value=rows[0].name if rows else None, label=label)

    def show(name: str | None) -> tuple[str, Any]:
        if not name:
            return "", gr.update(interactive=False)
        row = method_named(name)
        return method_html(row), gr.update(interactive=bool(tried_in(row)))

    def trying(name: str | None, guides: list[str]) -> tuple[Any, ...]:
        row = method_named(name or "")
        tab, same = tried_in(row), gr.update()
        solver = row.name if row.family == "solvers" else same
        ticked = list(dict.fromkeys([*(guides or []), row.name])) if row.family == "guidance" else same
        restoring = row.name if row.family == "restoration" else same
        return gr.update(selected=tab), solver, ticked, restoring, row.name if row.family == "tuning" else same

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    for widget in (text, family):
        widget.change(search, [text, family], names, trigger_mode="always_last", **quiet)
    names.change(show, names, [about, attempt], **quiet)
    attempt.click(
        trying, [names, sample.guides.names], [tabs, sample.solver, sample.guides.names, restorer, tuner], **quiet
    )


def _choices(rows: list[Any]) -> list[tuple[str, str]]:
    return [(f"{row.name} · {row.family}", row.name) for row in rows]
