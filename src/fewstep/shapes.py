"""Shapes broadcast without `torch.broadcast_shapes`, whose first call imports sympy: most of a first run's time."""

from collections.abc import Sequence

import numpy as np
import torch


def broadcast_shapes(*shapes: Sequence[int]) -> torch.Size:
    """The shape that all of these broadcast to.

    Raises:
        ValueError: they do not fit one another.
    """
    return torch.Size(np.broadcast_shapes(*{tuple(shape) for shape in shapes}))
