"""The page: its tabs, and how it looks, with the fonts that the visitor's machine has."""

from pathlib import Path
from typing import Any

import gradio as gr

from fewstep.studio.tabs.catalogue_tab import catalogue_tab
from fewstep.studio.tabs.compare_tab import compare_tab
from fewstep.studio.tabs.parts import STOPS
from fewstep.studio.tabs.restore_tab import restore_tab
from fewstep.studio.tabs.sample_tab import sample_tab
from fewstep.studio.tabs.tune_tab import tune_tab

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf8")


def built() -> Any:
    """The page with its five tabs."""
    # Files that were served are forgotten after an hour.
    with gr.Blocks(analytics_enabled=False, title="fewstep studio", delete_cache=(3600, 3600)) as page:
        gr.HTML(
            "<h1>fewstep studio</h1><p>Diffusion and flow models in few network evaluations, on this machine.</p>",
            elem_id="head",
        )
        with gr.Tabs(overflow_behavior="wrap") as tabs:
            with gr.Tab("Sample", id="sample"):
                sample = sample_tab()
            with gr.Tab("Compare", id="compare"):
                compare_tab()
            with gr.Tab("Restore", id="restore"):
                restorer = restore_tab(page)
            with gr.Tab("Tune", id="tune"):
                tuner = tune_tab()
            with gr.Tab("Catalogue", id="catalogue"):
                catalogue_tab(tabs, sample, restorer, tuner)

        def leaving(request: gr.Request) -> None:
            STOPS.leave(str(request.session_hash))

        page.unload(leaving)
    return page


def dressed() -> dict[str, Any]:
    """How the page looks, as the server takes it."""
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONO)
    return {"theme": theme, "css": STYLE}
