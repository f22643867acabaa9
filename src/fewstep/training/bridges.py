"""Training of a restoration network on a bridge: E‖net(a·x₀ + b·y + c·ε, λ, y) − target‖², y the degraded x₀.

    target      x0, eps, residual = y − x₀, flow = a′x₀ + b′y + c′ε, velocity = (ac/s)·ε − s·(x₀ − y), s = √(1 − a²),
                residual and eps side by side, or, balanced, (x₀ − k·x)/o with the k and o of `precondition`
    t           uniform over the nodes of a path that has them, else over the times with λ ≤ 7
    perceptual  where asked, and so much of E‖f(net) − f(x₀)‖² too, f the features of a classifier (Yue et al. 2024)
    y           A(x₀), or A†(A(x₀)) where A changes the shape, and noise where asked

AdamW; the rate rises over 500 steps and then falls as a cosine to 0. `trainer` takes the steps.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.denoisers.bridged import balance
from fewstep.errors import ArgumentError, unknown
from fewstep.networks.bridged import MOST
from fewstep.networks.features import Features, load_features
from fewstep.paths import RDDM, Bridge, from_json
from fewstep.paths.bridge import NodeBridge
from fewstep.restoration.from_picture import degradation
from fewstep.training.adamw import AdamWTask
from fewstep.training.batch import answer, first_draws
from fewstep.training.config import BridgeConfig

CHUNK = 1000
TARGETS = ("x0", "residual", "eps", "flow", "velocity", "residual+eps")


def degraded(x0: Tensor, degrade: str) -> Tensor:
    """The degraded pictures of x₀ without noise, of its shape: A(x₀), or A†(A(x₀)) where A changes the shape.

    Args:
        x0: (batch, channels, height, width), in [−1, 1].
        degrade: "kind" or "kind:number", such as "downsample:4" or "blur:1.5".

    Raises:
        ArgumentError: the degradation is unknown or does not fit the pictures.
    """
    operator = degradation(degrade, x0.shape[-2], x0.shape[-1])
    seen = operator.A(x0)
    return seen if seen.shape == x0.shape else operator.A_dagger(seen).to(x0.dtype)


def bridge_of(config: BridgeConfig) -> Bridge:
    """The path that a run trains on; of one that visits some of its levels, all of them.

    Raises:
        ArgumentError: it is no bridge.
    """
    path = from_json(config.path)
    if not isinstance(path, Bridge):
        raise ArgumentError(f"a network of kind 'bridged' is trained on a bridge, got the path {config.path}")
    return replace(path, visits=path.steps) if isinstance(path, RDDM) else path


def times(path: Bridge, count: int, generator: torch.Generator) -> Tensor:
    """Times to train on, float64 (count,)."""
    if isinstance(path, NodeBridge):
        nodes = len(path.nodes()[0]) - 1
        return (torch.randint(nodes, (count,), generator=generator).double() + 1) / nodes
    least = path.t_of_lam(MOST)
    return least + (1 - least) * torch.rand(count, dtype=torch.float64, generator=generator)


def moments(config: BridgeConfig, images: Tensor) -> tuple[float, float, float]:
    """(σ₀, σ_y, κ) of pictures and degraded ones about 0, each the root or mean of a product over all numbers."""
    sums = torch.zeros(3, dtype=torch.float64)
    for part in images.split(CHUNK):
        x0 = part.double() / 127.5 - 1
        y = degraded(x0, config.degrade)
        sums += torch.stack([x0.square().sum(), y.square().sum(), (x0 * y).sum()])
    data, seen, covariance = (sums / images.numel()).tolist()
    return data**0.5, (seen + config.noise**2) ** 0.5, covariance


def target(path: Bridge, predicts: str, t: Tensor, x0: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """What the network should answer at times t that broadcast against x₀; two answers stand along the channels.

    Raises:
        ArgumentError: no such prediction can be trained.
    """
    if predicts == "flow":
        return path.d_alpha(t) * x0 + path.d_shift(t) * y + path.d_sigma(t) * noise
    if predicts == "velocity":
        rest = (1 - path.alpha(t) ** 2).sqrt()
        return path.alpha(t) * path.sigma(t) / rest * noise - rest * (x0 - y)
    plain = {"x0": x0, "eps": noise, "residual": y - x0, "residual+eps": torch.cat([y - x0, noise], 1)}
    if predicts not in plain:
        raise unknown("prediction", predicts, TARGETS)
    return plain[predicts]


@cache
def _features(name: str, device: str) -> Features:
    return load_features(name, device)


@dataclass(frozen=True)
class Restoring(AdamWTask):
    """The task of a restoration network, see `trainer.Task`.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,); the network is not told them.

    Raises:
        ArgumentError: the path is no bridge, the network's answers are not what it predicts, the pictures cannot be
            degraded so, or the classifier of a perceptual loss looks at others.
    """

    config: BridgeConfig
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        config, wanted = self.config, 2 if self.config.predicts == "residual+eps" else 1
        if config.network.get("answers", 1) != wanted:
            raise ArgumentError(f"{config.predicts!r} takes a network with answers = {wanted}, got {config.network}")
        x0, y, t, noise = self.draws(0)
        target(self.path, config.predicts, t[:, None, None, None], x0, y, noise)
        if config.perceptual:
            self.features("cpu")

    @cached_property
    def path(self) -> Bridge:
        """The bridge."""
        return bridge_of(self.config)

    @cached_property
    def moments(self) -> tuple[float, float, float]:
        """(σ₀, σ_y, κ) of the data."""
        return moments(self.config, self.images)

    def features(self, device: str) -> Features:
        """The classifier that a perceptual loss looks through, on a device.

        Raises:
            ArgumentError: it looks at pictures of another shape.
        """
        found = _features(self.config.features, device)
        if found.shape != tuple(self.images.shape[1:]):
            raise ArgumentError(
                f"the classifier {self.config.features!r} looks at pictures of shape {found.shape}, the data has "
                f"{tuple(self.images.shape[1:])}"
            )
        return found

    def draws(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(x₀, y, float64 times, noise) of one step."""
        generator, _, x0 = first_draws(self.config, self.images, step)
        t = times(self.path, self.config.batch, generator)
        noise = torch.randn(x0.shape, generator=generator)
        seen = degraded(x0, self.config.degrade)
        return x0, seen + self.config.noise * torch.randn(x0.shape, generator=generator), t, noise

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The mean squared error of the network's prediction on the batch of a step."""
        x0, y, t, noise = self.draws(step)
        return self.error(network, x0, y, t, noise, device)

    def error(self, network: nn.Module, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor, device: str) -> Tensor:
        """The mean squared error of the network's prediction at times t, (batch,)."""
        path, place = self.path, t[:, None, None, None]
        x = path.alpha(place) * x0 + path.shift(place) * y + path.sigma(place) * noise
        wanted = target(path, self.config.predicts, place, x0, y, noise)
        if self.config.balanced:
            keep, gain, scale = balance(path, place, *self.moments)
            x, wanted = scale * x, (x0 - keep * x) / gain
        told = answer(network, self.config.precision, device, x.float(), path.lam(t).float(), y)
        wanted = wanted.float().to(device)
        plain = (told - wanted).square().mean()
        if not self.config.perceptual:
            return plain
        look: Any = self.features(device).network
        return plain + self.config.perceptual * (look.features(told) - look.features(wanted)).square().mean()

    def describe(self) -> dict[str, Any]:
        """Path, prediction, degradation, and what the network is told of time."""
        config = self.config
        told = {
            "path": config.path, "predicts": config.predicts, "time": "lambda", "time_range": [-MOST, MOST],
            "degrade": config.degrade, "degrade_noise": config.noise,
        }  # fmt: skip
        return {**told, "balance": list(self.moments)} if config.balanced else told
