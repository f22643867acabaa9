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
    rows = {"28×28": (float(distance(small)), accuracy(small, label))}
    for scale in (0.0, 0.8, 1.0, 1.2):
        x = drawn(COUNT, STEPS, [UpsampleGuidance(2, scale)], label=label, denoiser=large)
        x = torch.nn.functional.avg_pool2d(x, 2)
        rows[f"56×56, θ = {scale:g}"] = (float(distance(x)), accuracy(x, label))
    told = "; ".join(f"{name} {far:.2f}, {right:.0%}" for name, (far, right) in rows.items())
    figure = (
        f"{COUNT} digits, {STEPS} steps of ddim, the large ones averaged to 28×28; Fréchet distance to 1,000 real "
        f"digits and read as asked: {told}"
    )
    _, plain, *_, full, _ = rows.values()
    return Measured(figure, full[1] > 0.9 > plain[1] and full[0] < plain[0] / 4)
