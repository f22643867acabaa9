"""Ambient DPS: the exact model of masked data against the exact model of whole data."""

import math

from claims import Measured, claim
from claims.restoration.bench import PATH, patches
from fewstep.restoration import Gaussian, Mask, Measurement, restore
from fewstep.worlds.masked import masked_denoiser


@claim(
    paper=(
        "Ambient Diffusion Posterior Sampling: Solving Inverse Problems with Diffusion Models trained on Corrupted Data"
    ),
    method="ambient-dps",
    says="Where little is measured, a model of corrupted data can restore better than one of clean data.",
    figure="MRI: models trained at high acceleration beat the fully sampled one at high acceleration",
)
def masked_models_where_little_is_measured() -> Measured:
    world, told, gains = patches(), [], []
    truth = world.sample(6, seed=11).float()
    for share in (0.1, 0.5):
        measurement = Measurement.simulate(Mask.random(8, 8, share), truth, Gaussian(0.05))
        common = {"evaluations": 100, "samples": 2, "scale": 0.1}
        psnr = {}
        for name, model, method, options in (
            ("whole", world.denoiser(PATH), "dps", {"solver": "ddim"}),
            ("masked", masked_denoiser(world, PATH), "ambient-dps", {"seen": 0.5}),
        ):
            x = restore(model, measurement, method, **common, **options).x  # type: ignore[arg-type]
            off = (x - truth.repeat_interleave(2, 0)).square().flatten(1).mean(1)
            psnr[name] = float((10 * (4 / off).log10()).mean())
        gains.append(psnr["masked"] - psnr["whole"])
        told.append(f"{share:.0%} of the pixels seen: " + ", ".join(f"{k} {v:.1f} dB" for k, v in psnr.items()))
    holds = gains[0] > 0 and not math.isnan(gains[1])
    why = (
        "We think that this is no better knowledge: what the mask hides comes out as its mean, and a mean has less "
        "squared error than a sample."
    )
    figure = "6 pictures of 8×8, exact models, the masked one shown half of the pixels: " + "; ".join(told)
    return Measured(figure, holds, why if holds else "")


@claim(
    paper=(
        "Ambient Diffusion Posterior Sampling: Solving Inverse Problems with Diffusion Models trained on Corrupted Data"
    ),
    method="ambient-dps",
    says="A model that is trained on masked data alone fills in what no training picture showed whole.",
    figure="CelebA, FFHQ and AFHQ with 20 to 80 % of the pixels hidden in training",
)
def a_model_of_masked_digits() -> Measured:
    import fewstep

    model = fewstep.load("mnist-ambient")
    digits = fewstep.sample(fewstep.load("mnist"), 12, steps=16, cond={"label": [i % 10 for i in range(12)]}, seed=4).x
    measurement = Measurement.simulate(Mask.random(28, 28, 0.3), digits, Gaussian(0.05))
    out = restore(model, measurement, "ambient-dps", evaluations=50, scale=2.0, seen=0.54)
    hidden = ~measurement.operator.mask.expand(28, 28)
    error = float((out.x - digits)[..., hidden].square().mean())
    black = float((-1 - digits)[..., hidden].square().mean())
    return Measured(
        f"12 digits, 30 % of the pixels measured, a model of pictures of which 60 % was seen (54 % shown to it), "
        f"50 evaluations: mean squared error of the hidden pixels {error:.3f}; left black {black:.3f}",
        error < 0.5 * black,
    )
