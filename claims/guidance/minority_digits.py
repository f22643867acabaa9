"""Minority samples of the shipped digits model: its own score of rarity, and the distance to real digits."""

from functools import cache

import torch
from torch import Tensor, nn

from claims import Measured, claim
from claims.guidance.judge import NONE, digits, distance, drawn, judge, model, seen_digits
from fewstep import make_plan, sample
from fewstep.guidance import MinorityGuidance, SelfGuidedMinority, minority_classes, minority_score

COUNT, STEPS, CLASSES = 50, 12, 4


def _score(x: Tensor) -> Tensor:
    return minority_score(model(), x, 0.6, draws=2, label=torch.full((len(x),), NONE))


def _row(x: Tensor) -> tuple[float, float, float]:
    """(mean minority score, mean distance to the five nearest of 1,000 real digits, Fréchet distance to them)."""
    near = torch.cdist(judge()(x), seen_digits()).topk(5, largest=False).values
    return float(_score(x).mean()), float(near.mean()), float(distance(x))


def _told(row: tuple[float, float, float]) -> str:
    return f"{row[0]:.4f}, {row[1]:.2f}, {row[2]:.2f}"


class _Rarity(nn.Module):
    """A small classifier of noisy digits: the class of rarity from x and λ."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 16, 5, 2, 2), nn.Conv2d(16, 32, 5, 2, 2)
        self.last = nn.Linear(32 * 49, CLASSES)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = model().path.lam(t).clamp(-6, 6).to(x.dtype) / 6
        told = level.reshape(-1, 1, 1, 1).expand(len(x), 1, 28, 28)
        seen = nn.functional.silu(self.first(torch.cat([x, told], 1)))
        return self.last(nn.functional.silu(self.second(seen)).flatten(1))


@cache
def _classifier() -> tuple[nn.Module, float]:
    """The classifier, trained on the real digits' quantiles of rarity, and its accuracy near the data."""
    x, path = digits()[0], model().path
    target = minority_classes(_score(x), CLASSES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = _Rarity()
        optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
        for _ in range(400):
            rows = torch.randint(len(x), (128,))
            t = torch.rand(128, 1, 1, 1, dtype=torch.float64)
            noisy = path.alpha(t).float() * x[rows] + path.sigma(t).float() * torch.randn(128, 1, 28, 28)
            loss = nn.functional.cross_entropy(net(noisy, t), target[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.requires_grad_(False)
    right = net(x, torch.tensor(0.05, dtype=torch.float64)).argmax(1) == target
    return net.eval(), float(right.float().mean())


@claim(
    paper="Don't Play Favorites: Minority Guidance for Diffusion Models",
    method="minority",
    says="A classifier of rarity, trained on the model's own scores, leads to samples as rare as its class.",
    figure="higher neighbour distance, outlier factor and rarity than plain sampling on CelebA, CIFAR-10 and LSUN",
)
def a_trained_classifier_leads_to_rare_digits() -> Measured:
    net, right = _classifier()
    # Near t = 1 the state says nothing, and whatever a classifier makes of it is multiplied by σ²/α.
    guides = [[], *([MinorityGuidance(net, target, 3.5, (0, 0.9))] for target in (0, CLASSES - 1))]
    plan = make_plan(model().path, "ddim", torch.linspace(1, 0, STEPS + 1, dtype=torch.float64))
    rows = [_row(sample(model(), COUNT, plan=plan, guides=g, cond={"label": NONE}).x) for g in guides]
    names = ("plain", "commonest quarter", "rarest quarter")
    figure = (
        f"{COUNT} unconditional digits, {STEPS} steps of ddim, scale 3.5 at t ≤ 0.9, a classifier of {CLASSES} "
        f"quantiles, right on {right:.0%} of what it saw; minority score, distance to the 5 nearest of 1,000 real "
        f"digits, Fréchet distance: {'; '.join(f'{name} {_told(row)}' for name, row in zip(names, rows, strict=True))}"
    )
    return Measured(figure, rows[1][0] < rows[0][0] < rows[2][0] and rows[1][1] < rows[0][1] < rows[2][1])


@claim(
    paper="Self-Guided Generation of Minority Samples Using Diffusion Models",
    method="self-guided-minority",
    says="Without a classifier, samples get rarer by the model's score and by the distance to their neighbours.",
    figure="higher neighbour distance and rarity than plain sampling at comparable quality; figures not checked by us",
)
def self_guided_digits_are_rarer() -> Measured:
    scales = (0.0, 0.1, 0.4)
    rows = [
        _row(drawn(COUNT, STEPS, [SelfGuidedMinority(w, t_noise=0.6, every=2)], label=[NONE] * COUNT)) for w in scales
    ]
    figure = (
        f"{COUNT} unconditional digits, {STEPS} steps of ddim; minority score, distance to the 5 nearest of 1,000 real "
        f"digits, Fréchet distance: {'; '.join(f'w {w:g}: {_told(row)}' for w, row in zip(scales, rows, strict=True))}"
    )
    by_score, by_neighbours = ([row[i] for row in rows] for i in (0, 1))
    why = (
        "The model's own score rises as it should. The features of a classifier of ten digits tell which digit it is "
        "and not how it is drawn, so we think that they say little of rarity."
    )
    return Measured(figure, by_score == sorted(by_score) and by_neighbours == sorted(by_neighbours), why)
