"""Factorized diffusion: each linear component of the picture listens to its own condition.

    x̂₀′ = Σᵢ fᵢ(x̂₀(x; cᵢ)),      Σᵢ fᵢ = identity

All answers are one batch.  With fᵢ = aᵢ·identity it is composition, negation or CFG; with low- and high-pass filters a
hybrid picture that changes with the viewing distance; with grey and the rest, one that changes in dim light.  Beside
CFG of scale w each component has its own, x̂₀(∅) + w·Σᵢ fᵢ(x̂₀(cᵢ) − x̂₀(∅)), where the guide's scale is w too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Branch, Guide, coefficient
from fewstep.guidance.sag import blurred

Component = Callable[[Tensor], Tensor]


@method(name="factorized", papers=["Factorized Diffusion: Perceptual Illusions by Noise Decomposition"],
        family="guidance", arxiv="2404.11615")  # fmt: skip
@dataclass(frozen=True)
class Factorized(Guide):
    """Factorized diffusion (Geng et al. 2024): N conditions cost N evaluations a step.

    Args:
        components: f₁ … f_N, linear maps of pictures (batch, *shape) to their shape that sum to the identity.
        conds: the conditions of the components after the first; the run's own conditions are the first's.
        scale: a factor on what the further conditions differ by; 1 alone, and CFG's scale beside CFG.

    With one component the guide is the identity.

    Raises:
        ArgumentError: another count of conditions than of components less one; at the run, components that do not sum
            to the identity.
    """

    level: ClassVar[str] = "network"
    components: Sequence[Component]
    conds: Sequence[Mapping[str, Any]] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        if len(self.components) != len(self.conds) + 1:
            raise ArgumentError(
                f"{len(self.components)} components need {len(self.components) - 1} conditions beside the run's own, "
                f"got {len(self.conds)}"
            )

    def init(self, denoiser: Any, batch: int) -> Any:
        check_components(self.components, denoiser.shape)
        return None

    def extra(self) -> int:
        return len(self.conds)

    def branches(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> list[Branch]:
        return [Branch({**cond, **expanded(other, cond, len(ask.x))}) for other in self.conds]

    def mix(self, ask: Ask, x0: Tensor, main: Tensor, others: list[Tensor], state: Any) -> tuple[Tensor, Any]:
        # What other guides have added to the plain answer stays: only the difference between answers is filtered.
        for component, other in zip(self.components[1:], others, strict=True):
            x0 = x0 + self.scale * component(other - main)
        return x0, state


@method(name="factorized-fixed", papers=["Factorized Diffusion: Perceptual Illusions by Noise Decomposition"],
        family="guidance", arxiv="2404.11615")  # fmt: skip
@dataclass(frozen=True)
class FixedComponent(Guide):
    """Factorized diffusion with one component taken from a given picture, so that the rest is made to fit.

    After every step the component of the state becomes that of the noised picture: x ← x + f(α·x_ref + σ·z − x).

    Args:
        component: f, a linear map of pictures (batch, *shape) to their shape.
        picture: x_ref, (*shape) or (batch, *shape), in the denoiser's range; None leaves the state as it is.

    Raises:
        ArgumentError: a picture that is no tensor; at the run, one of another shape, or a component that changes it.
    """

    level: ClassVar[str] = "state"
    component: Component
    picture: Tensor | None = None

    def __post_init__(self) -> None:
        if self.picture is not None and not isinstance(self.picture, Tensor):
            raise ArgumentError(f"picture must be a tensor or None, got {type(self.picture).__name__}")

    def init(self, denoiser: Denoiser, batch: int) -> Any:
        if self.picture is None:
            return None
        shape = (batch, *denoiser.shape)
        if self.picture.shape not in (shape[1:], (1, *shape[1:]), shape):
            raise ArgumentError(f"picture must be {shape[1:]} or {shape}, got {tuple(self.picture.shape)}")
        return None

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        if self.picture is None:
            return x, state, False
        alpha, sigma = coefficient(ask.path.alpha(ask.t), x), coefficient(ask.path.sigma(ask.t), x)
        noised = alpha * self.picture.to(x.device, x.dtype) + sigma * ask.noise(0)
        change = self.component(noised - x)
        if change.shape != x.shape:
            raise ArgumentError(f"component must give the shape it gets, {tuple(x.shape)}, got {tuple(change.shape)}")
        return x + change, state, False


def expanded(other: Mapping[str, Any], cond: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Conditions as the run has them: a whole number stands for all samples, a list for each."""
    ready = {}
    for key, value in other.items():
        old = cond.get(key)
        if isinstance(old, Tensor) and not isinstance(value, Tensor):
            value = torch.as_tensor(value, dtype=old.dtype, device=old.device).expand(rows)
        ready[key] = value
    return ready


def check_components(components: Sequence[Component], shape: tuple[int, ...]) -> None:
    """Refuse components that do not sum to the identity on random numbers of a shape."""
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error = (sum(f(x) for f in components) - x).abs().max()
    if not error < 1e-6:
        raise ArgumentError(f"the components must sum to the identity; on random numbers they are {error:.2g} off")


def frequency_bands(*deviations: float) -> list[Component]:
    """Low to high bands: G(σ₁), then differences of blurs, and the rest; N deviations give N + 1 bands.

    Args:
        deviations: of the blurs in pixels, falling; the paper's hybrid has one of 2, its triple 2 and 1.

    Raises:
        ArgumentError: none, or not falling.
    """
    if not deviations or list(deviations) != sorted(set(deviations), reverse=True) or deviations[-1] <= 0:
        raise ArgumentError(f"deviations must be positive and falling, got {deviations}")

    def low(x: Tensor, upto: int) -> Tensor:
        for deviation in reversed(deviations[upto:]):
            x = blurred(x, deviation)
        return x

    def band(i: int) -> Component:
        return lambda x: low(x, i) - low(x, i - 1) if i else low(x, 0)

    return [band(i) for i in range(len(deviations) + 1)]


def grey_and_colour() -> list[Component]:
    """The mean of the channels in each, and the rest."""
    return [lambda x: x.mean(1, keepdim=True).expand_as(x), lambda x: x - x.mean(1, keepdim=True)]


def motion_and_rest(length: int = 7) -> list[Component]:
    """A blur along the diagonal over `length` pixels (nothing beyond the border), and the rest.

    Raises:
        ArgumentError: length less than 1.
    """
    if length < 1:
        raise ArgumentError(f"length must be at least 1 pixel, got {length}")

    def blur(x: Tensor) -> Tensor:
        kernel = (torch.eye(length, dtype=x.dtype, device=x.device) / length).expand(x.shape[1], 1, -1, -1)
        return nn.functional.conv2d(x, kernel, groups=x.shape[1], padding="same")

    return [blur, lambda x: x - blur(x)]


def regions(*masks: Tensor) -> list[Component]:
    """Places: mask · x for each mask (1 inside, 0 outside), and the rest."""

    def within(mask: Tensor) -> Component:
        return lambda x: x * mask.to(x.device, x.dtype)

    return [within(mask) for mask in (*masks, 1 - torch.stack(masks).sum(0))]
