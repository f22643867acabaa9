"""Minority samples: rarer components are drawn more often, by a classifier of rarity or by the model itself."""

import torch

from claims import Measured, claim
from fewstep import VP, sample
from fewstep.guidance import MinorityGuidance, SelfGuidedMinority
from fewstep.guidance.base import Guide
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
    found = [_rarity([MinorityGuidance(classifier, target, 1.0)]) for target in (0, 1, 2)]
    figure = ", ".join(f"{rare:.1f}" for _, rare in found)
    rarity = [rare for _, rare in found]
    holds = rarity == sorted(rarity) and rarity[2] > plain[1]
    return Measured(f"mean −log p: plain {plain[1]:.1f}; classes 0, 1, 2: {figure}", holds)
