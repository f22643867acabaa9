"""A picture restored: what was seen, samples of what it may have been, their mean and their deviation."""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.pictures import grid_of
from fewstep.restoration import Restored
from fewstep.restoration.from_picture import DEGRADATIONS, Job, fitted, read, restored
from fewstep.sampling import sample
from fewstep.studio.bounds import fits, number_in, picture_shape, real, whole
from fewstep.studio.models import Model
from fewstep.studio.showing import figure_html, samples
from fewstep.studio.uploads import picture_of
from fewstep.studio.watching import Done, Progress, followed, watched

WIDTH = 280


@dataclass(frozen=True)
class Mend:
    """What is to be restored.

    Args:
        model: which, and the class if one is known.
        picture: a file of the model's own size, as `prepared` or `drawn_picture` wrote it.
        mask: a file of that size, white where the picture is known; None for a degradation.
        degrade: "kind" or "kind:number", what is done to the picture.
        noise: σ_y, in a range of [−1, 1].
        method: of the catalogue's family restoration.
        evaluations: a sample's; what the paper spends if None.
        n: samples of the posterior.
        seed: of the noises.
    """

    model: Model
    picture: Path
    mask: Path | None = None
    degrade: str = "box"
    noise: float = 0.05
    method: str = "ddrm"
    evaluations: int | None = 20
    n: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        whole("pictures", self.n)
        whole("seed", self.seed)
        real("noise", self.noise, 0.0, 2.0)
        if self.evaluations is not None:
            whole("evaluations", self.evaluations)

    def label(self) -> int | None:
        """The class that the picture is said to be of."""
        try:
            return int(self.model.told) if self.model.told.strip() else None
        except ValueError:
            raise ArgumentError(f"give one class or none, got {self.model.told!r}") from None

    def code(self, picture: str = "picture.png", mask: str = "mask.png") -> str:
        """Python that gives the same samples, from the files under these names."""
        what = f"mask=Path({mask!r})" if self.mask is not None else repr(self.degrade)
        options = [
            f"Job(Path({picture!r}), {what}, noise={self.noise!r})", "den", repr(self.method),
            "" if self.label() is None else f"label={self.label()}", f"samples={self.n}",
            "" if self.evaluations is None else f"evaluations={self.evaluations}", f"seed={self.seed}",
        ]  # fmt: skip
        call = ",\n    ".join(filter(None, options))
        return "\n".join([
            "from pathlib import Path", "", "import fewstep",
            "from fewstep.restoration.from_picture import Job, restored, write", "", self.model.code(),
            f"result, _ = restored(\n    {call},\n)", 'write(result, Path("restored.png"))',
            "",
        ])  # fmt: skip


def degrade_named(kind: str, number: str) -> str:
    """ "kind:number", or the kind alone where no number is given.

    Raises:
        ArgumentError: an unknown kind, or a number too large for this machine.
    """
    if kind not in DEGRADATIONS:
        raise ArgumentError(f"unknown degradation {kind!r}; known: {', '.join(DEGRADATIONS)}")
    value = number_in("the number of the degradation", number)
    return kind if value is None else f"{kind}:{real('the number of the degradation', value, 0.0, 64.0):g}"


def prepared(upload: str | Path, model: Model, folder: Path) -> tuple[Path, str]:
    """(a file of the picture as the model can take it, what was done to it in words).

    Raises:
        ArgumentError: no picture, or a model whose samples are none.
    """
    denoiser = model.load()
    picture = picture_of(upload)
    target = folder / "picture.png"
    picture.save(target)
    channels, height, width = picture_shape(denoiser)
    small, done = fitted(read(target, channels, denoiser.limits), height, width)
    grid_picture(small[0], denoiser).save(target)
    return target, done


def drawn_picture(model: Model, seed: int, folder: Path) -> Path:
    """A file with one sample of the model, to try restoring on."""
    denoiser = model.load()
    picture_shape(denoiser)
    out = sample(denoiser, 1, steps=10, cond=model.condition(denoiser, 1), seed=whole("seed", seed))
    with torch.no_grad():
        grid_picture(denoiser.decode(out.x)[0], denoiser).save(folder / "picture.png")
    return folder / "picture.png"


def grid_picture(x: torch.Tensor, denoiser: Denoiser) -> Image.Image:
    """One picture without a frame around it."""
    framed = grid_of(x[None].clamp(*denoiser.limits), denoiser.limits, 1)
    return framed.crop((1, 1, framed.width - 1, framed.height - 1))


def mask_file(bits: str, size: tuple[int, int], folder: Path) -> Path:
    """A file of what was painted: black where the visitor painted, which is what will be filled in.

    Args:
        bits: "0" and "1", row after row, as the page's canvas sends them; 1 was painted.
        size: (width, height) of the picture.

    Raises:
        ArgumentError: nothing was painted, everything was, or it is of another size.
    """
    width, height = size
    if len(bits) != width * height or set(bits) - {"0", "1"}:
        raise ArgumentError("paint on the picture what is to be filled in, or choose a degradation instead")
    painted = np.frombuffer(bits.encode(), np.uint8).reshape(height, width) == ord("1")
    if not painted.any() or painted.all():
        what = "everything" if painted.all() else "nothing"
        raise ArgumentError(f"{what} was painted: paint the part of the picture that is to be filled in")
    Image.fromarray(np.where(painted, 0, 255).astype(np.uint8)).save(folder / "mask.png")
    return folder / "mask.png"


def mended(ask: Mend, stop: threading.Event) -> Iterator[Progress | Done[Restored]]:
    """Restore, and yield how far it is; at the end the samples, or None after a stop.

    Raises:
        ArgumentError: a bad request.
    """
    denoiser = ask.model.load()
    fits(denoiser, ask.n)
    label = ask.label()

    def work(tell: Callable[[Progress], None]) -> Restored:
        spent = 0.0

        def told(share: float) -> None:
            nonlocal spent
            spent += share
            of = math.inf if ask.evaluations is None else ask.evaluations
            limit = "" if ask.evaluations is None else f" of {ask.evaluations}"
            known = None if ask.evaluations is None else min(spent / of, 1.0)
            tell(Progress(f"{ask.method}: {spent:.0f}{limit} evaluations each", known))

        options: dict[str, Any] = {"samples": ask.n, "seed": ask.seed, "evaluations": ask.evaluations}
        job = Job(ask.picture, ask.degrade, ask.mask, noise=ask.noise)
        return restored(job, watched(denoiser, stop, lambda rows: None), ask.method, told, label, **options)[0]

    yield Progress(f"{ask.method} begins", 0.0)
    yield from followed(work, stop)


def restored_html(ask: Mend, result: Restored) -> str:
    """What was seen, the samples, their mean, and their deviation."""
    denoiser = ask.model.load()
    assert result.measurement is not None
    y, deviation = result.measurement.y, result.std.mean(1, keepdim=True)
    top = max(float(deviation.max()), 1e-12)
    shown: list[tuple[Image.Image, str, int]] = [(Image.open(ask.picture), "the picture", WIDTH // 2)]
    if y.ndim == 4 and y.shape[1] in (1, 3):
        seen = y
        if ask.mask is not None:
            keep = torch.from_numpy(np.asarray(Image.open(ask.mask)) > 127).to(y)
            seen = y * keep + (1 - keep) * sum(denoiser.limits) / 2
        shown.append((samples(seen, denoiser), "what was seen", WIDTH // 2))
    shown += [
        (samples(result.mean, denoiser), f"mean of {ask.n} samples", WIDTH // 2),
        (grid_of(deviation, (0.0, top)), f"spread (white {top:.2f})", WIDTH // 2),
        (samples(result.x, denoiser), f"{ask.n} samples of what it may have been", WIDTH * 2),
    ]
    return f'<div class="shots">{"".join(figure_html(*one) for one in shown)}</div>'
