"""Upsample guidance on the shipped digits model: pictures of twice its size."""

import copy

import torch

from claims import Measured, claim
from claims.guidance.judge import accuracy, distance, drawn, model
from fewstep.guidance import UpsampleGuidance

COUNT, STEPS = 40, 10


@claim(
    paper="Upsample Guidance: Scale Up Diffusion Models without Training",
    method="upsample-guidance",
    says="A model makes pictures of twice its size with whole objects in them, by one added term and no training.",
    figure="pictures of pixel and latent models, CIFAR-10 from 32² to 64² among them; no figure that we could check",
)
def larger_pictures_keep_their_object() -> Measured:
    large, label = copy.copy(model()), [i % 10 for i in range(COUNT)]
    large.shape = (1, 56, 56)
    small = drawn(COUNT, STEPS, label=label)
    words, sets = [], {"28×28": small}
    for name, guides in (("56×56 plain", []), ("56×56 guided", [UpsampleGuidance(2)])):
        x = drawn(COUNT, STEPS, guides, label=label, denoiser=large)
        sets[name] = torch.nn.functional.avg_pool2d(x, 2)
    words = [f"{name} {float(distance(x)):.2f}, {accuracy(x, label):.0%}" for name, x in sets.items()]
    plain, guided = sets["56×56 plain"], sets["56×56 guided"]
    figure = (
        f"{COUNT} digits, {STEPS} steps of ddim, the large ones averaged to 28×28; Fréchet distance to 1,000 real "
        f"digits and read as asked: {'; '.join(words)}"
    )
    right, without = accuracy(guided, label), accuracy(plain, label)
    return Measured(figure, right > 0.9 > without and float(distance(guided)) < float(distance(plain)) / 4)
