"""Condition-annealed sampling: the condition is noise at the start of sampling and itself at its end.

    ŷ = √γ·y + s·√(1 − γ)·n,      n ~ N(0, I) anew each step,
    γ(t) = 1 for t ≤ τ₁,   (τ₂ − t)/(τ₂ − τ₁) between,   0 for t ≥ τ₂,
    y′ = ψ·(mean y + std y·(ŷ − mean ŷ)/std ŷ) + (1 − ψ)·ŷ,

means and deviations over one sample's whole condition.  The null branch of CFG keeps its clean condition.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide

# A guide has 64 draws a step; the condition's begin here, so that a guide that draws for x itself takes others.
FIRST_SLOT, SLOTS = 16, 48


@method(
    name="cads",
    papers=["CADS: Unleashing the Diversity of Diffusion Models through Condition-Annealed Sampling"],
    family="guidance",
    arxiv="2310.17347",
)
@dataclass(frozen=True)
class CADS(Guide):
    """Condition-annealed diffusion sampling (Sadat et al. 2024): diversity at high guidance scales, at no evaluation.

    Args:
        key: the name of the condition, a floating-point tensor (batch, …) such as an embedding.
        scale: s, the size of the noise, at least 0.
        begin: τ₁ in [0, 1); below it the condition is clean.
        end: τ₂ in (τ₁, 1]; above it the condition is all noise.
        mixing: ψ in [0, 1], how much the mean and deviation of the condition are kept.

    Scale 0 leaves the condition as it is (it is not shrunk by √γ either).

    Raises:
        ArgumentError: numbers out of their ranges; at the run, a condition that is missing or cannot be noised.
    """

    level: ClassVar[str] = "condition"
    key: str = "encoder_hidden_states"
    scale: float = 0.1
    begin: float = 0.6
    end: float = 0.9
    mixing: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1:
            raise ArgumentError(f"begin and end must be 0 ≤ begin < end ≤ 1, got {self.begin} and {self.end}")
        if self.scale < 0 or not 0 <= self.mixing <= 1:
            raise ArgumentError(f"scale must be at least 0 and mixing in [0, 1], got {self.scale} and {self.mixing}")

    def condition(self, ask: Ask, cond: Mapping[str, Any], state: Any) -> tuple[Mapping[str, Any], Any]:
        if self.scale == 0:
            return cond, state
        y = cond.get(self.key)
        if not isinstance(y, Tensor) or not y.is_floating_point():
            got = "no such condition" if y is None else f"{getattr(y, 'dtype', type(y).__name__)}"
            raise ArgumentError(
                f"CADS adds noise to the condition {self.key!r}, which must be a floating-point tensor, got {got} "
                f"among {sorted(cond)}; give the network the embedding of a label instead of the label, which "
                "fewstep.guidance.embedded_labels(denoiser) does for networks of ours"
            )
        if self.mixing and y[0].numel() < 2:
            raise ArgumentError(f"CADS keeps a condition's deviation, which one number has not; {self.key!r} is one")
        if ask.t.numel() not in (1, len(y)):
            raise ArgumentError(f"CADS needs one time a sample, got times of shape {tuple(ask.t.shape)}")
        gamma = ((self.end - ask.t) / (self.end - self.begin)).clamp(0, 1).to(y.device, y.dtype)
        if not bool((gamma < 1).any()):
            return cond, state
        gamma = gamma.reshape(-1, *[1] * (y.ndim - 1)) if gamma.ndim else gamma
        noisy = gamma.sqrt() * y + self.scale * (1 - gamma).sqrt() * _normal_like(y, ask)
        if self.mixing == 0:
            return {**cond, self.key: torch.where(gamma < 1, noisy, y)}, state
        axes = tuple(range(1, y.ndim))
        (mean, deviation), (old, spread) = ((v.mean(axes, keepdim=True), v.std(axes, keepdim=True)) for v in (noisy, y))
        rescaled = (noisy - mean) / deviation.clamp_min(torch.finfo(y.dtype).tiny) * spread + old
        annealed = torch.where(gamma < 1, self.mixing * rescaled + (1 - self.mixing) * noisy, y)
        return {**cond, self.key: annealed}, state


def _normal_like(y: Tensor, ask: Ask) -> Tensor:
    """Normal numbers of the shape of the condition, from the run's own draws, which have the shape of x."""
    size, each = math.prod(y.shape[1:]), math.prod(ask.x.shape[1:])
    count = -(-size // each)
    if count > SLOTS:
        raise ArgumentError(f"CADS draws at most {SLOTS} · {each} numbers a step here, the condition has {size}")
    drawn = torch.cat([ask.noise(FIRST_SLOT + i).flatten(1) for i in range(count)], 1)
    return drawn[:, :size].reshape(y.shape).to(y.device, y.dtype)


def embedded_labels(denoiser: Denoiser) -> tuple[Denoiser, Tensor]:
    """The model told an embedding in the place of a label, for guides that need a condition of floats.

    cond={"label": table[labels]} is then what cond={"label": labels} is to the model itself.

    Args:
        denoiser: of a network of ours with classes, such as fewstep.load("cifar10").

    Returns:
        The denoiser, a copy whose null is an embedding too; and the table (classes + 1, width), the null label's last.

    Raises:
        ArgumentError: the network has no table of labels.
    """
    net: Any = getattr(denoiser, "net", None)
    label = getattr(getattr(net, "condition", None), "label", None)
    if not isinstance(label, nn.Embedding):
        raise ArgumentError(f"the denoiser's network has no table of labels, {type(net).__name__} is not one of ours")
    table = label.weight.detach()
    told: Any = copy.copy(denoiser)
    told.net = copy.deepcopy(net)
    told.net.condition.label = nn.Identity()
    told.null = {key: table[value] if key == "label" else value for key, value in denoiser.null.items()}
    return told, table
