"""PPAP on the shipped digits: a classifier of clean digits made to see noise without labels or data."""

import torch
from torch import Tensor

from claims import Measured, claim
from claims.guidance.judge import NONE, accuracy, digits, drawn, judge, model
from fewstep import make_plan, sample
from fewstep.guidance import ExpertGuidance, train_experts
from fewstep.guidance.experts import expert_of

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
