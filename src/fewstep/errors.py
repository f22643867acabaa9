"""Every error that fewstep raises on purpose: what it was, what is allowed, what to do."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class FewstepError(Exception):
    """The base of all errors of fewstep; catching it catches every refusal of ours and nothing else."""


class ArgumentError(FewstepError, ValueError):
    """An argument of a public call is out of its range, of the wrong shape, or unknown."""


class PlanError(FewstepError, ValueError):
    """A plan is inconsistent: it does not land where its path says, or its table is not well formed."""


class WeightsError(FewstepError, ValueError):
    """A weight file is not a whole, finite safetensors file of a model that we know."""


class NumericalError(FewstepError, ArithmeticError):
    """The network answered with NaN or Inf; the message names the first bad step.

    Args:
        message: what happened.
        state: the last good state, (batch, *shape), where every step was looked at (`debug=True`).
    """

    def __init__(self, message: str, state: "Tensor | None" = None) -> None:
        super().__init__(message)
        self.state = state


class StorageError(FewstepError, OSError):
    """A folder cannot be written, is in use, or does not hold what it should; the message names the file."""


class ResourceError(FewstepError, RuntimeError):
    """The machine has too little memory for a single sample, or its workers die again and again."""


class MissingExtraError(FewstepError, ImportError):
    """An optional library is missing; the message names the extra that brings it."""


def unknown(what: str, name: object, known: Iterable[str]) -> ArgumentError:
    """An error for a name that is not known, with the nearest known names.

    Args:
        what: what was asked for, as in "solver".
        name: the name as it was given.
        known: the names that are allowed.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(names)}."
    return ArgumentError(f"unknown {what} {name!r}; {hint}")


def some_of(rows: list[int], total: int) -> str:
    """The first of the rows that something is wrong with, and how many they are of all."""
    return f"{rows[:8]}{' …' if len(rows) > 8 else ''} ({len(rows)} of {total})"


def not_finite(
    values: "Tensor | None",
    what: str = "the samples",
    *,
    answer: str = "",
    why: str = "",
    state: "Tensor | None" = None,
) -> NumericalError:
    """An error for NaN or Inf, with the rows that hold it and, of an answer, which it was.

    Args:
        values: (batch, …) on any device; None where nobody looked at more than the answer.
        what: what the values are, in the plural.
        answer: which answer of the network was the first to be bad, as in "answer number 3 (timestep 799)".
        why: what else is to be said.
        state: the last good state, for the error to carry.
    """
    rows = "" if values is None else _bad_rows(values)
    said = f"{what} {rows} are not finite"
    if answer:
        said = f"the network's {answer} held NaN or Inf" + (f"; samples not finite: {rows}" if rows else "")
    return NumericalError(said + why, state=state)


def _bad_rows(values: "Tensor") -> str:
    finite = values.detach().isfinite().reshape(len(values), -1)
    rows = (~finite.all(1)).nonzero().flatten().tolist()
    named = some_of(rows, len(values))
    if not rows or finite.shape[1] == 1:
        return named
    return f"{named[:-1]}, {100 * (1 - float(finite[rows].double().mean())):.3g} % of their numbers)"


def require(module: str, extra: str) -> MissingExtraError:
    """An error for an optional library that is not installed.

    Args:
        module: the module that could not be imported.
        extra: the extra of fewstep that brings it.
    """
    return MissingExtraError(f"this needs {module}, which is not installed: pip install 'fewstep[{extra}]'")
