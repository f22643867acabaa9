"""Models as the studio's tabs choose them: by name, with a class, a list of classes or a text as condition."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fewstep.catalog import methods
from fewstep.denoisers import Denoiser
from fewstep.denoisers.classes import classes_of, labelled
from fewstep.errors import ArgumentError, FewstepError
from fewstep.loading import load
from fewstep.planning import make_plan

_LOADING = threading.Lock()
KEPT = 3


@lru_cache(maxsize=KEPT)
def _loaded(name: str, revision: str) -> Denoiser:
    return load(name, revision=revision)


@dataclass(frozen=True)
class Model:
    """A model and what it is told.

    Args:
        name: a shipped model, a file of ours, a diffusers folder, or a hub id.
        revision: the commit of a hub id.
        told: a class, or classes with commas, which are dealt out in turn; all classes in turn if empty.  For a model
            that takes texts: the text.
    """

    name: str = "mnist"
    revision: str = ""
    told: str = ""

    def load(self) -> Denoiser:
        """The denoiser; the last few stay in memory."""
        if not self.name.strip():
            raise ArgumentError("choose a model: a shipped name, a folder, or a hub id with its commit")
        with _LOADING:
            return _loaded(self.name.strip(), self.revision.strip())

    def _labels(self) -> list[int] | None:
        """The classes that were told; None for all in turn."""
        try:
            return [int(part) for part in self.told.split(",") if part.strip()] or None
        except ValueError:
            raise ArgumentError(
                f"classes are whole numbers with commas, such as 3 or 1, 7; got {self.told!r}"
            ) from None

    def condition(self, denoiser: Denoiser, n: int) -> Mapping[str, Any] | None:
        """What `sample` takes as cond for n samples."""
        if classes_of(denoiser) is not None:
            return labelled(denoiser, n, self._labels())
        if not self.told.strip():
            return None
        encode = getattr(denoiser, "encode_texts", None)
        if encode is None:
            raise ArgumentError(f"this model has no classes and takes no texts, so it cannot be told {self.told!r}")
        made: Mapping[str, Any] = encode(self.told)
        return made

    def code(self) -> str:
        """The line of Python that loads it."""
        revision = f", revision={self.revision.strip()!r}" if self.revision.strip() else ""
        return f"den = fewstep.load({self.name.strip()!r}{revision})"

    def condition_code(self, denoiser: Denoiser, n: int) -> str:
        """The condition as Python, or nothing where there is none."""
        classes = classes_of(denoiser)
        if classes is None:
            return f"den.encode_texts({self.told!r})" if self.told.strip() else ""
        labels = self._labels() or list(range(classes[1]))
        if len(labels) == 1:
            return f"{{{classes[0]!r}: {labels[0]}}}"
        turn = f"i % {len(labels)}" if labels == list(range(len(labels))) else f"{labels}[i % {len(labels)}]"
        return f"{{{classes[0]!r}: [{turn} for i in range({n})]}}"


MNIST = Model()


@lru_cache(maxsize=8)
def solvers_on(path: Any) -> list[str]:
    """The solvers whose plans exist on a path, and "auto"."""
    found = ["auto"]
    for row in methods():
        if row.family == "solvers":
            try:
                make_plan(path, row.name, "logsnr", steps=6)
            except (FewstepError, TypeError):
                continue
            found.append(row.name)
    return found
