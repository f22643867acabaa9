"""A restoration network net(x, time, y=…) as a denoiser on a bridge x = a·x₀ + b·y + c·ε.

Samplers move z = x − b·y, an ordinary state with α = a and σ = c.  The network is asked at x = z + b·y, and what it
answers, p·x₀ + q·ε + r·y, becomes x̂₀ = A·z + C·(answer − r·y):

    x0, eps, score   x₀, ε, −ε/c               r = 0
    residual         y − x₀                    A = 0,  C = −1,  r = 1
    flow             a′·x₀ + b′·y + c′·ε       r = b′
    velocity         (ac/s)·ε − s·(x₀ − y)     A = a,  C = −s,  r = s = √(1 − a²),  where a + b = 1

Two networks for residual and noise that know nothing of each other give the flow a′(y − R̂) + c′ε̂ of z.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers.base import Denoiser
from fewstep.denoisers.wrapped import Time, Wrapped, wrapped_on
from fewstep.errors import ArgumentError, unknown
from fewstep.noise import KeyedNoise
from fewstep.paths import Bridge

Network = Callable[..., Tensor]
ANSWERS = ("x0", "residual", "eps", "score", "flow", "velocity", "residual+eps")
# What the rest of the library knows these answers as, once y's share is gone.
KNOWN = {"residual": "x0", "velocity": "v", "residual+eps": "flow"}


class Bridged(Denoiser):
    """A restoration network as a denoiser of z; made by `wrap_bridge`.

    The degraded picture is the condition `y` in every call: `sample(…, cond={"y": y})`.
    """

    path: Bridge

    def __init__(self, networks: list[Wrapped], path: Bridge, answers: str, **fields: Any) -> None:
        super().__init__(path, predicts=KNOWN.get(answers, answers), **fields)
        self.networks, self.answers = networks, answers

    def basis(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.answers == "velocity":
            a = self.path.alpha(t)
            return a, -(1 - a**2).clamp(min=0).sqrt()
        return super().basis(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """The networks' answer without y's share, at the state z = `x`; `cond` has `y`, (batch, *shape)."""
        y = cond.get("y")
        if not isinstance(y, Tensor) or y.shape != x.shape:
            found = tuple(y.shape) if isinstance(y, Tensor) else y
            raise ArgumentError(
                f"a bridge needs cond={{'y': a tensor}} of the state's shape {tuple(x.shape)}, got {found}"
            )
        y = y.to(x.dtype)
        seen = x + self.path.shift(told).to(x.dtype) * y
        answers = [net.raw(seen, net.told(told), **{**cond, "y": y}) for net in self.networks]
        if self.answers == "residual":
            return y - answers[0]
        if self.answers == "residual+eps":
            on_data, on_noise = (slope.to(x.dtype) for slope in (self.path.d_alpha(told), self.path.d_sigma(told)))
            return on_data * (y - answers[0]) + on_noise * answers[1]
        if self.answers == "velocity":
            return answers[0] - (1 - self.path.alpha(told) ** 2).clamp(min=0).sqrt().to(x.dtype) * y
        return answers[0] - self.path.d_shift(told).to(x.dtype) * y if self.answers == "flow" else answers[0]

    def start(self, y: Tensor, t: float = 1.0, seed: int = 0, first: int = 0) -> Tensor:
        """z where restoration begins, x_t = y + c(t)·ε: what `sample` takes as `start`.

        Args:
            y: the degraded pictures, (batch, *shape); their dtype and device are used.
            t: the first time of the plan.
            seed, first: as in `sample`, whose own starting noise this is.
        """
        if y.shape[1:] != self.shape or not y.is_floating_point():
            raise ArgumentError(f"y must be floating-point of shape (batch, {self.shape}), got {tuple(y.shape)}")
        noise = KeyedNoise(seed, range(first, first + len(y)), self.shape, y.dtype, y.device).start()
        shift, sigma = (float(value(t)) for value in (self.path.shift, self.path.sigma))
        return (1 - shift) * y + sigma * noise


def wrap_bridge(
    net: Network | tuple[Network, Network],
    path: Bridge,
    predicts: str = "x0",
    *,
    shape: tuple[int, ...],
    time: Time = "path",
    null: Mapping[str, Any] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> Bridged:
    """Make a denoiser of a network that was trained to restore.

    Sample from it with `sample(den, start=den.start(y), cond={"y": y}, …)`.

    Args:
        net: net(x, time, y=y, **cond) → the shape of x; x and y (batch, *shape), time (batch,).  Two of them, for
            residual and noise, for "residual+eps"; both count as one evaluation.
        path: the bridge that it was trained on.
        predicts: what it predicts: "x0", "residual" = y − x₀, "eps", "score", "flow" = dx/dt, "velocity" (of the mean-
            reverting path: the derivative by the angle whose cosine is a), or "residual+eps".
        shape: the shape of one sample.
        time: as in `wrap`; a function of float64 times for more than one number of the path's own.
        null: the conditions that stand for none, for guidance.
        limits: the range of the data.

    Raises:
        ArgumentError: an argument of the wrong kind.
    """
    if not isinstance(path, Bridge):
        raise ArgumentError(f"path must be a bridge such as ResShift() or VPBridge(), got {path!r}; wrap takes others")
    if predicts not in ANSWERS:
        raise unknown("prediction", predicts, ANSWERS)
    nets = list(net) if isinstance(net, tuple) else [net]
    if len(nets) != (2 if predicts == "residual+eps" else 1):
        raise ArgumentError(f"'residual+eps' takes two networks and the others one, got {len(nets)} for {predicts!r}")
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    if predicts == "velocity" and not torch.allclose(path.alpha(t) + path.shift(t), torch.ones_like(t), atol=1e-9):
        raise ArgumentError(f"'velocity' needs a path with a + b = 1, got {path!r}")
    wrapped = [wrapped_on(one, path, "x0", shape, time, None, limits) for one in nets]
    return Bridged(wrapped, path, predicts, shape=tuple(shape), null=null, limits=limits)


def precondition(
    net: Network, path: Bridge, data: float = 0.5, degraded: float = 0.5, covariance: float = 0.0
) -> Network:
    """The x̂₀ network k·x + o·net(i·x, 250·log t, y=y) of a network trained with the bridges' preconditioning.

    With σ₀² and σ_y² the variances and κ the covariance of x₀ and y, v = a²σ₀² + b²σ_y² + 2abκ + c²:

        i = 1/√v,      k = (aσ₀² + bκ)/v,      o = √(b²(σ₀²σ_y² − κ²) + σ₀²c²)/√v.

    Wrap it with `predicts="x0"` and `time="t"` (Zhou et al. 2024, "Denoising Diffusion Bridge Models").

    Args:
        net: the raw network net(x, time, y=y, **cond); time (batch,).
        path: its bridge.
        data, degraded: σ₀ and σ_y, the standard deviations of x₀ and of y.
        covariance: κ, at most their product.
    """
    if not (data > 0 and degraded > 0 and abs(covariance) <= data * degraded):
        raise ArgumentError(
            f"data and degraded must be above 0 and |covariance| at most their product, "
            f"got {data}, {degraded} and {covariance}"
        )

    def believed(x: Tensor, time: Tensor, **cond: Any) -> Tensor:
        t = time.reshape(*time.shape, *[1] * (x.ndim - time.ndim)).double()
        a, b, c = path.alpha(t), path.shift(t), path.sigma(t)
        v = (a * data) ** 2 + (b * degraded) ** 2 + 2 * a * b * covariance + c**2
        keep = ((a * data**2 + b * covariance) / v).to(x.dtype)
        spread = b**2 * ((data * degraded) ** 2 - covariance**2) + (data * c) ** 2
        gain, scale = (spread / v).sqrt().to(x.dtype), v.rsqrt().to(x.dtype)
        level = (250 * torch.log(path.model_time(time.double()) + 1e-44)).to(time.dtype)
        return keep * x + gain * net(scale * x, level, **cond)

    return believed
