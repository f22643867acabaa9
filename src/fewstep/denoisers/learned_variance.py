"""Denoisers that also say how much noise a step back should draw.

A step from t back to t′ < t follows the posterior q(x′ | x, x₀), with α_{t|t′} = α/α′ and β = σ² − (α/α′)²σ′²,

    mean = (α_{t|t′}σ′²/σ²)·x + (α′β/σ²)·x₀,      variance β̃ = βσ′²/σ².

The best variance with x̂₀ in x₀'s place lies between β̃ and, for data of variance up to 1, β, which a network of Nichol
& Dhariwal (2021) tells for every element by a second output v:

    Σ = exp(v·log β + (1 − v)·log β̃).
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from fewstep.denoisers.base import Denoiser
from fewstep.denoisers.wrapped import Time, wrap
from fewstep.errors import ArgumentError
from fewstep.paths import Path


class Posterior(NamedTuple):
    """q(x′ | x, x₀) from t back to t′: mean = on_x·x + on_x0·x₀, variance `small` = β̃; `large` = β."""

    on_x: Tensor
    on_x0: Tensor
    small: Tensor
    large: Tensor


def step_posterior(path: Path, t: Tensor, t_next: Tensor) -> Posterior:
    """The posterior of a step from t back to t_next < t; float64 of their shape."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    alpha_next, sigma_next = path.alpha(t_next), path.sigma(t_next)
    ratio = alpha / alpha_next
    large = sigma**2 - ratio**2 * sigma_next**2
    share = sigma_next**2 / sigma**2
    return Posterior(ratio * share, alpha_next * large / sigma**2, large * share, large)


class VarianceDenoiser(Denoiser):
    """A denoiser with a second answer, from which the variance of any step back follows."""

    @abstractmethod
    def both(self, x: Tensor, told: Tensor, **cond: Any) -> tuple[Tensor, Tensor]:
        """The network's prediction and its second answer, both of x's shape."""

    @abstractmethod
    def log_variance(self, second: Tensor, t: Tensor, t_next: Tensor, floor: Tensor | float = 0.0) -> Tensor:
        """log Σ of the step from t back to t_next, of the shape of `second`.

        Args:
            second: (batch, *shape), the second answer at t.
            t, t_next: times that broadcast against it, t > t_next.
            floor: what stands for β̃ where it is smaller, as it is 0 on the step to clean data.
        """

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        """The network's prediction alone."""
        return self.both(x, told, **cond)[0]


class TwoHeaded(VarianceDenoiser):
    """A network with twice the channels as a denoiser that tells variances; made by `wrap_with_variance`."""

    def __init__(self, net: Callable[..., Tensor], time: Time, **fields: Any) -> None:
        super().__init__(**fields)
        self.net, self._plain = net, wrap(net, time=time, **fields)

    def told(self, t: Tensor) -> Tensor:
        return self._plain.told(t)

    def both(self, x: Tensor, told: Tensor, **cond: Any) -> tuple[Tensor, Tensor]:
        dtype = self._plain.dtype or x.dtype
        time = told.to(dtype)
        while time.ndim > 1 and time.shape[-1] == 1:
            time = time[..., 0]
        out = self.net(x.to(dtype), time.expand(len(x), *time.shape[1:]), **cond)
        if out.shape != (len(x), 2 * x.shape[1], *x.shape[2:]):
            raise ArgumentError(
                f"a network with variances answers with twice the channels of its state {tuple(x.shape)}, "
                f"got {tuple(out.shape)}"
            )
        answer, second = out.to(x.dtype).chunk(2, 1)
        return answer, second

    def log_variance(self, second: Tensor, t: Tensor, t_next: Tensor, floor: Tensor | float = 0.0) -> Tensor:
        step = step_posterior(self.path, t, t_next)
        low, high = step.small.clamp_min(floor).log(), step.large.log()
        low, high = (value.to(second.device, second.dtype) for value in (low, high))
        return low + (high - low) * (second + 1) / 2


def wrap_with_variance(
    net: Callable[..., Tensor],
    path: Path,
    predicts: str = "eps",
    *,
    shape: tuple[int, ...],
    time: Time = "path",
    null: Mapping[str, Any] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
) -> TwoHeaded:
    """Make a denoiser of a network that learnt its variances.

    Args:
        net: net(x, time, **cond) → (batch, 2·channels, …): the prediction, then o with v = (o + 1)/2.
        path, predicts, shape, time, null, limits: as `fewstep.wrap` takes them.

    Raises:
        ArgumentError: an argument of the wrong kind.
    """
    return TwoHeaded(net, time, path=path, predicts=predicts, shape=tuple(shape), null=null, limits=limits)
