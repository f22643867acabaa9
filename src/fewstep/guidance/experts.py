"""Plug-and-play guidance by experts (PPAP): a network of clean data, made to see noise by a copy a range of noise.

    expert n of N serves the times (n/N, (n + 1)/N]
    trained by       KL(softmax(f(x̃₀)/τ) ‖ softmax(f_n(x̃_t))),      x̃_t = α·x̃₀ + σ·ε,   x̃₀ made by the model itself
    guides by        x̂₀′ = x̂₀ + w·(σ²/α)·∇ₓ log p_n(y | x_t)

f is the network as it is and f_n a low-rank adaptation of it, so that neither labels nor data are needed.  With τ = 1
and a perfect f, the best f_n of a time is E[p(y | x₀) | x_t] = p(y | x_t), which guides exactly.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide
from fewstep.guidance.classifier_guidance import ClassifierGuidance
from fewstep.guidance.gradient import Interval, checked_interval
from fewstep.guidance.low_rank_adaptation import LowRankAdapted
from fewstep.paths import Path


def expert_of(t: Tensor, count: int) -> Tensor:
    """The number of the expert of each time: that of (n/N, (n + 1)/N], the lower one at a border."""
    # A border that rounding has moved up by a little is still the border.
    return ((t * count - 1e-9).ceil() - 1).clamp(0, count - 1).long()


@method(
    name="ppap",
    papers=["Towards Practical Plug-and-Play Diffusion Models"],
    family="guidance",
    arxiv="2212.05973",
)
@dataclass(frozen=True)
class ExpertGuidance(Guide):
    """PPAP (Go et al. 2023): guidance by one expert a range of noise; one evaluation a step, none differentiated.

    Args:
        experts: expert(x) → what `wanted` reads, one for each of as many equal ranges of time; `train_experts` makes
            them.
        wanted: wanted(an expert's answers) → (batch,), a log-probability, such as that of a class.
        scale: w; 0 leaves the answer as it is.
        interval: (low, high), the times of guidance, as in `ClassifierGuidance`.

    Raises:
        ArgumentError: no experts, or an interval that is not 0 ≤ low < high ≤ 1; at the run, times that differ within
            a sample.
    """

    level: ClassVar[str] = "answer"
    experts: Sequence[Callable[[Tensor], Tensor]]
    wanted: Callable[[Tensor], Tensor]
    scale: float = 7.5
    interval: Interval = None

    def __post_init__(self) -> None:
        if not self.experts:
            raise ArgumentError("experts must hold at least one")
        checked_interval(self.interval)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        if ask.t.numel() not in (1, len(x0)):
            raise ArgumentError(f"an expert serves one time a sample, got times of shape {tuple(ask.t.shape)}")
        which = expert_of(ask.t.reshape(-1), len(self.experts)).expand(len(x0)).tolist()
        return ClassifierGuidance(lambda x, t: self._log_prob(x, which), self.scale, self.interval).answer(
            ask, x0, state
        )

    def _log_prob(self, x: Tensor, which: list[int]) -> Tensor:
        if len(set(which)) == 1:
            return self.wanted(self.experts[which[0]](x))
        # `wanted` may tell the rows apart, so every expert sees all of them.
        each = {n: self.wanted(self.experts[n](x)) for n in set(which)}
        return torch.stack([each[n][row] for row, n in enumerate(which)])


def sharpened_divergence(teacher: Tensor, student: Tensor, temperature: float = 0.25) -> Tensor:
    """KL(softmax(teacher/τ) ‖ softmax(student)), the mean over samples; logits (batch, classes)."""
    target = (teacher / temperature).log_softmax(-1)
    return torch.nn.functional.kl_div(student.log_softmax(-1), target, reduction="batchmean", log_target=True)


def train_experts(
    network: nn.Module,
    path: Path,
    samples: Tensor,
    count: int = 5,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = sharpened_divergence,
    steps: int = 1000,
    batch: int = 256,
    rank: int = 16,
    rate: float = 1e-4,
    seed: int = 0,
) -> list[LowRankAdapted]:
    """Experts of a network of clean data, trained one after another, each from the one before, of less noise.

    Args:
        network: net(x) → answers, such as logits; it stays as it is.
        path: how data becomes noise.
        samples: (n, *shape), made by the diffusion model.
        count: N, at least 1.
        loss: loss(the network's answers to the samples, the expert's to the noisy ones), a number; squared errors for
            a network that gives pictures.
        steps: of all experts together, at least N.
        batch: samples a step.
        rank: see `LowRankAdapted`.
        rate: AdamW's first rate for each expert, which falls linearly to 0; weight decay 0.05.
        seed: of all draws.

    Raises:
        ArgumentError: counts out of their ranges.
    """
    if not 1 <= count <= steps or batch < 1 or len(samples) == 0:
        raise ArgumentError(
            f"count must be at least 1, steps at least as many, and batch and samples some; got {count}, {steps}, "
            f"{batch} and {len(samples)} samples"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network_was = network.training
        told = torch.cat([network.eval()(some) for some in samples.split(256)])
        network.train(network_was)
    expert, found = LowRankAdapted(network, rank, seed=seed), []
    for n in range(count):
        optimiser = torch.optim.AdamW(expert.parameters(), rate, weight_decay=0.05)
        fall = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step * count / steps)
        for _ in range(steps // count):
            rows = torch.randint(len(samples), (batch,), generator=generator)
            t = (n + torch.rand(batch, *[1] * (samples.ndim - 1), generator=generator, dtype=torch.float64)) / count
            noise = torch.randn(batch, *samples.shape[1:], generator=generator).to(samples)
            noisy = path.alpha(t).to(samples) * samples[rows] + path.sigma(t).to(samples) * noise
            optimiser.zero_grad()
            loss(told[rows], expert(noisy)).backward()
            optimiser.step()
            fall.step()
        found.append(copy.deepcopy(expert, {id(network): network}).requires_grad_(False))
    return found
