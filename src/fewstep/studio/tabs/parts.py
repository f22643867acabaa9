"""What the tabs share: how a model and guides are chosen, how far work is, and the code for what is on the screen."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr

from fewstep.errors import FewstepError
from fewstep.loading import shipped
from fewstep.studio.guides import Chosen, offered
from fewstep.studio.models import Model, solvers_on
from fewstep.studio.showing import progress_html
from fewstep.studio.watching import Done, Progress, Stops

T = TypeVar("T")
STOPS = Stops()
# Two visitors' work at a time, whatever it is: a machine with more asks of it does none faster.
WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 2, "show_progress": "hidden"}
# A tuning may take minutes, so that it has a line of its own.
LONG: dict[str, Any] = {"concurrency_id": "tuning", "concurrency_limit": 1, "show_progress": "hidden"}
Updates = Iterator[dict[Any, Any]]


@dataclass(frozen=True)
class ModelPicker:
    """Which model, and what it is told.

    Args:
        name, revision, told: the widgets.
    """

    name: Any
    revision: Any
    told: Any

    @property
    def inputs(self) -> list[Any]:
        """The widgets in the order in which `Model` takes their values."""
        return [self.name, self.revision, self.told]


def model_picker(
    tab: str, value: str, told: str = "classes, or a text", empty: str = "empty: every class in turn"
) -> ModelPicker:
    """The widgets that choose a model; the commit is asked for where the name is a hub id."""
    name = gr.Dropdown(
        shipped(), value=value, allow_custom_value=True, label="model", elem_id=f"{tab}-model",
        info="one that ships, the folder of a diffusers pipeline, a file of ours, or owner/name on the hub",
    )  # fmt: skip
    revision = gr.Textbox(
        label="commit of the hub id", placeholder="40 hexadecimal digits", visible=False, elem_id=f"{tab}-revision"
    )
    text = gr.Textbox(label=told, placeholder=empty, elem_id=f"{tab}-told")
    name.change(lambda v: gr.update(visible="/" in (v or "")), name, revision, show_progress="hidden")
    return ModelPicker(name, revision, text)


def solver_choices(name: str, revision: str) -> list[str]:
    """The solvers that a model's path takes; those of the usual paths where the model cannot be read."""
    try:
        return solvers_on(Model(name, revision).load().path)
    except FewstepError:
        return solvers_on(Model().load().path)


@dataclass(frozen=True)
class GuidePicker:
    """Which guides, and their settings.

    Args:
        names: the widget of names.
        keys: (guide, setting) of every widget of settings.
        widgets: those.
        groups: the frame of every guide's settings.
    """

    names: Any
    keys: list[tuple[str, str]]
    widgets: list[Any]
    groups: list[Any]

    @property
    def inputs(self) -> list[Any]:
        """The names, and every setting."""
        return [self.names, *self.widgets]

    def read(self, names: list[str], values: tuple[Any, ...]) -> tuple[Chosen, ...]:
        """What was chosen, from the values of the widgets."""
        given: dict[str, dict[str, Any]] = {}
        for (guide, setting), value in zip(self.keys, values, strict=True):
            given.setdefault(guide, {})[setting] = value
        return tuple(Chosen.of(name, given[name]) for name in names or [])


def guide_picker(tab: str) -> GuidePicker:
    """Names to tick; the settings of those that are ticked show below."""
    names = gr.CheckboxGroup(list(offered()), label="guides", elem_id=f"{tab}-guides")
    keys, widgets, groups = [], [], []
    for guide, (row, settings) in offered().items():
        with gr.Group(visible=False, elem_classes="settings") as group:
            gr.HTML(f"<p class=note><b>{guide}</b> · {row.summary}</p>", padding=True)
            with gr.Row():
                for setting in settings:
                    keys.append((guide, setting.name))
                    widgets.append(_setting(setting.name, setting.default, f"{tab}-{guide}-{setting.name}"))
        groups.append(group)

    def shown(chosen: list[str]) -> list[Any]:
        return [gr.update(visible=guide in chosen) for guide in offered()]

    names.change(shown, names, groups, show_progress="hidden")
    return GuidePicker(names, keys, widgets, groups)


def _setting(name: str, default: Any, where: str) -> Any:
    end = {"0": " from", "1": " to"}.get(name.partition(".")[2], "")
    label = name.partition(".")[0].replace("_", " ") + end
    where = where.replace(".", "-")
    if isinstance(default, bool):
        return gr.Checkbox(default, label=label, elem_id=where, min_width=90)
    if isinstance(default, str):
        return gr.Textbox(default, label=label, elem_id=where, min_width=90)
    return gr.Number(default, label=label, elem_id=where, min_width=90)


def buttons(tab: str, does: str) -> tuple[Any, Any]:
    """The button that begins, and the one that cancels."""
    with gr.Row(elem_classes="buttons"):
        run = gr.Button(does, variant="primary", elem_id=f"{tab}-run", min_width=120)
        cancel = gr.Button("Cancel", variant="stop", elem_id=f"{tab}-cancel", min_width=120)
    return run, cancel


def status_line(tab: str, first: str) -> Any:
    """The line that says how far the work is."""
    return gr.HTML(progress_html(Progress(first), "idle"), elem_id=f"{tab}-status")


def code_box(tab: str) -> Any:
    """Python for what is on the screen."""
    return gr.Code(
        language="python", label="the same in Python", interactive=False, elem_id=f"{tab}-code", wrap_lines=True,
        lines=3,
    )  # fmt: skip


def number(tab: str, name: str, value: float | None, label: str, width: int = 80, **options: Any) -> Any:
    """A whole number; its bounds are checked where it is used, so that the refusal can say why."""
    return gr.Number(value, label=label, precision=0, elem_id=f"{tab}-{name}", min_width=width, **options)


def whole_of(value: Any) -> Any:
    """A number of the page as an int where it is whole; the request refuses everything else by its name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown_as_it_goes(
    status: Any, steps: Iterator[Progress | Done[T]], ended: Callable[[T], tuple[str, dict[Any, Any]]],
    stopped: str = "stopped",
) -> Updates:  # fmt: skip
    """The updates of work that is followed: its line as it goes, and at the end what it gave.

    Args:
        status: the line.
        steps: how far it is, and at the end what it gave, or None after a stop.
        ended: what it gave as (the last line, updates of other widgets).
        stopped: the last line after a stop.
    """
    for step in steps:
        if isinstance(step, Progress):
            yield {status: progress_html(step)}
        elif step.value is None:
            yield {status: progress_html(Progress(stopped), "stopped")}
        else:
            line, updates = ended(step.value)
            yield {status: progress_html(Progress(line), "done"), **updates}


@dataclass(frozen=True)
class Wiring:
    """What is connected when a tab is built.

    Args:
        tab: its name.
        run, cancel: its buttons.
        status: its line.
        inputs, outputs: widgets, the status aside.
        line: in which queue its work waits.
    """

    tab: str
    run: Any
    cancel: Any
    status: Any
    inputs: list[Any]
    outputs: list[Any]
    line: dict[str, Any]

    def connect(self, work: Callable[..., Updates]) -> None:
        """Run work(stop, *values) → updates at the button; refusals are told in the line, cancelling stops it.

        Only this visitor's work is stopped.
        """

        def running(request: gr.Request, *values: Any) -> Updates:
            stop = STOPS.begin(str(request.session_hash), self.tab)
            try:
                yield from work(stop, *values)
            except FewstepError as error:
                gr.Warning(str(error), title="Not possible", duration=12)
                yield {self.status: progress_html(Progress(str(error)), "refused")}
            except Exception as error:
                traceback.print_exc()
                said = f"this went wrong: {type(error).__name__}: {error}"
                yield {self.status: progress_html(Progress(said), "refused")}

        def cancelling(request: gr.Request) -> None:
            STOPS.stop(str(request.session_hash), self.tab)

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.run.click(running, self.inputs, [self.status, *self.outputs], api_visibility="private", **self.line)
        self.cancel.click(cancelling, None, None, queue=False, **quiet)
