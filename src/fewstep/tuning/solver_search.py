"""S³, the search among samplers of the unified framework: times, orders, predictions, derivatives, scales, correctors.

A stage tries plans on some noises and measures log RMSE to the flow; a model of what was seen (optuna's tree-structured
Parzen estimator) proposes every other plan, and the rest are mutations of the best so far, without which nothing is
gained where many steps have too many choices for the model.  The best plans of a stage are measured again on twice as
many noises and begin the next.  Times are λ: gap i of the grid even in λ is multiplied by g_i before all are scaled to
fit, and the last level before the data is free too.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, require
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.levels import times_of, top_level
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.unified_sampling import PREDICTIONS, SCALES, SCHEMES, Choice, unified_plan

STAGES = 3
# Trials before the model proposes, and plans that go on to the next stage.
RANDOM, KEPT = 12, 6
# How many of a place's entries a mutation changes on average, and the deviation of a changed number's logarithm.
MUTATED, NEAR = 3, 0.2
CONSTANT = (
    Choice(),
    Choice(corrected=True),
    Choice(order=3, scale="none"),
    Choice(order=3, corrected=True),
    Choice(order=2, prediction="noise"),
)


def space(steps: int) -> dict[str, Any]:
    """What is searched, by name, as optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {"bottom": FloatDistribution(0.002, 0.1, log=True)}
    for i in range(steps):
        if i < steps - 1:
            found[f"gap {i}"] = FloatDistribution(0.4, 2.5, log=True)
            found[f"corrected {i}"] = CategoricalDistribution((False, True))
        if 0 < i < steps - 1:
            found[f"order {i}"] = CategoricalDistribution((1, 2, 3, 4))
            found[f"scheme {i}"] = CategoricalDistribution(SCHEMES)
            found[f"scale {i}"] = CategoricalDistribution(SCALES)
        found[f"prediction {i}"] = CategoricalDistribution(PREDICTIONS)
    return found


def constant(choice: Choice, steps: int) -> dict[str, Any]:
    """The place of one choice for all steps, on the grid even in λ."""
    place: dict[str, Any] = {}
    for name in space(steps):
        key = name.split(" ")[0]
        place[name] = {"bottom": 0.01, "gap": 1.0}[key] if key in ("bottom", "gap") else getattr(choice, key)
    return place


def mutated(place: dict[str, Any], distributions: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A place near another: some of its numbers times e^z, z of deviation 0.2, and of its choices drawn anew."""
    from optuna.distributions import CategoricalDistribution

    found = dict(place)
    for name, kind in distributions.items():
        if len(distributions) * rng.random() >= MUTATED:
            continue
        if isinstance(kind, CategoricalDistribution):
            found[name] = rng.choice(kind.choices)
        else:
            found[name] = min(max(place[name] * math.exp(rng.gauss(0.0, NEAR)), kind.low), kind.high)
    return found


def plan_at(path: Path, place: dict[str, Any], steps: int) -> Plan:
    """The plan of a place in the space."""
    top, bottom = math.log(top_level(path)), math.log(place["bottom"])
    gaps = torch.tensor([place[f"gap {i}"] for i in range(steps - 1)], dtype=torch.float64)
    share = torch.cat([torch.zeros(1, dtype=torch.float64), gaps.cumsum(0) / gaps.sum()])
    levels = (top + (bottom - top) * share).exp()
    times = times_of(path, torch.cat([levels, torch.full((1,), 1e-9, dtype=torch.float64)]))
    keys = ("order", "prediction", "scheme", "scale", "corrected")
    choices = [Choice(**{k: place[f"{k} {i}"] for k in keys if f"{k} {i}" in place}) for i in range(steps)]
    return unified_plan(path, times, choices, {"solver": "unified", "choices": {k: place[k] for k in sorted(place)}})


@method(
    name="usf",
    papers=["A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models"],
    arxiv="2312.07243", family="tuning",
    summary="A search over what every step of a multistep method is: time, order, prediction, derivatives, corrector.",
)  # fmt: skip
@dataclass(frozen=True)
class SolverSearch(Tuner):
    """The best sampler found among those of the unified framework.

    Args:
        trials: plans that are tried, over all stages, at least 20; fewer where the budget ends.
    """

    trials: int = 180

    def __post_init__(self) -> None:
        if not isinstance(self.trials, int) or self.trials < 20:
            raise ArgumentError(f"trials must be an integer of at least 20, got {self.trials!r}")

    def __call__(self, problem: Problem) -> Plan:
        """The plan.

        Raises:
            MissingExtraError: optuna is not installed.
        """
        try:
            import optuna
        except ImportError as error:
            raise require("optuna", "tune") from error
        spoke = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            return plan_at(problem.denoiser.path, self._search(problem), problem.evaluations)
        finally:
            optuna.logging.set_verbosity(spoke)

    def _search(self, problem: Problem) -> dict[str, Any]:
        """The best place of the last stage that the budget reached."""
        start, ends = problem.pairs(problem.samples, part=1)
        steps = problem.evaluations
        places: list[dict[str, Any]] = [constant(choice, steps) for choice in CONSTANT]
        best = places[0]
        for stage in range(STAGES):
            rows = max(2, problem.samples >> (STAGES - 1 - stage))
            tried = self._stage(problem, stage, places, start[:rows], ends[:rows])
            if not tried:
                break
            tried.sort(key=lambda one: one[1])
            places = [place for place, _ in tried[:KEPT]]
            best = places[0]
            problem.tell(f"stage {stage + 1} of {STAGES}: error {math.exp(tried[0][1]):.4g} on {rows} noises")
        return best

    def _stage(
        self, problem: Problem, stage: int, places: list[dict[str, Any]], start: Tensor, ends: Tensor
    ) -> list[tuple[dict[str, Any], float]]:
        """Every place that a stage tried, with its log error; those given come first."""
        import optuna

        steps, name = problem.evaluations, f"stage {stage}"
        distributions = space(steps)
        study = optuna.create_study()
        tried: list[tuple[dict[str, Any], float]] = [(dict(p), v) for p, v in problem.state.get(name, [])]
        for place, value in tried:
            study.add_trial(optuna.trial.create_trial(params=place, distributions=distributions, value=value))
        while len(tried) < self.trials // STAGES and problem.left(problem.run_cost(steps, len(start))):
            # Seeded by its number, a trial is the same whether the search was stopped before it or not.
            seed = (problem.seed * 1000 + stage) * 100003 + len(tried)
            study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=RANDOM)
            if len(tried) < len(places):
                study.enqueue_trial(places[len(tried)])
            elif len(tried) % 2:
                best = min(tried, key=lambda one: one[1])[0]
                study.enqueue_trial(mutated(best, distributions, random.Random(seed)))
            trial = study.ask(distributions)
            value = self._error(problem, plan_at(problem.denoiser.path, trial.params, steps), start, ends)
            study.tell(trial, value)
            tried.append((dict(trial.params), value))
            problem.record(math.exp(min(v for _, v in tried)))
            problem.keep(**{name: [list(one) for one in tried]})
        return tried

    @staticmethod
    def _error(problem: Problem, plan: Plan, start: Tensor, ends: Tensor) -> float:
        """The mean over noises of log RMSE; at most that of a sample that has nothing to do with its end."""
        off = (problem.run(plan, start) - ends).flatten(1).square().mean(1).sqrt()
        return float(off.clamp(1e-12, 1e6).log().mean())

    def untuned(self, problem: Problem) -> Plan:
        """UniPC-2 on the grid even in λ: one of the constant choices that the search begins with."""
        return make_plan(problem.denoiser.path, "unipc", "logsnr", evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The flow's ends, and one trial."""
        return problem.pairs_cost(problem.samples) + problem.run_cost(problem.evaluations, problem.samples)
