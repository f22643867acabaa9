"""The way from noise to data: nearly straight, its answers bent, both nearing their ends."""

import torch

from claims import Measured, claim
from claims.worlds import twenty_modes
from fewstep import VE, load, make_plan
from fewstep.analysis import follow
from fewstep.worlds import Empirical

PAPER = "A Geometric Perspective on Diffusion Models"


@claim(
    paper=PAPER,
    method="trajectory-geometry",
    says="The sampling trajectory is almost straight, the denoising one bent; both near their ends all along.",
    figure="CIFAR-10: 14 ± 3.7 off a chord of 4435; distances fall monotonically",
)
def almost_straight_and_nearing() -> Measured:
    den = twenty_modes().denoiser(VE())
    x = 80 * torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    way = follow(den, x, make_plan(VE(), "dpm-solver++3m", "karras", 200))
    off, chord = way.deviation().amax(0), way.distance()[0]
    bent, span = way.answers_deviation().amax(0), way.answers_distance()[0]
    nearer = float((way.distance().diff(dim=0) <= 0).double().mean())
    answers = float((way.answers_distance().diff(dim=0) <= 1e-9).double().mean())
    mean = float((way.answers_distance().mean(1).diff() <= 0).double().mean())
    straight, curved = float((off / chord).mean()), float((bent / span).mean())
    figure = (
        f"20 modes in 64 dimensions, σ from 80: {float(off.mean()):.2f} off a chord of {float(chord.mean()):.0f} "
        f"({straight:.2%}), the answers {float(bent.mean()):.2f} off one of {float(span.mean()):.2f} ({curved:.0%}); "
        f"the state comes nearer in {nearer:.1%} of steps, the answer in {answers:.1%}, its mean over samples in "
        f"{mean:.1%}"
    )
    return Measured(figure, straight < 0.02 < 0.05 < curved and nearer > 0.99 and mean > 0.95)


@claim(
    paper=PAPER,
    method="trajectory-geometry",
    says="The way lies close to a plane.",
    figure="two principal components hold nearly all of a trajectory's variance",
)
def close_to_a_plane() -> Measured:
    den = load("mnist")
    x = torch.randn(8, *den.shape, generator=torch.Generator().manual_seed(0)) * den.path.sigma(1.0).float()
    cond = {"label": list(range(8))}
    way = follow(den, x, make_plan(den.path, "dpm-solver++", "logsnr", 40), cond)
    one, two = (float(way.explained(k).mean()) for k in (1, 2))
    normal = float(way.explained(2, off_chord=True).mean())
    figure = (
        f"mnist, 8 digits, 40 steps: one component holds {one:.2%} of the variance, two {two:.3%}; of the part "
        f"normal to the chord two hold {normal:.1%}"
    )
    return Measured(figure, two > 0.99)


@claim(
    paper=PAPER,
    method="trajectory-geometry",
    says="On a data set the best denoiser is a mean shift, and every Euler step raises the smoothed likelihood.",
    figure="a theorem",
)
def euler_steps_climb() -> Measured:
    data = torch.randn(300, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    den = Empirical(data).denoiser(VE())
    x = 80 * torch.randn(64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    way = follow(den, x, make_plan(VE(), "ddim", "karras", 40))
    falls, steps = 0, 0
    for level, before, after in zip(way.levels[:-1], way.z, way.z[1:], strict=False):
        p = [(-torch.cdist(z, data).square() / (2 * level**2)).logsumexp(1) for z in (before, after)]
        falls += int((p[1] < p[0] - 1e-9).sum())
        steps += len(before)
    return Measured(f"{falls} of {steps} Euler steps lower it (300 points in 16 dimensions)", falls == 0)
