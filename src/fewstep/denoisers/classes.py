"""The classes of a model: the condition whose null is a whole number, which is how many classes there are."""

from collections.abc import Sequence

from fewstep.denoisers.base import Denoiser
from fewstep.errors import ArgumentError


def classes_of(denoiser: Denoiser) -> tuple[str, int] | None:
    """(the condition's name, how many classes); None for a model without classes."""
    counts = ((name, null) for name, null in denoiser.null.items() if isinstance(null, int) and null > 0)
    return next(counts, None)


def labelled(denoiser: Denoiser, n: int, labels: Sequence[int] | None = None) -> dict[str, list[int]] | None:
    """What `sample` takes as cond for n samples, of which sample i has class labels[i mod len(labels)].

    Args:
        denoiser: the model.
        n: how many samples.
        labels: classes from 0; all in turn unless given.

    Raises:
        ArgumentError: the model has no such class.
    """
    classes = classes_of(denoiser)
    if classes is None:
        if labels is not None:
            raise ArgumentError(f"this model has no classes, got the label {', '.join(map(str, labels))}")
        return None
    name, count = classes
    turn = range(count) if labels is None else labels
    for label in turn:
        if not 0 <= label < count:
            raise ArgumentError(f"this model has the classes 0 to {count - 1}, got {label}")
    return {name: [turn[i % len(turn)] for i in range(n)]}
