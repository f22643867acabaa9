"""The way from noise to data: nearly straight, its answers bent, both nearing their ends."""

import torch

from claims import Measured, claim
from claims.worlds import twenty_modes
from fewstep import VE, load, make_plan
from fewstep.analysis import follow
from fewstep.metrics import sliced_w2
from fewstep.worlds import Empirical, GaussianMixture

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
    says="On CIFAR-10 the way is almost straight: it leaves its chord by little, and its answers by less.",
    figure="20 Euler steps from σ = 80: 14.0 ± 3.7 off a chord of 4435 at σ ≈ 12, answers 5.5 at σ ≈ 6, ends of the "
    "answers 21 apart, ‖x̂₀‖ 5.5 → 24, ‖ε̂‖ 55.4 → 38.6",
)
def pictures_come_straight() -> Measured:
    den = load("cifar10")
    levels = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 21, dtype=torch.float64) ** 7
    times = den.path.t_of_lam(-levels.log())
    z = 80 * torch.randn(24, *den.shape, generator=torch.Generator().manual_seed(0))
    way = follow(den, float(den.path.alpha(times[0])) * z, make_plan(den.path, "ddim", times), {"label": 10})
    off, bent = way.deviation(), way.answers_deviation()
    far, farther = int(off.mean(1).argmax()), int(bent.mean(1).argmax())
    size = way.r.norm(dim=-1).mean(1)
    noise = ((way.z[:-1] - way.r) / way.levels[:-1, None, None]).norm(dim=-1).mean(1)
    found = float(off[far].mean()), float(bent[farther].mean())
    figure = (
        f"shipped CIFAR-10 model without a class, 24 pictures, the same 20 Euler steps: {found[0]:.1f} ± "
        f"{float(off[far].std()):.1f} off a chord of {float(way.distance()[0].mean()):.0f} at σ = "
        f"{float(levels[far]):.1f}, answers {found[1]:.1f} at σ = {float(levels[farther]):.1f}, their ends "
        f"{float(way.answers_distance()[0].mean()):.1f} apart, ‖x̂₀‖ {float(size[0]):.1f} → {float(size[-1]):.1f}, "
        f"‖ε̂‖ {float(noise[0]):.1f} → {float(noise[-1]):.1f}"
    )
    return Measured(figure, abs(found[0] - 14) < 3 and abs(found[1] - 5.5) < 1.5)


@claim(
    paper=PAPER,
    method="trajectory-geometry",
    says="The denoising trajectory is good before the sampling trajectory is, so that one may stop early at an answer.",
    figure="FID of the answers falls earlier than that of the states",
)
def answers_are_good_earlier() -> Measured:
    world, told, better = twenty_modes(), [], []
    x = 80 * torch.randn(400, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    way = follow(world.denoiser(VE()), x, make_plan(VE(), "dpm-solver++", "karras", 20))
    truth = world.sample(2000, seed=1).double().flatten(1)
    for i in range(10, 20, 2):
        answer, state = (float(sliced_w2(v, truth)) for v in (way.r[i], way.z[i]))
        told.append(f"σ = {float(way.levels[i]):.2g}: {answer:.3f} against {state:.3f}")
        better.append(answer <= state + 1e-6)
    end = float(sliced_w2(way.z[-1], truth))
    figure = f"20 modes in 64 dimensions, sliced W2 of x̂₀ against that of x/α: {'; '.join(told)}; at the end {end:.3f}"
    return Measured(figure, all(better))


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
    says="A model answers as the best denoiser of its data at much noise, is off at some, and near again at little.",
    figure="CIFAR-10, on the best denoiser's own way: 1.6 off at σ = 80, 13.8 at σ ≈ 2.5, 0.3 at the end",
)
def off_in_the_middle() -> Measured:
    data = torch.randn(300, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    best = Empirical(data).denoiser(VE())
    smooth = GaussianMixture([1.0] * 300, data, torch.full((300, 1), 0.3)).denoiser(VE())
    x = 80 * torch.randn(64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    way = follow(best, x, make_plan(VE(), "dpm-solver++3m", "karras", 60))
    times = VE().t_of_lam(-way.levels[:-1].log())
    off = torch.stack([(smooth(z, t) - r).norm(dim=1).mean() for z, r, t in zip(way.z, way.r, times, strict=False)])
    at, last = int(off.argmax()), len(off) - 1
    figure = (
        "300 points in 16 dimensions, a model that takes each for a Gaussian of deviation 0.55, on the best denoiser's "
        f"own way: {float(off[0]):.3f} off at σ = 80, {float(off[at]):.2f} at σ = {float(way.levels[at]):.2f}, "
        f"{float(off[last]):.3f} at σ = {float(way.levels[last]):.3f}"
    )
    return Measured(figure, 0 < at < last and float(off[at]) > 10 * max(float(off[0]), float(off[last])))


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
    nearer = [float((d.diff(dim=0) <= 1e-9).double().mean()) for d in (way.distance(), way.answers_distance())]
    falls, steps = 0, 0
    for level, before, after in zip(way.levels[:-1], way.z, way.z[1:], strict=False):
        p = [(-torch.cdist(z, data).square() / (2 * level**2)).logsumexp(1) for z in (before, after)]
        falls += int((p[1] < p[0] - 1e-9).sum())
        steps += len(before)
    figure = (
        f"{falls} of {steps} Euler steps lower it (300 points in 16 dimensions); "
        f"{float(way.deviation().amax(0).mean()):.2f} off a chord of {float(way.distance()[0].mean()):.0f}, nearer to "
        f"the end in {nearer[0]:.0%} of steps, the answer in {nearer[1]:.0%}"
    )
    return Measured(figure, falls == 0 and nearer[0] == 1)
