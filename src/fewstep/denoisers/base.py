"""What the network believes: x̂₀ = E[x₀ given x_t].

A denoiser is a raw network and an affine map: x̂₀ = A(t)·x + C(t)·raw, with A and C from the path's change of basis, so
that a program can fold the map into a plan's coefficients.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.paths import Path, change_of_basis


class Denoiser(ABC):
    """x̂₀ = denoiser(x, t, **cond), the shape of x.

    Args:
        path: the path on which x lies.
        shape: the shape of one sample.
        predicts: what `raw` answers: "x0", "eps", "v", "flow" or "score".
        null: the conditions that stand for none, as guidance needs them.
        limits: the range (low, high) of the data.

    `name` is that of the shipped model that it is, "owner/name@commit" of one from the hub, or empty.
    """

    name = ""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        predicts: str = "x0",
        null: Mapping[str, Any] | None = None,
        limits: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        self.path, self.shape, self.predicts = path, tuple(shape), predicts
        self.null, self.limits = dict(null or {}), limits

    @property
    def latent(self) -> bool:
        """Whether the state is a code of the picture, and not the picture itself."""
        return False

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """The shape of what `decode` makes of one state."""
        return self.shape

    def encode(self, pictures: Tensor) -> Tensor:
        """The states of pictures (batch, *picture_shape); themselves unless the model is latent."""
        return pictures

    def decode(self, state: Tensor) -> Tensor:
        """The pictures of states (batch, *shape); themselves unless the model is latent."""
        return state

    @abstractmethod
    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """The network's own answer at state x, told what `told` gave for its time."""

    def told(self, t: Tensor) -> Tensor:
        """What the network is told for the times t (float64); the times themselves unless a network is used to else."""
        return t

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(A, C) with x̂₀ = A·x + C·raw at times t; float64."""
        return change_of_basis(self.path, t, self.predicts, "x0")

    def __call__(self, x: Tensor, t: Tensor | float, **cond: Any) -> Tensor:
        """The believed clean data.

        Args:
            x: (batch, *shape), the state.
            t: a number, or a tensor that broadcasts against x.
            cond: conditions, as the network names them.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        a, c = (v.to(x.dtype) for v in self.basis(t))
        raw = self.raw(x, self.told(t), **cond)
        return raw if self.predicts == "x0" else a * x + c * raw
