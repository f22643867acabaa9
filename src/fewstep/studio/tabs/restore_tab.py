"""The tab *restore*: a picture, what is missing of it, and what it may have been."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from fewstep.catalog import methods
from fewstep.errors import ArgumentError, FewstepError
from fewstep.restoration import Restored
from fewstep.restoration.from_picture import DEGRADATIONS, write
from fewstep.studio.bounds import number_in
from fewstep.studio.folders import new_folder
from fewstep.studio.models import Model
from fewstep.studio.showing import progress_html
from fewstep.studio.tabs.painter import EMPTY, canvas_of, painter
from fewstep.studio.tabs.parts import (
    WORK,
    ModelPicker,
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
from fewstep.studio.watching import Progress
from fewstep.studio.work.mending import Mend, degrade_named, drawn_picture, mask_file, mended, prepared, restored_html

PAINT, DEGRADE = "what I paint", "a degradation"
FIRST = Model("mnist", told="3")
HOW = "Paint over what is to be filled in, and press Restore."


@dataclass(frozen=True)
class Source:
    """Where the picture comes from, and what is missing of it.

    Args:
        model: which, and the class if it is known.
        upload, draw: buttons.
        picture: the file, which only the server knows.
        missing: whether it is painted or degraded.
        canvas: the picture, to be painted on.
        kind, amount: of the degradation.
    """

    model: ModelPicker
    upload: Any
    draw: Any
    picture: Any
    missing: Any
    canvas: Any
    kind: Any
    amount: Any

    @property
    def inputs(self) -> list[Any]:
        """The widgets in the order in which the work takes their values."""
        return [*self.model.inputs, self.picture, self.missing, self.canvas, self.kind, self.amount]

    def connect(self, page: Any, status: Any, seed: Any) -> None:
        """Pictures come from the visitor's file or from the model; the page opens with one."""
        outputs = [self.picture, self.canvas, status]
        options: dict[str, Any] = {"api_visibility": "private", **WORK}
        self.upload.upload(_uploaded, [self.upload, self.model.name, self.model.revision], outputs, **options)
        self.draw.click(_drawn, [*self.model.inputs, seed], outputs, **options)
        self.model.name.input(_drawn, [*self.model.inputs, seed], outputs, **options)
        page.load(lambda: (*_drawn(FIRST.name, "", FIRST.told, 0)[:2], _idle(HOW)), None, outputs, **options)


@dataclass(frozen=True)
class RestoreTab:
    """The widgets that show something: the line, the pictures, the code and the files."""

    status: Any
    shown: Any
    code: Any
    files: Any

    def work(self, stop: Any, name: str, revision: str, told: str, file: str, missing: str, painted: Any, kind: str,
             amount: str, method: str, noise: Any, evaluations: str, n: Any, seed: Any) -> Updates:  # fmt: skip
        """Restore, and say how far it is."""
        if not file or not Path(file).is_file():
            raise ArgumentError("upload a picture, or let the model draw one")
        ask = Mend(
            Model(name or "", revision or "", told or ""), Path(file),
            _mask(painted, Path(file)) if missing == PAINT else None, degrade_named(kind or "", amount or ""), noise,
            method or "", whole_of(number_in("evaluations", evaluations or "")), whole_of(n), whole_of(seed),
        )  # fmt: skip
        yield {self.code: ask.code(), self.shown: "", self.files: gr.update(visible=False, value=None)}

        def ended(result: Restored) -> tuple[str, dict[Any, Any]]:
            made = [*write(result, new_folder() / "restored.png"), ask.picture, *([ask.mask] if ask.mask else [])]
            line = f"{ask.n} samples, {result.stats.evaluations} evaluations each, {result.stats.seconds:.2f} s"
            files = gr.update(visible=True, value=[str(one) for one in made])
            return line, {self.shown: restored_html(ask, result), self.files: files}

        yield from shown_as_it_goes(self.status, mended(ask, stop), ended)


def _source() -> Source:
    """The widgets that choose a picture and what is missing of it."""
    picture = gr.State("")
    model = model_picker("restore", FIRST.name, "class, if it is known", "empty: none")
    with gr.Row():
        upload = gr.UploadButton(
            "Upload a picture", file_types=["image"], size="sm", elem_id="restore-upload", min_width=120
        )
        draw = gr.Button("Let the model draw one", size="sm", elem_id="restore-draw", min_width=120)
    missing = gr.Radio([PAINT, DEGRADE], value=PAINT, label="what is missing", elem_id="restore-missing")
    canvas = painter("restore-canvas")
    with gr.Row(visible=False) as degrading:
        kind = gr.Dropdown(
            list(DEGRADATIONS), value="box", label="degradation", elem_id="restore-degrade", min_width=130
        )
        amount = gr.Textbox(label="its number", placeholder="its own default", elem_id="restore-number", min_width=130)
    missing.change(lambda v: gr.update(visible=v == DEGRADE), missing, degrading, show_progress="hidden")
    return Source(model, upload, draw, picture, missing, canvas, kind, amount)


def restore_tab(page: Any) -> Any:
    """Build the tab.

    Args:
        page: the page, which shows a first picture when it is opened.

    Returns:
        The widget of methods, for the catalogue.
    """
    names = [m.name for m in methods() if m.family == "restoration"]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            source = _source()
            with gr.Row():
                method = gr.Dropdown(names, value="ddrm", label="method", elem_id="restore-method", min_width=130)
                noise = gr.Number(0.05, label="noise σ", step=0.01, elem_id="restore-noise", min_width=100)
            with gr.Row():
                evaluations = gr.Textbox(
                    "20", label="evaluations", placeholder="the paper's", elem_id="restore-evaluations", min_width=80
                )
                n = number("restore", "n", 8, "samples")
                seed = number("restore", "seed", 0, "seed")
            run, cancel = buttons("restore", "Restore")
        with gr.Column(scale=3, min_width=300):
            status = status_line("restore", HOW)
            shown = gr.HTML(elem_id="restore-shown")
            code = code_box("restore")
            files = gr.Files(
                label="pictures, and the files that the code reads", elem_id="restore-files", interactive=False,
                visible=False,
            )  # fmt: skip
    source.connect(page, status, seed)
    inputs = [*source.inputs, method, noise, evaluations, n, seed]
    tab = RestoreTab(status, shown, code, files)
    Wiring("restore", run, cancel, status, inputs, [code, shown, files], WORK).connect(tab.work)
    return method


def _mask(painted: Any, file: Path) -> Path:
    with Image.open(file) as image:
        size = image.size
    bits = painted.get("bits") if isinstance(painted, dict) else None
    return mask_file(bits if isinstance(bits, str) else "", size, file.parent)


def _idle(line: str) -> str:
    return progress_html(Progress(line), "idle")


def _refused(error: FewstepError) -> tuple[str, Any, str]:
    gr.Warning(str(error), title="Not possible", duration=12)
    return "", EMPTY, progress_html(Progress(str(error)), "refused")


def _uploaded(file: str, name: str, revision: str) -> tuple[str, Any, str]:
    try:
        made, done = prepared(file, Model(name or "", revision or ""), new_folder())
    except FewstepError as error:
        return _refused(error)
    return str(made), canvas_of(made), _idle(done or "the picture has the model's size")


def _drawn(name: str, revision: str, told: str, seed: Any) -> tuple[str, Any, str]:
    try:
        made = drawn_picture(Model(name or "", revision or "", told or ""), whole_of(seed), new_folder())
    except FewstepError as error:
        return _refused(error)
    return str(made), canvas_of(made), _idle("drawn by the model itself; another seed draws another")
