"""What the page shows, as HTML: pictures without smoothing, how far work is, tables."""

import base64
import io
from html import escape

from PIL import Image
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.pictures import grid_of
from fewstep.plan import Plan
from fewstep.plan.text import html
from fewstep.studio.watching import Progress


def picture_html(image: Image.Image, says: str, width: int = 0) -> str:
    """A picture inside the page, its pixels kept square and sharp.

    Args:
        image: the picture.
        says: what it is, for those who cannot see it.
        width: in pixels of the screen, at most the column's; the column's unless given.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    style = f' style="width:{width}px"' if width else ""
    return f'<img class="pixels"{style} src="data:image/png;base64,{data}" alt="{escape(says)}">'


def figure_html(image: Image.Image, caption: str, width: int = 0) -> str:
    """A picture with a line below it."""
    return f"<figure>{picture_html(image, caption, width)}<figcaption>{escape(caption)}</figcaption></figure>"


def samples(x: Tensor, denoiser: Denoiser, columns: int = 0) -> Image.Image:
    """Pictures side by side.

    Raises:
        ArgumentError: the model's samples are no pictures.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ArgumentError(f"the studio shows pictures, and this model's samples have the shape {tuple(x.shape[1:])}")
    return grid_of(x, denoiser.limits, columns)


def progress_html(progress: Progress, state: str = "busy") -> str:
    """How far work is: a line, and a bar where the share is known.

    Args:
        progress: what to tell.
        state: "busy", "done" or "stopped".
    """
    bar = ""
    if state == "busy":
        value = "" if progress.share is None else f' value="{progress.share:.3f}" max="1"'
        bar = f"<progress{value}></progress>"
    return (
        f'<div class="told {state}" role="status" data-state="{state}"><span>{escape(progress.line)}</span>{bar}</div>'
    )


def plan_html(plan: Plan) -> str:
    """A plan: what it is, and its table, whose last column wraps."""
    return f'<div class="plan">{html(plan)}</div>'


def table_html(head: list[str], rows: list[list[str]]) -> str:
    """A table; cells are HTML already, and the whole scrolls by itself where it is too wide."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table class="figures"><tr>{top}</tr>{body}</table></div>'
