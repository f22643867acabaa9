"""PPAP: a classifier of clean samples made to see noise without labels or data; digits, and an exact world."""

from functools import partial

import torch
from torch import Tensor, nn

from claims import Measured, claim
from claims.guidance.judge import NONE, accuracy, digits, drawn, judge, model
from fewstep import VP, make_plan, sample
from fewstep.guidance import ClassifierGuidance, ExpertGuidance, Guide, train_experts
from fewstep.guidance.experts import expert_of, sharpened_divergence
from fewstep.metrics import sliced_w2
from fewstep.worlds import GaussianMixture

MADE, STEPS, RANK, SCALE, COUNT, BEGIN = 400, 250, 16, 10.0, 80, 0.9

DOUBT = "One and five experts differ by little more than the doubt of such shares, which is 5 % each."


def _read(experts: list, t: float) -> float:
    """The share of real digits at time t that the expert of it reads as they are."""
    x, label = digits()
    path, some = model().path, torch.arange(0, 1000, 4)
    noise = torch.randn(len(some), 1, 28, 28, generator=torch.Generator().manual_seed(1))
    noisy = float(path.alpha(t)) * x[some] + float(path.sigma(t)) * noise
    expert = experts[int(expert_of(torch.tensor(t), len(experts)))]
    with torch.no_grad():
        return float((expert(noisy).argmax(1) == label[some]).float().mean())


def _led(experts: list) -> float:
    """The share of unconditional digits that are read as the class they were led to."""
    labels = torch.arange(COUNT) % 10

    def wanted(logits: Tensor) -> Tensor:
        return logits.log_softmax(1)[torch.arange(COUNT), labels]

    path, guide = model().path, ExpertGuidance(experts, wanted, SCALE)
    # σ²/α has no bound towards t = 1, where no classifier's gradient is exact enough: the run begins a little below.
    plan = make_plan(path, "ddim", torch.linspace(BEGIN, 0, 17, dtype=torch.float64))
    start = torch.randn(COUNT, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    cond = {"label": [NONE] * COUNT}
    x = sample(model(), start=float(path.sigma(BEGIN)) * start, plan=plan, guides=[guide], cond=cond).x
    return accuracy(x, labels.tolist())


@claim(
    paper="Towards Practical Plug-and-Play Diffusion Models",
    method="ppap",
    says="A network of clean data fails to guide; experts of noise ranges, made without data, do, and better than one.",
    figure="ImageNet 256, ResNet50: single noise-aware network FID 30.4; five experts about 29.7, ten 27.9 (unsettled)",
)
def experts_guide_where_a_clean_network_fails() -> Measured:
    clean = judge().network
    made = drawn(MADE, 6, solver="dpm-solver++").clamp(-1, 1)
    rows = {"as it is": [clean]}
    for count in (1, 5):
        rows[f"{count} expert{'s' * (count > 1)}"] = train_experts(
            clean, model().path, made, count, steps=STEPS, batch=64, rank=RANK, rate=1e-2
        )
    read = {name: [_read(experts, t) for t in (0.3, 0.5, 0.7)] for name, experts in rows.items()}
    led = {name: _led(experts) for name, experts in rows.items()}
    told = "; ".join(f"{name} {', '.join(f'{r:.0%}' for r in read[name])}, led {led[name]:.0%}" for name in rows)
    figure = (
        f"the shipped classifier, adapted by rank {RANK} in {STEPS} steps in all on {MADE} digits that the model made; "
        f"real digits read right at t = 0.3, 0.5, 0.7, and {COUNT} unconditional digits led to their class by scale "
        f"{SCALE}: {told}"
    )
    plain, one, five = led.values()
    return Measured(figure, plain < one < five, DOUBT)


@claim(
    paper="Towards Practical Plug-and-Play Diffusion Models",
    method="ppap",
    says="A clean classifier fails on noisy samples, one that has seen all noises is better, several experts the best.",
    figure="ImageNet 256, ResNet50, 25 steps: supervised, one network FID 30.4 and five experts 20.0 (unsettled)",
)
def experts_against_the_exact_posterior() -> Measured:
    generator, path = torch.Generator().manual_seed(0), VP()
    means = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    world = GaussianMixture([1.0] * 6, means, torch.full((6, 1), 0.05), component_labels=[0, 0, 1, 1, 2, 2])
    den, truth, data = world.denoiser(path), world.sample(1000, seed=1, label=1), world.sample(4000, seed=2)

    def log_class(x: Tensor, t: Tensor | float) -> Tensor:
        return world.log_density(x, path, t, 1) - world.log_density(x, path, t)

    def classes(x: Tensor) -> Tensor:
        return world.component_posterior(x, path, 1e-3).reshape(len(x), 3, 2).sum(2)

    clean = _clean_network(data.float(), classes(data).float())
    soft = partial(sharpened_divergence, temperature=1.0)
    experts = {n: train_experts(clean, path, data.float(), n, loss=soft, steps=1500, rate=2e-2) for n in (1, 2, 5)}

    def by(some: list) -> Guide:
        return ExpertGuidance(some, lambda logits: logits.log_softmax(1)[:, 1].double(), 1.0)

    guides: dict[str, Guide] = {
        "exact": ClassifierGuidance(log_class, 1.0), "clean": by([lambda x: clean(x.float())]),
        "of the answer": ClassifierGuidance(lambda x, t: log_class(den(x, t), 1e-3)),
        **{f"{n} expert{'s' * (n > 1)}": by(some) for n, some in experts.items()},
    }  # fmt: skip
    rows = {}
    for name, guide in guides.items():
        x = sample(den, 1000, solver="ddim", steps=50, guides=[guide], dtype=torch.float64).x
        rows[name] = (float(sliced_w2(x, truth)), float((classes(x).argmax(1) == 1).double().mean()))
    told = "; ".join(f"{name} {far:.3f}, {right:.0%}" for name, (far, right) in rows.items())
    figure = (
        f"three classes of two Gaussians in four dimensions, 50 steps of ddim, scale 1, an MLP of clean samples "
        f"adapted by rank 16 in 1,500 steps in all; sliced W2 of 1,000 samples to the class, and the share in it, "
        f"guided by: {told}"
    )
    one, two, five = (rows[name][0] for name in ("1 expert", "2 experts", "5 experts"))
    return Measured(figure, five < min(two, one) and one < rows["clean"][0])


def _clean_network(x: Tensor, share: Tensor) -> nn.Module:
    """A classifier of clean samples x, trained on the shares of their classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 3))
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(300):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), share).backward()
            optimiser.step()
    return net.requires_grad_(False)
