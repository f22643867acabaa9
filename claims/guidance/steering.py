"""FlowChef and Steered Diffusion: an unconditional model steered by losses on what it believes."""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from claims import Measured, claim
from claims.guidance.judge import NONE, accuracy, digits, distance, drawn, judge, model
from claims.worlds import twenty_modes
from fewstep import VP, Flow, make_plan, sample
from fewstep.denoisers import Denoiser
from fewstep.guidance import FlowChef, Guide, Steered, SteeredLinear
from fewstep.metrics import frechet_distance, sliced_w2
from fewstep.paths import Path
from fewstep.restoration import Mask, Measurement, restore
from fewstep.solvers.resampling import Resampling
from fewstep.worlds import GaussianMixture

FLOWCHEF = "Steering Rectified Flow Models in the Vector Field for Controlled Image Generation"
STEERED = "Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis"
COUNT, STEPS = 50, 15
LABEL = torch.arange(COUNT) % 10


def _not_read(x0: Tensor) -> Tensor:
    """−log p(class | x̂₀) of the shipped classifier."""
    return torch.nn.functional.cross_entropy(judge().network(x0.float()), LABEL, reduction="none").to(x0.dtype)


@cache
def _digits(name: str, guide: Guide | None, solver: str) -> tuple[float, float, float, str]:
    """(read as asked, Fréchet distance, seconds, all in words) of digits of no class, steered."""
    began = time.perf_counter()
    x = drawn(COUNT, STEPS, [guide] if guide else [], label=[NONE] * COUNT, solver=solver)
    seconds = time.perf_counter() - began
    right, far = accuracy(x, LABEL.tolist()), float(distance(x))
    return right, far, seconds, f"{name} {right:.0%}, {far:.2f}, {seconds:.0f} s"


@claim(
    paper=FLOWCHEF,
    method="flowchef",
    says="On a flow model a classifier steers without a gradient through the network, about as well and twice as fast.",
    figure="RF++, ImageNet-64, 15 steps: FID 4.29 to 3.13 skipped (5.9 s) and 2.77 through the network (12.8 s)",
)
def a_skipped_gradient_steers_a_flow() -> Measured:
    plain = _digits("none", None, "euler")
    skipped = _digits("skipped", FlowChef(_not_read, 4.0), "euler")
    through = _digits("through the network", Steered(((40.0, _not_read),)), "euler")
    figure = (
        f"{COUNT} unconditional digits, {STEPS} steps of euler; read as asked by the classifier that steered, Fréchet "
        f"distance to 1,000 real digits, time: {plain[3]}; {skipped[3]}; {through[3]}"
    )
    return Measured(figure, skipped[0] > 0.9 and skipped[1] < plain[1] and skipped[2] < through[2])


def _world(path: Path) -> tuple[list[float], float, float]:
    """(cosines of the skipped and the full gradient by λ, the residual and mean log-density of steered samples)."""
    world, cosines = twenty_modes(), []
    y = world.sample(1, seed=9)[:, :16]
    noise = torch.randn(200, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def loss(x0: Tensor) -> Tensor:
        return (x0[:, :16] - y).square().sum(1)

    for lam in (-2.0, 0.0, 2.0, 4.0):
        t = path.t_of_lam(torch.tensor(lam, dtype=torch.float64))
        x = (path.alpha(t) * world.sample(200, seed=1) + path.sigma(t) * noise).requires_grad_()
        believed = world.denoise(x, path, t)
        (full,) = torch.autograd.grad(loss(believed).sum(), x, retain_graph=True)
        (skipped,) = torch.autograd.grad(loss(believed).sum(), believed)
        cosines.append(float(torch.cosine_similarity(full, skipped).mean()))
    times = path.t_of_lam(torch.linspace(-4, 5, 21, dtype=torch.float64))
    plan = make_plan(path, "ddim", times)
    x = sample(world.denoiser(path), start=path.sigma(times[0]) * noise, plan=plan, guides=[FlowChef(loss, 0.3)]).x
    return cosines, float(loss(x).mean()), float(world.log_density(x, path, 0.02).mean())


@claim(
    paper=FLOWCHEF,
    method="flowchef",
    says="The gradient may be skipped on a straight flow and not with DDIM; the two gradients agree ever better to the "
    "end.",
    figure="ImageNet-64, skipped: DDIM of 50 steps from FID 5.4 to 19.3, RF++ from 4.3 to 3.1",
)
def skipping_needs_a_straight_flow() -> Measured:
    (cosines, met, likely), (same, met_vp, likely_vp) = _world(Flow()), _world(VP())
    figure = (
        f"20 modes in 64 dimensions, 16 of them measured, 20 steps, size 0.3; mean log-density and squared residual of "
        f"the samples: flow {likely:.1f}, {met:.4f}; VP {likely_vp:.1f}, {met_vp:.4f}. Cosine of the two gradients at "
        f"λ = −2, 0, 2, 4: {', '.join(f'{c:.2f}' for c in cosines)} on both paths"
    )
    why = (
        "With an exact network the cosine depends on λ alone, so it cannot be the reason. We think it is that on the "
        "flow the state takes all of a change of x̂₀ from the first step on and on VP only α of it."
    )
    apart = max(abs(a - b) for a, b in zip(cosines, same, strict=True))
    return Measured(figure, likely > likely_vp and met < met_vp and cosines[-1] > 0.95 and apart < 0.01, why)


def _decibels(x: Tensor, truth: Tensor) -> float:
    return float(10 * (4 / (x.clamp(-1, 1) - truth).square().flatten(1).mean(1)).log10().mean())


@claim(
    paper=FLOWCHEF,
    method="flowchef",
    says="Inpainting without a gradient through the network is better than DPS, and faster.",
    figure="RF++ on 64×64 pictures, 200 steps, s = 500 (0.0814 of the gap a step): 26.32 dB, 4.31 s; DPS 23.61 dB",
)
def the_published_size_fills_in() -> Measured:
    rows = [100 * (i % 10) + i // 10 for i in range(20)]
    truth, none, hidden = digits()[0][rows], [NONE] * 20, Mask.box(28, 28, 9, 9, 10)

    def loss(x0: Tensor) -> Tensor:
        return ((x0 - truth.to(x0)) * hidden.mask).square().flatten(1).sum(1)

    runs: dict[str, Callable[[], Tensor]] = {
        "no guide": lambda: drawn(20, 50, [], label=none, solver="euler"),
        "FlowChef": lambda: drawn(20, 50, [FlowChef(loss, 500 / 12288)], label=none, solver="euler"),
    }
    measured = Measurement.simulate(hidden, truth)
    for scale in (0.5, 1.0):
        runs[f"DPS of {scale:g}"] = lambda scale=scale: restore(  # type: ignore[misc]
            model(), measured, "dps", evaluations=50, cond={"label": none}, scale=scale
        ).x.reshape(truth.shape)
    drawn(20, 1, [], label=none)  # the first call of all is slow
    found = {}
    for name, run in runs.items():
        began = time.process_time()
        found[name] = (_decibels(run(), truth), time.process_time() - began)
    figure = ", ".join(f"{name} {psnr:.1f} dB in {seconds:.0f} s" for name, (psnr, seconds) in found.items())
    ours, theirs = found["FlowChef"], max(v for k, v in found.items() if k.startswith("DPS"))
    return Measured(
        f"20 digits with a hidden square of 10×10, the unconditional flow model, 50 evaluations: {figure}",
        ours[0] > theirs[0] and ours[1] < theirs[1],
        "It is faster and not better, and 200 steps come to 17.8 dB. The skipped gradient of a mask is 0 where nothing "
        "is seen, so what is hidden only follows by the network's next answers, whereas DPS moves it at once; we think "
        "that is why.",
    )


@claim(
    paper=STEERED,
    method="steered",
    says="Losses of an inverse model turn an unconditional model into a conditional one, at no training.",
    figure="semantic, identity and text conditions on faces, best of the zero-shot methods; figures not checked by us",
)
def losses_make_a_conditional_model() -> Measured:
    rows = [
        _digits(f"λ = {size:g}", Steered(((size, _not_read),)) if size else None, "ddpm") for size in (0.0, 10.0, 40.0)
    ]
    figure = (
        f"{COUNT} unconditional digits, {STEPS} steps of ddpm; read as asked by the classifier that steered, Fréchet "
        f"distance to 1,000 real digits, time: {'; '.join(row[3] for row in rows)}"
    )
    return Measured(figure, rows[2][0] > rows[1][0] > rows[0][0] + 0.5 and rows[2][1] < rows[0][1])


@claim(
    paper=STEERED,
    method="steered-linear",
    says="A linear condition is met exactly and works together with a loss of a network.",
    figure="inpainting and colourisation of faces, several conditions at once; pictures",
)
def a_linear_condition_is_met_with_a_loss() -> Measured:
    real, label = digits()
    rows = [100 * (i % 10) + i // 10 for i in range(COUNT)]
    truth, seen = real[rows], torch.zeros(28, 28)
    seen[:14] = 1
    linear = SteeredLinear(lambda x: x * seen, lambda y: y, truth * seen)
    words, found = [], []
    for name, guides in (("paste", [linear]), ("paste and loss", [Steered([(10.0, _not_read)]), linear])):
        x = drawn(COUNT, STEPS, guides, label=[NONE] * COUNT, solver="ddpm")
        off = float(((x - truth) * seen).abs().max())
        found.append((off, accuracy(x, label[rows].tolist())))
        words.append(f"{name}: off by {off:.1e}, {found[-1][1]:.0%} read as the true digit")
    figure = f"{COUNT} digits from their upper halves, unconditional model, {STEPS} steps of ddpm: {'; '.join(words)}"
    return Measured(figure, max(off for off, _ in found) < 1e-5 and found[1][1] > found[0][1])


def _missing_half() -> tuple[Denoiser, Measurement, Tensor, Callable[[int], Tensor]]:
    """(the exact network, half of a sample, that half, draws of the exact posterior) of a mixture in 16 dimensions."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=generator)
    at = torch.arange(16, dtype=torch.float64)
    covariance = 0.5 * (-(at[:, None] - at).abs() / 8).exp()
    world = GaussianMixture.full([0.5, 0.3, 0.2], means, covariance.expand(3, 16, 16))
    half = Mask((torch.arange(4)[:, None] < 2).double().expand(4, 4))
    truth = world.sample(1, seed=3)
    measured = Measurement.simulate(half, truth)
    seen = torch.eye(16, dtype=torch.float64)[half.mask.expand(1, 4, 4).flatten() > 0]
    posterior = world.posterior(seen, truth.flatten() @ seen.mT, 1e-3)
    return world.denoiser(VP()), measured, truth * half.mask, lambda seed: posterior.sample(2000, seed=seed)


@claim(
    paper=STEERED,
    method="steered-linear",
    says="Correcting the answer itself is better than DPS, which corrects the state by a gradient.",
    figure="best of the zero-shot methods on inpainting, colouring and enlarging; figures not checked by us",
)
def correcting_the_answer_against_dps() -> Measured:
    den, measured, known, exact = _missing_half()
    hidden = measured.operator.mask  # type: ignore[attr-defined]
    linear = SteeredLinear(lambda x: x * hidden, lambda y: y, known)
    sets = {"plain": sample(den, 2000, solver="ddpm", steps=50, dtype=torch.float64).x}
    for repeats in (1, 4):
        solver, name = ("ddpm", "Steered") if repeats == 1 else (Resampling(1, repeats), f"Steered, {repeats} passes")
        sets[name] = sample(den, 2000, solver=solver, steps=50, guides=[linear], dtype=torch.float64).x
    for scale in (0.3, 1.0):
        sets[f"DPS of {scale:g}"] = restore(
            den, measured, "dps", evaluations=50, samples=2000, scale=scale, dtype=torch.float64
        ).x.reshape(2000, 1, 4, 4)
    truth = exact(1)
    rows = {name: float(sliced_w2(x.flatten(1), truth.flatten(1))) for name, x in sets.items()}
    off = float(((sets["Steered"] - known) * hidden).abs().max())
    figure = (
        f"a mixture in 16 dimensions, half of a sample known, 50 steps; sliced W2 of 2,000 samples to the exact "
        f"posterior: {', '.join(f'{k} {v:.3f}' for k, v in rows.items())}; of two exact sets "
        f"{float(sliced_w2(exact(2).flatten(1), truth.flatten(1))):.3f}; the known half is off by {off:.1e}"
    )
    why = (
        "The known half is exact, the hidden one is not: pasting tells the network of the known half only by its next "
        "states, whereas DPS's gradient through an exact network moves what is hidden at once."
    )
    holds = off < 1e-9 and rows["Steered"] < min(rows["DPS of 0.3"], rows["DPS of 1"])
    return Measured(figure, holds, why)


@claim(
    paper=STEERED,
    method="steered",
    says="The weight of a loss sets how surely its condition is met.",
    figure="weights from 10 to 30,000 by task in the authors' code",
)
def the_weight_sets_how_surely_a_class_is_met() -> Measured:
    generator = torch.Generator().manual_seed(0)
    means = 0.8 * torch.randn(4, 8, dtype=torch.float64, generator=generator)
    world = GaussianMixture([0.4, 0.3, 0.2, 0.1], means, torch.full((4, 1), 0.1), component_labels=range(4))
    truth = world.sample(1000, seed=1, label=3)

    def loss(x0: Tensor) -> Tensor:
        return -world.component_posterior(x0, VP(), 1e-3).clamp_min(1e-30).log()[:, 3]

    rows = {}
    for weight in (0.0, 0.3, 1.0, 3.0, 10.0):
        x = sample(
            world.denoiser(VP()), 1000, solver="ddpm", steps=50, guides=[Steered([(weight, loss)])], dtype=torch.float64
        ).x
        right = float((world.component_posterior(x, VP(), 1e-3).argmax(1) == 3).double().mean())
        rows[weight] = (right, float(sliced_w2(x, truth)), float(frechet_distance(x, truth)))
    told = "; ".join(f"{w:g}: {right:.0%}, {far:.3f}, {away:.2f}" for w, (right, far, away) in rows.items())
    figure = (
        f"a class of weight 0.1 of four Gaussians in 8 dimensions, its exact −log p, 50 steps of ddpm; in the class, "
        f"sliced W2 and Fréchet distance of 1,000 samples to it, by λ: {told}"
    )
    shares = [right for right, *_ in rows.values()]
    return Measured(figure, shares[:4] == sorted(shares[:4]) and shares[3] > 0.9 and rows[1.0][1] < rows[0.0][1])
