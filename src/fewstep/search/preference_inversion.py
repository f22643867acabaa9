"""PAHI: the start noise's distribution, made for each prompt so that a differentiable preference rises.

    x_T = σ(T)·(m(c) + ς(c)⊙ε),     max over h of  E_{c, ε}[S(f(x_T, c), c)] − β·KL(N(m, ς²) ‖ N(0, I)),

with (m, log ς) = h(c) a small network on the prompt's features c, and f the sampler of one or few steps, whose weights
stay as they are.  h begins at m = 0, ς = 1, the plain sampler.  Without the KL = ½Σ(ς² + m² − 1 − log ς²) the optimum
has ς → 0, one picture a prompt, wherever S has a maximum; how the paper bounds it we could not find out.

For f linear, f(n) = M n + b, the optima are exact: S = aᵀx gives m = Mᵀa/β, ς = 1; S = −½|x − x*|² with M diagonal
gives m_j = M_j(x*_j − b_j)/(M_j² + β), ς_j² = β/(β + M_j²).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.search.base import Ending, Search
from fewstep.search.particles import count, number
from fewstep.search.rewards import Function, Reward, Scorer, checked_reward
from fewstep.session import Session, prepare


class StartNoise(nn.Module):
    """h: features of a prompt → (m, ς), each of the sample's shape.

    Args:
        shape: of one sample.
        features: how many numbers tell a prompt; 0 for one distribution for all.
        width: of the hidden layer.
    """

    def __init__(self, shape: tuple[int, ...], features: int = 0, width: int = 64) -> None:
        super().__init__()
        self.shape, size = shape, 2 * torch.Size(shape).numel()
        self.hidden = nn.Sequential(nn.Linear(max(features, 1), width), nn.SiLU()) if features else None
        self.last = nn.Linear(width if features else 1, size)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, told: Tensor) -> tuple[Tensor, Tensor]:
        """(m, log ς), each (batch, *shape), of features (batch, features)."""
        seen = self.hidden(told) if self.hidden is not None else torch.ones_like(told[:, :1])
        mean, log_deviation = self.last(seen).chunk(2, 1)
        return mean.reshape(-1, *self.shape), log_deviation.reshape(-1, *self.shape)


def no_features(cond: dict[str, Any], rows: int) -> Tensor:
    """One distribution for all prompts."""
    return torch.zeros(rows, 1)


@dataclass(frozen=True)
class OneHot:
    """The features of a prompt that is a class label.

    Args:
        classes: how many there are, at least 1.
        name: of the condition.
    """

    classes: int
    name: str = "label"

    def __post_init__(self) -> None:
        count("classes", self.classes)

    def __call__(self, cond: dict[str, Any], rows: int) -> Tensor:
        """(rows, classes)."""
        if self.name not in cond:
            raise ArgumentError(f"prompts are told apart by the condition {self.name!r}, which the run does not have")
        labels = cond[self.name].long()
        if bool(((labels < 0) | (labels >= self.classes)).any()):
            raise ArgumentError(f"{self.name!r} must lie from 0 to {self.classes - 1}, got {labels.tolist()[:8]}")
        return nn.functional.one_hot(labels, self.classes).float()


Features = Callable[[dict[str, Any], int], Tensor]


@dataclass(frozen=True, eq=False)
class InvertedNoise(Search):
    """Samples from a fitted start noise; what `PAHI.fit` gives, and a search itself.

    Args:
        noise: the fitted h.
        features: conditions → what h is told.
        reward: what scores the samples, once each.
        losses: −(S − β·KL) of every iteration.
    """

    solver: ClassVar[str] = "ddim"
    noise: StartNoise
    features: Features
    reward: Function | Reward
    losses: tuple[float, ...] = ()

    def run(self, session: Session, started: bool) -> Ending:
        """One path from each tailored noise."""
        if started:
            raise ArgumentError("PAHI chooses the start noise itself and takes no start")
        told = self.features(session.cond, len(session.start)).to(session.start.device)
        mean, log_deviation = (v.to(session.start.dtype) for v in self.noise(told))
        sigma = float(session.program.plan.path.sigma(session.program.plan.times[0]))
        start = sigma * mean + log_deviation.exp() * session.start
        x, evaluations = _through(session, start)
        scorer = Scorer(self.reward, session.cond, len(x))
        scores = scorer(x)
        return Ending(x, evaluations, scorer.calls, scores)


@method(
    name="pahi", papers=["Model-Agnostic Human Preference Inversion in Diffusion Models"], arxiv="2404.00879",
    family="search", summary="The start noise's distribution is learnt for each prompt, the model left as it is.",
)  # fmt: skip
@dataclass(frozen=True)
class PAHI(Search):
    """Prompt-adaptive preference inversion; as a search it is fitted to the run's own prompts, then sampled from.

    Args:
        reward: S, differentiable, a callable on pictures or a `Reward` that is told conditions.
        features: conditions → features of the prompt, such as `OneHot(10)`; one distribution for all unless given.
        pull: β ≥ 0, the weight of the KL to N(0, I).
        iterations: of Adam, at least 1; its rate falls to 0 by a cosine.
        batch: noises of an iteration, at least 1, prompts in turn.
        rate: Adam's first rate, more than 0.
        width: of h's hidden layer, at least 1.

    Raises:
        ArgumentError: a parameter out of its range; a plan that draws noise.
    """

    solver: ClassVar[str] = "ddim"
    reward: Function | Reward
    features: Features | None = None
    pull: float = 0.01
    iterations: int = 200
    batch: int = 32
    rate: float = 0.03
    width: int = 64

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "width"):
            count(name, getattr(self, name))
        number("pull", self.pull)
        number("rate", self.rate, open_=True)
        checked_reward(self.reward)
        if self.features is not None and not callable(self.features):
            raise ArgumentError(f"features must be a callable such as OneHot(10), or None, got {self.features!r}")

    def run(self, session: Session, started: bool) -> Ending:
        """Fit to the prompts of the run, then one path each."""
        fitted, spent, scored = self._fitted(session, started)
        end = fitted.run(session, False)
        rows = len(session.start)
        return replace(end, evaluations=end.evaluations + -(-spent // rows), calls=end.calls + -(-scored // rows))

    def fit(self, denoiser: Denoiser, n: int = 1, *, seed: int = 0, **options: Any) -> InvertedNoise:
        """Fit h once, for use with any number of samples.

        Args:
            denoiser: the model.
            n: how many prompts `cond` holds, taken in turn.
            seed: of the noises.
            options: those of `sample`; solver="ddim" and steps=1 unless given.
        """
        options = self.options(denoiser, dict(options))
        if options.get("plan") is None and options.get("steps") is None and options.get("evaluations") is None:
            options["steps"] = 1
        return self._fitted(prepare(denoiser, n, seed=seed, **options), False)[0]

    def _fitted(self, session: Session, started: bool) -> tuple[InvertedNoise, int, int]:
        """(the fitted noise, evaluations spent, pictures scored)."""
        if started:
            raise ArgumentError("PAHI chooses the start noise itself and takes no start")
        plan, denoiser = session.program.plan, session.program.denoiser
        if plan.stochastic:
            raise ArgumentError("PAHI needs a deterministic map from noise to sample: take solver='ddim' or another")
        features, rows = self.features or no_features, len(session.start)
        told = features(session.cond, rows).to(session.start.device)
        generator = torch.Generator().manual_seed(session.noise.seed % 2**63)
        with torch.random.fork_rng():
            torch.manual_seed(session.noise.seed % 2**63)
            h = StartNoise(denoiser.shape, told.shape[1] if self.features else 0, self.width).to(session.start.device)
        optimiser = torch.optim.Adam(h.parameters(), self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.iterations)
        sigma, losses, each = float(plan.path.sigma(plan.times[0])), [], 0
        for i in range(self.iterations):
            which = (torch.arange(self.batch) + i * self.batch) % rows
            cond = {k: v[which] if isinstance(v, Tensor) and v.ndim else v for k, v in session.cond.items()}
            drawn = torch.randn(self.batch, *denoiser.shape, generator=generator).to(session.start)
            with torch.enable_grad():
                mean, log_deviation = (v.to(drawn.dtype) for v in h(told[which]))
                x, each = _through(replace(session, cond=cond), sigma * (mean + log_deviation.exp() * drawn))
                loss = self._loss(x, cond, mean, log_deviation)
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        told_losses = torch.stack(losses).tolist()
        cost = self.iterations * self.batch
        return InvertedNoise(h, features, self.reward, tuple(told_losses)), cost * each, cost

    def _loss(self, x: Tensor, cond: dict[str, Any], mean: Tensor, log_deviation: Tensor) -> Tensor:
        """−S + β·KL, the mean over the batch."""
        scores = Scorer(self.reward, cond, len(x)).differentiable(x)
        divergence = 0.5 * ((2 * log_deviation).exp() + mean.square() - 1 - 2 * log_deviation).flatten(1).sum(1)
        return (-scores + self.pull * divergence).mean()


def _through(session: Session, start: Tensor) -> tuple[Tensor, int]:
    """(the samples of starts, with the graph that led there; evaluations of each)."""
    run = session.program.start(start, session.cond, session.noise)
    for index in range(session.program.plan.steps):
        session.program.step(run, index)
    x = run.registers[0]
    assert x is not None
    return x, run.evaluations
