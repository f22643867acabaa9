"""Every guide of the catalogue on a given model, at its neutral value and at work: the one list of them.

The tests run each on a tiny network with every solver and path, the benchmarks measure what each costs on a shipped
model; a guide that is added here is in all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fewstep.denoisers import Denoiser
from fewstep.guidance import (
    CADS,
    CFG,
    PAG,
    SAG,
    AnnealedMCMC,
    Autoguidance,
    ClassifierGuidance,
    Composition,
    ContrastiveEnergy,
    DensityControl,
    DensityGuidance,
    DensityNoise,
    EpsilonScaling,
    ExpertGuidance,
    Factorized,
    FixedComponent,
    FlowChef,
    Guide,
    HiGS,
    LatentTree,
    MinorityGuidance,
    SelfGuidedMinority,
    Steered,
    SteeredLinear,
    Thresholding,
    TractableSteering,
    UpsampleGuidance,
)  # fmt: skip
from fewstep.guidance.factorized import frequency_bands


@dataclass(frozen=True)
class Kit:
    """What the guides are made of.

    Args:
        weak: another denoiser of the same path and shape (channels, side, side), the side even.
        log_prob: log_prob(x, t) → (batch,), differentiable, which serves as a class's, an expert's and a density.
        logits: logits(x, t) → (batch, classes).
        other: conditions beside the run's own.
        floats: the name of a condition of floats.
        log_density: what `density-control` leads to, in nats at λ = 1.5.
        circuit: a latent tree of as many pixels as a picture has.
    """

    weak: Denoiser
    log_prob: Callable[[Tensor, Any], Tensor]
    logits: Callable[[Tensor, Tensor], Tensor]
    other: Mapping[str, Any]
    floats: str
    log_density: float
    circuit: LatentTree


def chain(pixels: int, states: int, levels: int) -> LatentTree:
    """A chain of pixels with tables drawn at random."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((states,), (pixels, states, states), (pixels, states, levels))
    tables = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return LatentTree(tuple(range(-1, pixels - 1)), *(table.log_softmax(-1) for table in tables))


def _halved(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


def _doubled(y: Tensor) -> Tensor:
    return functional.interpolate(y, scale_factor=2, mode="nearest")


def every_guide(kit: Kit) -> dict[str, tuple[Guide, Guide]]:
    """name: (the guide at its neutral value, the guide at work)."""
    shape, prob, one = kit.weak.shape, kit.log_prob, torch.ones(1, 1, 1)
    bands, small = frequency_bands(1.0), torch.ones(1, 1, shape[1] // 2, shape[2] // 2)
    chains = Composition(((0.5, kit.other),), log_probs=(prob, prob))

    def loss(x0: Tensor) -> Tensor:
        return -prob(x0, None)

    def itself(answers: Tensor) -> Tensor:
        return answers

    experts = [lambda x: prob(x, None), loss]
    known = torch.arange(float(shape[2])) < shape[2] // 2
    return {
        "annealed-mcmc": (AnnealedMCMC(rounds=0), AnnealedMCMC(chains, "hmc", rounds=2)),
        "autoguidance": (Autoguidance(kit.weak, 1.0), Autoguidance(kit.weak, 2.0)),
        "cads": (CADS(kit.floats, scale=0.0), CADS(kit.floats, scale=0.3)),
        "cfg": (CFG(1.0), CFG(3.0, rescale=0.7)),
        "classifier-guidance": (ClassifierGuidance(prob, 0.0), ClassifierGuidance(prob, 0.5)),
        "composition": (Composition(), Composition(((0.6, kit.other), (-0.3, kit.weak)))),
        "contrastive-energy": (ContrastiveEnergy(prob, 0.0), ContrastiveEnergy(prob, 0.5)),
        "density-control": (DensityControl(), DensityControl(kit.log_density, 1.5)),
        "density-guidance": (DensityGuidance(0.5), DensityGuidance(0.2)),
        "density-noise": (DensityNoise(0.0), DensityNoise(0.3, (-9, 9))),
        "epsilon-scaling": (EpsilonScaling(1.0), EpsilonScaling(1.02)),
        "factorized": (Factorized([itself]), Factorized(bands, [kit.other])),
        "factorized-fixed": (FixedComponent(bands[0]), FixedComponent(bands[0], torch.ones(shape))),
        "flowchef": (FlowChef(loss, 0.0), FlowChef(loss, 0.1, rounds=2)),
        "higs": (HiGS(0.0), HiGS(1.5)),
        "minority": (MinorityGuidance(kit.logits, scale=0.0), MinorityGuidance(kit.logits, scale=0.5)),
        "pag": (PAG(0.0), PAG(2.0)),
        "ppap": (ExpertGuidance(experts[:1], itself, 0.0), ExpertGuidance(experts, itself, 0.5)),
        "sag": (SAG(0.0), SAG(0.8)),
        "self-guided-minority": (SelfGuidedMinority(0.0), SelfGuidedMinority(0.5, every=2)),
        "steered": (Steered([(1.0, loss)], 0.0), Steered([(0.1, loss), (0.05, loss)], 0.5)),
        "steered-linear": (SteeredLinear(_halved, _doubled, small, 0.0), SteeredLinear(_halved, _doubled, small)),
        "thresholding": (Thresholding(1.0), Thresholding(0.0)),
        "tiramisu": (TractableSteering(kit.circuit, one, 0 * one, 1.0), TractableSteering(kit.circuit, one, known)),
        "upsample-guidance": (UpsampleGuidance(scale=0.0), UpsampleGuidance(2)),
    }
