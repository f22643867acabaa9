"""Empirical model statistics: how a network's answers change along its flow, as three functions of λ.

With J = ∂ε̂/∂x, v of random signs, f = (σε̂ − l·x)/α and ḟ = df/dλ along the flow, element by element and over x drawn
from the path's marginals,

    l = E[v ∘ (σ Jᵀv)],      s = (E[f ḟ] − E f E ḟ)/(E f² − (E f)²),      b = E ḟ − s·E f:

l is the linear part of σε̂, and s·f + b the line nearest to ḟ.  For Gaussian data of variance c they are known,
l = 1/(1 + c·e^{2λ}), s = −2(1 − l), b = 0, whatever the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fewstep.atomic import write_atomically
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, WeightsError
from fewstep.shapes import broadcast_shapes

# Where f varies less than this share of its square there is no line to fit: s = 0.
FLAT = 1e-6
STEP = 1e-3


@dataclass(frozen=True, eq=False)
class ModelStatistics:
    """l, s and b on a grid of λ, linear between its points and constant beyond them.

    Args:
        lam: float64 (points,), rising.
        l, s, b: float64 (points, *place), where `place` broadcasts against one sample; () for one number each.

    Raises:
        ArgumentError: shapes that differ, numbers that are not finite, or λ that does not rise.
    """

    lam: Tensor
    l: Tensor  # noqa: E741 - the paper's letter
    s: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        shapes = {tuple(v.shape) for v in (self.l, self.s, self.b)}
        if self.lam.ndim != 1 or len(self.lam) < 2 or len(shapes) > 1 or len(self.l) != len(self.lam):
            raise ArgumentError(
                f"lam must be (points,) and l, s, b (points, *place), got {self.lam.shape} and {shapes}"
            )
        if not all(bool(v.isfinite().all()) for v in (self.lam, self.l, self.s, self.b)):
            raise ArgumentError("lam, l, s and b must be finite")
        if not bool((self.lam[1:] > self.lam[:-1]).all()):
            raise ArgumentError("lam must rise")

    @property
    def place(self) -> tuple[int, ...]:
        """The shape of each of l, s and b at one λ."""
        return tuple(self.l.shape[1:])

    def at(self, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(l, s, b) at λ (m, *place′), each of the shape (m, *broadcast of both places)."""
        place = broadcast_shapes(self.place, lam.shape[1:])
        lam = lam.reshape(len(lam), *[1] * (len(place) - lam.ndim + 1), *lam.shape[1:]).contiguous()
        low = (torch.searchsorted(self.lam, lam, right=True) - 1).clamp(0, len(self.lam) - 2)
        share = ((lam - self.lam[low]) / (self.lam[low + 1] - self.lam[low])).clamp(0, 1)
        low = low.expand(len(lam), *place)

        def between(table: Tensor) -> Tensor:
            table = table.reshape(len(table), *[1] * (len(place) - len(self.place)), *self.place)
            table = table.expand(len(table), *place)
            return torch.lerp(table.gather(0, low), table.gather(0, low + 1), share)

        return between(self.l), between(self.s), between(self.b)

    def save(self, path: str) -> None:
        """Write them to a safetensors file."""
        write_atomically(path, save({name: getattr(self, name).contiguous() for name in ("lam", "l", "s", "b")}))

    @staticmethod
    def load(path: str) -> "ModelStatistics":
        """The statistics in a safetensors file.

        Raises:
            WeightsError: the file is not whole, or not of such statistics.
        """
        try:
            tensors = load_file(path)
            if set(tensors) != {"lam", "l", "s", "b"}:
                raise WeightsError(f"{path} holds {sorted(tensors)}, model statistics are lam, l, s and b")
            return ModelStatistics(**{name: tensor.double() for name, tensor in tensors.items()})
        except (OSError, SafetensorError, ArgumentError) as error:
            raise WeightsError(f"cannot read the model statistics {path}: {error}") from error


@dataclass(frozen=True)
class GaussianStatistics:
    """The statistics of Gaussian data, in closed form.

    Args:
        variance: c of each element, more than 0.

    Raises:
        ArgumentError: a variance that is not.
    """

    variance: float

    def __post_init__(self) -> None:
        if not 0 < self.variance < float("inf"):
            raise ArgumentError(f"variance must be more than 0 and finite, got {self.variance!r}")

    @property
    def place(self) -> tuple[int, ...]:
        """One number each."""
        return ()

    def at(self, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(l, s, b) at λ, of its shape."""
        linear = 1 / (1 + self.variance * torch.exp(2 * lam))
        return linear, -2 * (1 - linear), torch.zeros_like(lam)


def estimate_statistics(
    denoiser: Denoiser,
    data: Tensor,
    lam: Sequence[float] = (-5.0, 5.0),
    points: int = 120,
    seed: int = 0,
    elementwise: bool = True,
    **cond: object,
) -> ModelStatistics:
    """Estimate a denoiser's statistics on data; four evaluations and one gradient a point and batch.

    Args:
        denoiser: any whose answer is differentiable in x.
        data: (samples, *shape), clean; at least 2, as published 1,024 to 4,096.
        lam: the least and the largest λ.
        points: the number of points between them, at least 3.
        seed: of the noise and the signs.
        elementwise: l, s and b for each element as published; one number each if not.
        cond: the denoiser's conditions.

    Raises:
        ArgumentError: an argument out of its range.
    """
    if data.shape[1:] != denoiser.shape or len(data) < 2:
        raise ArgumentError(f"data must be at least 2 samples of the shape {denoiser.shape}, got {tuple(data.shape)}")
    if points < 3 or not lam[0] < lam[1]:
        raise ArgumentError(f"points must be at least 3 and lam rise, got {points} and {tuple(lam)}")
    grid = torch.linspace(lam[0], lam[1], points, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(data.shape, dtype=data.dtype, generator=generator).to(data.device)
    signs = torch.randint(0, 2, data.shape, generator=generator).to(data) * 2 - 1
    pooled = (0,) if elementwise else tuple(range(data.ndim))
    marginals = _Marginals(denoiser, data, noise, cond)
    linear = torch.stack([marginals.linear(at, signs).mean(pooled) for at in grid])
    slope = torch.gradient(linear, spacing=(grid,), dim=0)[0]
    fits = [_line(*marginals.change(*row), pooled) for row in zip(grid, linear, slope, strict=True)]
    s, b = (torch.stack(column) for column in zip(*fits, strict=True))
    return ModelStatistics(grid, linear, s, b)


@dataclass(frozen=True)
class _Marginals:
    """Samples of every marginal of a denoiser's path, with the same data and noise at each λ."""

    denoiser: Denoiser
    data: Tensor
    noise: Tensor
    cond: dict[str, object]

    def _eps(self, x: Tensor, lam: Tensor) -> Tensor:
        t = self.denoiser.path.t_of_lam(lam)
        alpha, sigma = float(self.denoiser.path.alpha(t)), float(self.denoiser.path.sigma(t))
        return (x - alpha * self.denoiser(x, t, **self.cond)) / sigma

    def _levels(self, lam: Tensor) -> tuple[float, float]:
        t = self.denoiser.path.t_of_lam(lam)
        return float(self.denoiser.path.alpha(t)), float(self.denoiser.path.sigma(t))

    def linear(self, lam: Tensor, signs: Tensor) -> Tensor:
        """v ∘ (σ Jᵀv) of each sample, float64."""
        alpha, sigma = self._levels(lam)
        with torch.enable_grad():
            x = (alpha * self.data + sigma * self.noise).requires_grad_()
            (pulled,) = torch.autograd.grad(self._eps(x, lam), x, signs)
        return (sigma * signs * pulled).double()

    @torch.no_grad()
    def change(self, lam: Tensor, linear: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """(f, ḟ) of each sample, float64; the flow is followed a little both ways, x/α moving by −e^{−λ}ε̂ dλ."""
        alpha, sigma = self._levels(lam)
        x = alpha * self.data + sigma * self.noise
        eps = self._eps(x, lam)
        ends = []
        for step in (STEP, -STEP):
            there = self._levels(lam + step)[0]
            ends.append(self._eps(there / alpha * (x - step * sigma * eps), lam + step))
        change = (ends[0] - ends[1]).double() / (2 * STEP)
        x, eps, rho = x.double(), eps.double(), sigma / alpha
        return rho * eps - linear * x / alpha, rho * ((linear - 1) * eps + change) - slope * x / alpha


def _line(f: Tensor, change: Tensor, pooled: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """s and b of the line s·f + b nearest to the change of f."""
    mean, drift = f.mean(pooled), change.mean(pooled)
    variance = (f * f).mean(pooled) - mean**2
    fits = variance > FLAT * (f * f).mean(pooled)
    slope = torch.where(fits, ((f * change).mean(pooled) - mean * drift) / torch.where(fits, variance, 1.0), 0.0)
    return slope, drift - slope * mean
