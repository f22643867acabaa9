"""PAG and SAG on the shipped digits model, without a class: the Fréchet distance with and without them."""

from collections.abc import Sequence

from claims import Measured, claim
from claims.guidance.judge import NONE, distance, drawn, gain, judge
from fewstep.guidance import PAG, SAG, Guide

COUNT, STEPS = 150, 10


def _compared(guides: Sequence[tuple[str, Guide]], seed: int = 0) -> tuple[str, list[tuple[float, float]]]:
    """(the figures in words, (gain, doubt) of each guide)."""
    label = [NONE] * COUNT
    plain = drawn(COUNT, STEPS, label=label, seed=seed)
    sets = [drawn(COUNT, STEPS, [guide], label=label, seed=seed) for _, guide in guides]
    gains = [gain(plain, x) for x in sets]
    sure = [float(judge().classify(x).amax(1).mean()) for x in (plain, *sets)]
    words = [f"none {float(distance(plain)):.2f}"]
    for (name, _), x, (better, doubt) in zip(guides, sets, gains, strict=True):
        words.append(f"{name} {float(distance(x)):.2f} (nearer by {better:.2f} ± {doubt:.2f})")
    figure = (
        f"Fréchet distance of {COUNT} unconditional digits to 1,000 real ones, {STEPS} steps of ddim: "
        f"{', '.join(words)}; mean probability of the class that is read: {', '.join(f'{p:.2f}' for p in sure)}"
    )
    return figure, gains


@claim(
    paper="Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance",
    method="pag",
    says="Pushing away from the answer with perturbed self-attention makes unconditional samples better.",
    figure="ADM, ImageNet 256², unconditional: FID 26.2 to 16.2, Inception score 39.7 to 88.5",
)
def perturbed_attention_brings_samples_nearer() -> Measured:
    guides = [("encoder, s = 1", PAG(1.0, "encoder")), ("middle, s = 1", PAG(1.0)), ("middle, s = 3", PAG(3.0))]
    # The place was chosen among seven settings on the noises of seed 0; these are others.
    figure, gains = _compared(guides, seed=1)
    why = (
        "The encoder was the best of seven places and scales on the noises of seed 0 (nearer by 0.34 ± 0.09), and does "
        "not hold on these others. The paper perturbs layers of the encoder and of the middle of a far larger network; "
        "here both have one attention on 7×7 places."
    )
    return Measured(figure, gains[0][0] > 2 * gains[0][1], why)


@claim(
    paper="Improving Sample Quality of Diffusion Models Using Self-Attention Guidance",
    method="sag",
    says="Pushing away from the answer to a picture blurred where it is attended to makes samples better.",
    figure="ADM, ImageNet 256²: FID 26.2 to 20.1 unconditionally, 10.9 to 9.4 with a class",
)
def self_attention_brings_samples_nearer() -> Measured:
    figure, gains = _compared([("s = 0.3", SAG(0.3)), ("s = 0.8", SAG(0.8))])
    return Measured(figure, all(better > 2 * doubt for better, doubt in gains))
