"""Search over paths: paths are noised up a little, come down again, and the best of the branches go on.

    1. N noises, the solver down to level t
    2. from each M branches up to u > t:      x_u = (α_u/α_t)·x_t + √(σ_u² − (α_u/α_t)²σ_t²)·ξ
    3. the solver from u down to t′ < t; x̂₀ there, of one more evaluation, is scored
    4. the best N of the N·M go on from t′; 2 to 4 until the end, and the best of the N is the sample.

Levels are the plan's own times: `back` of them up, `forward` > `back` down.  The axis that is scaled is M.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.search.base import Ending, Search
from fewstep.search.noises import NoiseMap
from fewstep.search.particles import count
from fewstep.search.verifiers import Verifier, mean_ranks
from fewstep.session import Session


@method(
    name="search-over-paths", papers=["Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps"],
    arxiv="2501.09732", family="search", summary="Paths branch upwards, come down again, and the best go on.",
)  # fmt: skip
@dataclass(frozen=True)
class PathSearch(Search):
    """Search over paths, on a plan that has one register and asks once a step, such as ddim's.

    Args:
        verifier: a callable on pictures, a `Reward`, or a `RankEnsemble`.
        paths_kept: N ≥ 1.
        branches: M ≥ 1 of each.
        first: the number of the plan's step before which the first branching stands; a quarter of them unless given.
        back: how many levels a branch goes up, at least 1 and at most `first`.
        forward: how many it then comes down, more than `back`.

    Raises:
        ArgumentError: a parameter out of its range; a plan that draws noise or remembers answers.
    """

    solver: ClassVar[str] = "ddim"
    verifier: Verifier
    paths_kept: int = 2
    branches: int = 4
    first: int | None = None
    back: int = 1
    forward: int = 3

    def __post_init__(self) -> None:
        for name in ("paths_kept", "branches", "back"):
            count(name, getattr(self, name))
        if self.first is not None:
            count("first", self.first)
        count("forward", self.forward, self.back + 1)

    def paths(self) -> int:
        """Refused: branches come and go, so a number of evaluations does not say how many steps fit."""
        raise ArgumentError("search over paths takes steps and no evaluations, since branches come and go")

    def run(self, session: Session, started: bool) -> Ending:
        """Down, then rounds of branches, each as one batch."""
        noises, n, m = NoiseMap(session, self.verifier, started, "search over paths"), self.paths_kept, self.branches
        plan = session.program.plan
        place = max(self.back, plan.steps // 4) if self.first is None else self.first
        if len(plan.registers) > 1 or plan.evaluations != plan.steps:
            raise ArgumentError("search over paths takes a plan that remembers nothing, such as solver='ddim'")
        if not self.back <= place < plan.steps:
            raise ArgumentError(f"first must lie from back, {self.back}, to {plan.steps - 1}, got {place}")
        x = noises.advance(noises.several(n).flatten(0, 1) * noises.sigma, n, range(place))
        while place < plan.steps:
            up, down = place - self.back, min(place - self.back + self.forward, plan.steps)
            drawn = noises.fresh(n * m).flatten(0, 1)
            above = raised(plan.path, plan.times[place], plan.times[up], x, m, drawn)
            x, place = noises.advance(above, n * m, range(up, down)), down
            clean = x if place == plan.steps else self._look(noises, x, place, n * m)
            scores = noises.score(clean.reshape(noises.runs, n * m, *x.shape[1:]))
            kept = mean_ranks(scores).topk(n, 1).indices
            rows = torch.arange(noises.runs, device=x.device)[:, None]
            x = x.reshape(noises.runs, n * m, *x.shape[1:])[rows, kept].flatten(0, 1)
        best = x.reshape(noises.runs, n, *x.shape[1:])[:, 0]
        return Ending(best, noises.evaluations, noises.calls, scores[0][rows[:, 0], kept[:, 0]])

    def _look(self, noises: NoiseMap, x: Tensor, place: int, many: int) -> Tensor:
        """x̂₀ at a time of the plan: its step there, taken for its answer alone."""
        program = noises.program
        run = program.start(x, noises.cond(many), noises.session.noise)
        program.step(run, place)
        noises.evaluations += run.evaluations * many
        return program.preview(run)


def raised(path: Path, t: Tensor, u: Tensor, x: Tensor, branches: int, drawn: Tensor) -> Tensor:
    """M branches of each state, taken from t up to u by the forward kernel."""
    ratio = float(path.alpha(u) / path.alpha(t))
    spread = float((path.sigma(u).square() - ratio**2 * path.sigma(t).square()).clamp_min(0).sqrt())
    return ratio * x.repeat_interleave(branches, 0) + spread * drawn
