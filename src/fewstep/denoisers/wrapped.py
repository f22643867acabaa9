"""Any network as a denoiser."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import Tensor, nn

from fewstep.denoisers.base import Denoiser
from fewstep.errors import ArgumentError, unknown
from fewstep.paths import PREDICTIONS, Bridge, Path

Time = str | Callable[[Tensor], Tensor]


def conditions_of(net: Callable[..., Any]) -> frozenset[str] | None:
    """The names after x and time that a network can be called with; None where it takes any, or does not say."""
    try:
        named = list(signature(net.forward if isinstance(net, nn.Module) else net).parameters.values())[2:]
    except (TypeError, ValueError):
        return None
    if any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in named):
        return None
    return frozenset(one.name for one in named if one.kind != one.POSITIONAL_ONLY)


class Wrapped(Denoiser):
    """A network net(x, time, **cond) as a denoiser; made by `wrap`."""

    def __init__(self, net: Callable[..., Tensor], time: Time, **fields: Any) -> None:
        super().__init__(**fields)
        self.net, self.time = net, time
        parameter = next(net.parameters(), None) if isinstance(net, nn.Module) else None
        self.dtype = None if parameter is None else parameter.dtype
        self.takes = conditions_of(net)

    def told(self, t: Tensor) -> Tensor:
        if callable(self.time):
            return self.time(t)
        if self.time == "t":
            return t
        if self.time == "sigma":
            return self.path.sigma(t)
        return self.path.lam(t) if self.time == "lambda" else self.path.model_time(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        dtype = self.dtype or x.dtype
        time = told.to(dtype)
        while time.ndim > 1 and time.shape[-1] == 1:
            time = time[..., 0]
        if cond and self.takes is not None and not cond.keys() <= self.takes:
            name = min(cond.keys() - self.takes)
            if not self.takes:
                raise ArgumentError(f"this network takes no conditions, got {name!r}")
            raise unknown("condition", name, self.takes)
        out = self.net(x.to(dtype), time.expand(x.shape[0], *time.shape[1:]), **cond)
        if not isinstance(out, Tensor):
            raise ArgumentError(
                f"the network must answer with a tensor, got {type(out).__name__}: wrap a function that takes it out, "
                "such as lambda x, time, **cond: net(x, time, **cond)[0]"
            )
        if out.shape != x.shape:
            raise ArgumentError(f"the network answered with shape {tuple(out.shape)} to a state of {tuple(x.shape)}")
        return out.to(x.dtype)


def wrap(
    net: Callable[..., Tensor],
    path: Path,
    predicts: str = "eps",
    *,
    shape: tuple[int, ...],
    time: Time = "path",
    null: Mapping[str, Any] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> Wrapped:
    """Make a denoiser of a network.

    Args:
        net: net(x, time, **cond) → the shape of x; x (batch, *shape), time (batch,).
        path: the path that it was trained on.
        predicts: what it predicts: "x0", "eps", "v" = αε − σx₀, "flow" = α′x₀ + σ′ε or "score".
        shape: the shape of one sample.
        time: what it is told: "path" (the index for `VP.from_betas`, σ for `VE`, else t), "t", "sigma", "lambda", or
            a function of float64 times.
        null: the conditions that stand for none, for guidance.
        limits: the range of the data.

    Raises:
        ArgumentError: an argument of the wrong kind, or a bridge, whose networks `wrap_bridge` takes.
    """
    if isinstance(path, Bridge):
        raise ArgumentError(
            f"{type(path).__name__} is a bridge, whose network also sees the degraded picture y: "
            "use fewstep.wrap_bridge(net, path, …)"
        )
    return wrapped_on(net, path, predicts, shape, time, null, limits)


def wrapped_on(
    net: Callable[..., Tensor],
    path: Path,
    predicts: str,
    shape: tuple[int, ...],
    time: Time,
    null: Mapping[str, Any] | None,
    limits: tuple[float, float],
) -> Wrapped:
    """`wrap` on any path, bridges included; the arguments are those of `wrap`."""
    if not callable(net):
        raise ArgumentError(f"net must be callable as net(x, time, **cond), got {type(net).__name__}")
    if not isinstance(path, Path):
        raise ArgumentError(f"path must be a path such as VP() or Flow(), got {path!r}")
    if predicts not in PREDICTIONS:
        raise unknown("prediction", predicts, PREDICTIONS)
    times = ["path", "t", "sigma", "lambda"]
    if not callable(time) and time not in times:
        raise unknown("time", time, times)
    if not isinstance(shape, (tuple, list)) or not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ArgumentError(f"shape must be a tuple of positive integers, got {shape!r}")
    if null is not None and not isinstance(null, Mapping):
        raise ArgumentError(f"null must name the conditions that stand for none, such as {{'label': 10}}, got {null!r}")
    pair = isinstance(limits, (tuple, list)) and len(limits) == 2 and all(isinstance(v, (int, float)) for v in limits)
    if not pair or not limits[0] < limits[1]:
        raise ArgumentError(f"limits must be (low, high) with low below high, got {limits!r}")
    return Wrapped(net, time, path=path, shape=tuple(shape), predicts=predicts, null=null, limits=limits)
