"""Minority samples: rarer components are drawn more often, by a classifier of rarity or by the model itself."""

from typing import Any

import torch
from torch import Tensor

from claims import Measured, claim
from fewstep import VP, sample
from fewstep.guidance import Ask, Guide, MinorityGuidance, SelfGuidedMinority
from fewstep.worlds import GaussianMixture


def _world() -> GaussianMixture:
    means = 1.2 * torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return GaussianMixture([0.9, 0.09, 0.01], means, torch.full((3, 1), 0.05))


def _rarity(guides: list[Guide]) -> tuple[float, float]:
    """(share of samples nearest to the two rare components, mean −log p)."""
    world = _world()
    x = sample(world.denoiser(VP()), 500, steps=30, guides=guides, dtype=torch.float64).x
    share = world.component_posterior(x, VP(), 0.01)[:, 1:].sum(1).mean()
    return float(share), float(-world.log_density(x, VP(), 0.1).mean())


@claim(
    paper="Self-Guided Generation of Minority Samples Using Diffusion Models",
    method="self-guided-minority",
    says="Climbing the model's own reconstruction loss gives rarer samples, more so the stronger it is.",
    figure="higher nearest-neighbour distance and rarity score than plain sampling on CelebA, LSUN and ImageNet",
)
def the_loss_leads_to_rare_samples() -> Measured:
    scales = (0.0, 0.5, 1.0, 2.0)
    found = [_rarity([SelfGuidedMinority(w, t_noise=0.6, every=2)]) for w in scales]
    figure = "; ".join(f"w {w}: {share:.1%}, {rare:.1f}" for w, (share, rare) in zip(scales, found, strict=True))
    rarity = [rare for _, rare in found]
    return Measured(f"share of the rare 10 %, mean −log p: {figure}", rarity == sorted(rarity))


@claim(
    paper="Self-Guided Generation of Minority Samples Using Diffusion Models",
    method="self-guided-minority",
    says="Guiding only every few steps, each the stronger for it, saves evaluations and gradients and loses little.",
    figure="every fifth step by default, every second on ImageNet-64; figures not checked by us",
)
def guiding_every_few_steps_is_enough() -> Measured:
    plain, found = _rarity([])[1], []
    for every in (1, 2, 5):
        guide = SelfGuidedMinority(0.4 * every, t_noise=0.6, every=every)
        found.append((every, *_rarity([guide]), 30 + -(-30 // every)))
    figure = "; ".join(f"every {k}: {share:.1%}, {rare:.1f}, {cost}" for k, share, rare, cost in found)
    gains = [rare - plain for _, _, rare, _ in found]
    return Measured(
        f"30 steps, w·30/k the same; share of the rare 10 %, mean −log p (plain {plain:.1f}), evaluations: {figure}",
        min(gains) > 0.8 * gains[0] > 0,
    )


@claim(
    paper="Don't Play Favorites: Minority Guidance for Diffusion Models",
    method="minority",
    says="The target class sets how rare samples are, and the scale sharpens it.",
    figure="rarity rises with the class and the scale on CelebA, LSUN and CIFAR-10",
)
def the_class_sets_the_rarity() -> Measured:
    world = _world()

    def classifier(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return world.component_posterior(x, VP(), t).clamp_min(1e-30).log()

    plain = _rarity([])
    by_class = [_rarity([MinorityGuidance(classifier, target, 1.0)]) for target in (0, 1, 2)]
    scales = (0.5, 1.0, 2.0, 3.5)
    by_scale = [_rarity([MinorityGuidance(classifier, 2, scale)]) for scale in scales]
    told = "; ".join(f"{w:g}: {share:.1%}, {rare:.1f}" for w, (share, rare) in zip(scales, by_scale, strict=True))
    rarity, sharpened = [rare for _, rare in by_class], [share for share, _ in by_scale]
    holds = rarity == sorted(rarity) and rarity[2] > plain[1] and sharpened == sorted(sharpened)
    return Measured(
        f"mean −log p: plain {plain[1]:.1f}; classes 0, 1, 2 at scale 1: {', '.join(f'{r:.1f}' for r in rarity)}; "
        f"share of the rare 10 % and mean −log p towards class 2 by scale: {told}",
        holds,
        "At scale 0.5 the mean −log p is high for samples that lie between the components, in none of them.",
    )


class _Through(Guide):
    """Self-guided minority whose gradient goes through the second answer too."""

    level = "answer"
    needs_grad = True

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def extra(self) -> int:
        return 1

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        alpha, sigma = (float(v) for v in (ask.path.alpha(0.6), ask.path.sigma(0.6)))
        again = ask.again(alpha * x0 + sigma * ask.noise(0), torch.tensor(0.6, dtype=torch.float64), ask.cond)
        (push,) = torch.autograd.grad((x0 - again).square().mean(1).sum(), ask.x)
        push = push / push.abs().amax(1, keepdim=True).clamp_min(1e-300)
        return x0 + float(self.scale * ask.path.sigma(ask.t).square() / ask.path.alpha(ask.t_next)) * push, state


@claim(
    paper="Self-Guided Generation of Minority Samples Using Diffusion Models",
    method="self-guided-minority",
    says="The gradient may be stopped at the second answer: that saves a gradient through the network at no loss.",
    figure="the stop is in the paper's rule and code; figures of leaving it out not checked by us",
)
def the_second_answer_may_be_held() -> Measured:
    words, same = [f"plain {_rarity([])[1]:.1f}"], []
    for scale in (0.25, 0.5, 1.0):
        held, through = (_rarity([g]) for g in (SelfGuidedMinority(scale, t_noise=0.6, every=1), _Through(scale)))
        same.append(held[1] > 0.95 * through[1])
        words.append(f"w {scale:g}: held {held[0]:.1%}, {held[1]:.1f}; through {through[0]:.1%}, {through[1]:.1f}")
    figure = f"500 samples, 30 steps, guided in each; share of the rare 10 %, mean −log p: {'; '.join(words)}"
    why = (
        "At the time of the noise, t = 0.6, hardly anything of x̂₀ reaches the second answer, so little is left to stop."
    )
    return Measured(figure, all(same), why)
