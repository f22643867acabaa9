"""Sets of samples as checked float64 rows, and their squared distances by blocks.

    ‖x − y‖² = ‖x‖² + ‖y‖² − 2 x·y,      good to about 10⁻¹⁴ of ‖x‖² + ‖y‖².

A set is (n, …), one sample a row; every metric flattens the rest to d numbers.  Metrics are numbers to read: they carry
no gradient.
"""

import operator
from collections.abc import Iterator

import torch
from torch import Tensor

from fewstep.errors import ArgumentError

# Numbers in one block of pairs: 32 MiB in float64.
BLOCK = 2**22


def finite(name: str, value: object) -> Tensor:
    """The argument as float64 on its own device, without its gradient.

    Args:
        name: what the caller calls it.
        value: a real tensor of any shape.

    Raises:
        ArgumentError: it is not a real tensor, or holds NaN or infinity.
    """
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.is_complex():
        raise ArgumentError(f"{name} must be real, got {value.dtype}")
    value = value.detach().double()
    if not bool(value.isfinite().all()):
        raise ArgumentError(f"{name} must be finite, but holds NaN or infinity")
    return value


def rows(name: str, value: object, least: int = 2) -> Tensor:
    """The samples as float64 (n, d).

    Args:
        name: what the caller calls them.
        value: a real tensor (n, …).
        least: the fewest samples that are allowed.

    Raises:
        ArgumentError: not a finite real tensor, fewer than `least` samples, or samples without numbers.
    """
    value = finite(name, value)
    if value.ndim == 0 or len(value) < least or value.numel() == 0:
        raise ArgumentError(f"{name} must be (n, …) with n at least {least}, got shape {tuple(value.shape)}")
    return value.reshape(len(value), -1)


def row_pair(names: tuple[str, str], a: object, b: object, least: int = 2) -> tuple[Tensor, Tensor]:
    """Two sets of samples as float64 (n, d) and (m, d), on one device.

    Args:
        names: what the caller calls them.
        a: a real tensor (n, …).
        b: a real tensor (m, …); its samples hold as many numbers as those of `a`.
        least: the fewest samples that are allowed in either.

    Raises:
        ArgumentError: one of them is refused by `rows`, or their dimensions or devices differ.
    """
    left, right = rows(names[0], a, least), rows(names[1], b, least)
    same_place(names, left, right)
    if left.shape[1] != right.shape[1]:
        raise ArgumentError(
            f"{names[0]} and {names[1]} must have the same dimension, got {left.shape[1]} and {right.shape[1]}"
        )
    return left, right


def same_place(names: tuple[str, str], a: Tensor, b: Tensor) -> None:
    """Refuse two tensors that lie on different devices."""
    if a.device != b.device:
        raise ArgumentError(f"{names[0]} and {names[1]} must be on one device, got {a.device} and {b.device}")


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """The argument as an int of at least `least` and, where there is a `most`, at most that.

    Raises:
        ArgumentError: it is not an integer, or out of its range.
    """
    allowed = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentError(f"{name} must be {allowed}, got {value!r}") from None
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise ArgumentError(f"{name} must be {allowed}, got {value!r}")
    return number


def blocks(n: int, m: int) -> Iterator[slice]:
    """Slices of n rows such that each, against m others, is at most BLOCK pairs."""
    size = max(1, BLOCK // m)
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances, (n, m); most exact where x (n, d) and y (m, d) lie around the origin."""
    return torch.addmm(x.square().sum(1)[:, None] + y.square().sum(1), x, y.T, alpha=-2).clamp_(min=0)
