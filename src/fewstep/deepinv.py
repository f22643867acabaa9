"""deepinv's denoisers as ours, and ours as theirs.

Their denoiser answers x̂₀ = D(y, σ) for y = x₀ + σ·ε with pictures in [0, 1].  Ours has a path, and data in its limits
(low, high).  With r = high − low, the state of ours that says the same is

    x = α(t)·(low + r·y),      r·σ = σ(t)/α(t),      D(y, σ) = (x̂₀(x, t) − low)/r.

Nothing of deepinv is imported: its protocol is a call.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.paths import VE, Path


class _Theirs(Denoiser):
    """D(y, σ) as a denoiser of ours."""

    def __init__(self, model: Callable[..., Tensor], path: Path, shape: tuple[int, ...], **fields: Any) -> None:
        super().__init__(path, shape, **fields)
        self.net = model

    def told(self, t: Tensor) -> Tensor:
        if bool((self.path.alpha(t) <= 0).any()):
            raise ArgumentError("a denoiser of deepinv knows no σ where α = 0: start the grid below t = 1")
        return t

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        alpha, sigma = (v.to(x.dtype) for v in (self.path.alpha(told), self.path.sigma(told)))
        low, high = self.limits
        r = high - low
        level = (sigma / alpha / r).expand(len(x), *[1] * (x.ndim - 1)).reshape(len(x))
        out = self.net((x / alpha - low) / r, level, **cond)
        if out.shape != x.shape:
            raise ArgumentError(f"the denoiser answered with shape {tuple(out.shape)} to a picture of {tuple(x.shape)}")
        return low + r * out


def from_deepinv(
    model: Callable[..., Tensor],
    shape: tuple[int, ...],
    path: Path | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> Denoiser:
    """A denoiser of deepinv, or anything called as one, as a denoiser of ours.

    Args:
        model: model(y, sigma) → x̂₀; y (batch, *shape) in [0, 1], sigma (batch,) in its units.
        shape: the shape of one picture.
        path: the path that it is to live on, α above 0 wherever it is asked; VE() unless given.
        limits: the range of our data that stands for theirs.

    Raises:
        ArgumentError: a model that cannot be called, or limits that are no range.
    """
    if not callable(model):
        raise ArgumentError(f"model must be callable as model(y, sigma), got {type(model).__name__}")
    if not limits[0] < limits[1]:
        raise ArgumentError(f"limits must be (low, high) with low < high, got {limits}")
    return _Theirs(model, VE() if path is None else path, tuple(shape), limits=limits)


class _Ours(nn.Module):
    """A denoiser of ours as D(y, σ)."""

    def __init__(self, denoiser: Denoiser, cond: Mapping[str, Any]) -> None:
        super().__init__()
        self.denoiser, self.cond = denoiser, dict(cond)
        # So that theirs finds the weights: its optimisers and its .to(device).
        network = getattr(denoiser, "net", None)
        self.network = network if isinstance(network, nn.Module) else None

    def forward(self, y: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
        """x̂₀ in [0, 1] of y = x₀ + σ·ε; sigma is a number, or one a picture."""
        denoiser, path = self.denoiser, self.denoiser.path
        if tuple(y.shape[1:]) != denoiser.shape:
            raise ArgumentError(f"y must have shape (batch, *{denoiser.shape}), got {tuple(y.shape)}")
        level = torch.as_tensor(sigma, dtype=torch.float64, device=y.device).reshape(-1)
        if len(level) not in (1, len(y)) or not bool((level >= 0).all()):
            raise ArgumentError(f"sigma must be a number of at least 0 or one a picture, got {sigma!r}")
        low, high = denoiser.limits
        r = high - low
        level = level.reshape(-1, *[1] * (y.ndim - 1)) if len(level) > 1 else level[0]
        t = path.t_of_lam(-(r * level).log())
        x = path.alpha(t).to(y.dtype) * (low + r * y)
        return (denoiser(x, t, **{**self.cond, **cond}) - low) / r


def to_deepinv(denoiser: Denoiser, cond: Mapping[str, Any] | None = None) -> nn.Module:
    """A denoiser of ours, flow models included, as a denoiser of deepinv.

    Args:
        denoiser: the model.
        cond: what its network is told beside; one row for all pictures.

    Returns:
        A module called as D(y, sigma), pictures in [0, 1].

    Raises:
        ArgumentError: not a denoiser.
    """
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    return _Ours(denoiser, cond or {})
