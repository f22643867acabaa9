"""Questions asked together: all questions of a step, and all branches of their guides, as one batch of the network."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.guidance import Branch
from fewstep.shapes import broadcast_shapes

Wanted = tuple[Tensor, Tensor, list[Branch]]


def ask_together(denoiser: Denoiser, wanted: list[Wanted]) -> tuple[list[Tensor], list[list[int]]]:
    """The raw answers to all branches of all questions, asked as one batch.

    Args:
        denoiser: the model.
        wanted: (state, what the network is told, branches) of each question; all states of one shape.

    Returns:
        (answers, for each question the place of each branch among them); equal branches of a question are asked once.
    """
    asked: list[tuple[Tensor, Tensor, Branch]] = []
    entered: list[tuple[Branch, int]] = []
    places: list[list[int]] = []
    for x, told, branches in wanted:
        begin = len(asked)
        places.append([])
        for branch in branches:
            place = next((i for i in range(begin, len(asked)) if asked[i][2].same(branch)), len(asked))
            if place == len(asked):
                asked.append((x, told, branch))
            places[-1].append(place)
            entered.append((branch, place))
    count, rows = len(asked), len(asked[0][0])
    with ExitStack() as stack:
        for branch, place in entered:
            if branch.within is not None:
                stack.enter_context(branch.within(slice(place * rows, (place + 1) * rows)))
        if count == 1:
            x, told, branch = asked[0]
            return [denoiser.raw(x, told, **branch.cond)], places
        merged = {key: _merge([b.cond[key] for _, _, b in asked], rows) for key in asked[0][2].cond}
        raw = denoiser.raw(torch.cat([x for x, _, _ in asked]), _told(asked, len(wanted)), **merged)
    return list(raw.chunk(count)), places


def _told(asked: list[tuple[Tensor, Tensor, Branch]], questions: int) -> Tensor:
    """What the network is told of a batch: one time for all where there is one question, else a time a row."""
    x, told, _ = asked[0]
    if questions == 1:
        return told.repeat(len(asked), *[1] * (told.ndim - 1)) if told.ndim and len(told) == len(x) else told
    each = [t.reshape(*[1] * (x.ndim - t.ndim), *t.shape) for _, t, _ in asked]
    place = broadcast_shapes(*(t.shape[1:] for t in each))
    return torch.cat([t.expand(len(x), *place) for t in each])


def _merge(values: list[Any], rows: int) -> Any:
    if not any(isinstance(v, Tensor) for v in values):
        return values[0]
    like = next(v for v in values if isinstance(v, Tensor))
    return torch.cat([as_rows(v, like, rows) for v in values])


def as_rows(value: Any, like: Any, rows: int) -> Any:
    """A condition with one entry a row, as `like` has them; what is not numbers for a tensor stays as it is."""
    if not isinstance(like, Tensor):
        return value
    return (value if isinstance(value, Tensor) else torch.full_like(like, value)).expand(rows, *like.shape[1:])
