"""GAS: every earlier state and answer weighed freely, from a known solver on, by the teacher's ends and an adversary.

With m_j and X_j the answer and the state j steps back, the known solver's step T (third-order multistep) and the told
time of every answer shifted, a step is (Oganov et al. 2026)

    x′ = T(x, m₀, m₁, m₂) + Σ_{j≤i} â_ij·(k′/k_j)·X_j + Σ_{j≤i} ĉ_ij·m_j,      m₀ from ε̂(x, t + ξ),

with â, ĉ and ξ free from 0 on, k = α + σ the size of a state (1 in the paper, whose states are all of one size), and
free times t_i = μ₁·…·μ_i, 0 < μ < 1.  First the error to the ends of the flow is descended (the generalised solver);
then a discriminator's loss is added with weight w, whose real samples are the flow's ends from other noises.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan
from fewstep.planning import make_plan
from fewstep.solvers import solver_named
from fewstep.tuning.adam import descend
from fewstep.tuning.adversary import Adversary
from fewstep.tuning.pairs import Pairs
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.rewriting import rewrite, told_noise

THEORY = "dpm-solver++3m"
DEVIATES = "states and answers are weighed freely, so that a step lands on its path only as nearly as it was trained to"
SECOND = "adversarial descent"
# The network is told no time below this part of the state's.
LEAST = 0.01


def generalised(path: Path, times: Tensor, shifts: Tensor, states: Tensor, answers: Tensor) -> Plan:
    """The plan of given numbers; differentiable in them.

    Args:
        path: any.
        times: float64 (steps + 1,), falling.
        shifts: ξ/t, (steps,); not looked at where α = 0.
        states: â, (steps, steps); the column j weighs the state j steps back, and what would reach before the first
            is not looked at.
        answers: ĉ, of the same kind.
    """
    theory = solver_named(THEORY)(path, times)
    steps, t, size = theory.steps, times[:-1], path.alpha(times) + path.sigma(times)
    told = torch.maximum(torch.minimum(t * (1 + shifts), torch.ones_like(t)), LEAST * t)
    told = torch.where(path.alpha(t) > 0, told, t)
    back = range(1, steps)
    kept = [f"{kind}{j}" for kind in ("X", "M") for j in back]
    builder = Builder(times, (*theory.registers, *kept))
    heard = rewrite(builder, theory, told, told_noise(path, t, told))
    for j in range(steps):
        rows = range(j, steps)
        builder.add("x", f"X{j}" if j else "x", states[j:, j] * size[j + 1 :] / size[: steps - j], rows)
        if j:
            builder.add("x", f"M{j}", answers[j:, j], rows)
    for i, terms in enumerate(heard):
        row = range(i, i + 1)
        for source, factor in terms:
            builder.add("x", source, answers[i : i + 1, 0] * factor, row)
            if steps > 1:
                builder.add("M1", source, factor, row)
    for j in back:
        builder.add(f"X{j}", f"X{j - 1}" if j > 1 else "x", 1.0, range(j - 1, steps))
        if j > 1:
            builder.add(f"M{j}", f"M{j - 1}", 1.0, range(j - 1, steps))
    return Plan.build(path, builder, order=1, source={"solver": "gas"}, deviates=DEVIATES)


@method(
    name="gs", papers=["GAS: Improving Discretization of Diffusion ODEs via Generalized Adversarial Solver"],
    arxiv="2510.17699", family="tuning", adversarial=0.0,
    summary="Weigh all earlier states and answers freely, and learn times and told times: the generalised solver.",
)  # fmt: skip
@method(
    name="gas", papers=["GAS: Improving Discretization of Diffusion ODEs via Generalized Adversarial Solver"],
    arxiv="2510.17699", family="tuning",
    summary="The generalised solver with a discriminator's loss in a second stage.",
)  # fmt: skip
@dataclass(frozen=True)
class GeneralisedSolver(Tuner):
    """The generalised adversarial solver (Oganov et al. 2026), with the RMSE to the flow's ends for its distance.

    Args:
        learns: "all", or the "times" (with the told ones) or the "coefficients" alone.
        grid: the nodes of the start.
        rounds: steps of the optimiser in the first stage, unless the budget ends before.
        rate: its learning rate at up to 4 steps, (4/steps)² times that at more: so fast the free numbers become many,
            and all of them move at once.
        batch: noises a step of it.
        adversarial: w, at least 0; 0 for no second stage.
        adversarial_rounds: steps in the second stage, at a tenth of the rate.
        width, penalty, adversary_rate: of the discriminator.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    learns: str = "all"
    grid: str = "uniform"
    rounds: int = 300
    rate: float = 0.01
    batch: int = 32
    adversarial: float = 0.1
    adversarial_rounds: int = 100
    width: int = 64
    penalty: float = 0.2
    adversary_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.learns not in ("all", "times", "coefficients"):
            raise ArgumentError(f"learns must be 'all', 'times' or 'coefficients', got {self.learns!r}")
        if self.adversarial < 0:
            raise ArgumentError(f"adversarial must be at least 0, got {self.adversarial!r}")

    def untuned(self, problem: Problem) -> Plan:
        """The known solver, with which it begins."""
        return make_plan(problem.denoiser.path, THEORY, self.grid, problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The flow's ends, and one batch."""
        return Pairs.least(problem, self.batch)

    def __call__(self, problem: Problem) -> Plan:
        """The tuned plan."""
        pairs, path, steps = Pairs(problem, self.batch), problem.denoiser.path, problem.evaluations
        times = self.untuned(problem).times
        shares = (times[1:-1] / times[:-2]).clamp(max=1 - 1e-6).logit()
        shifts = torch.zeros(steps, dtype=torch.float64)
        weights = torch.zeros(2, steps, steps, dtype=torch.float64)
        learned = {"all": [shares, shifts, weights], "times": [shares, shifts], "coefficients": [weights]}[self.learns]
        for tensor in learned:
            tensor.requires_grad_()

        def plan() -> Plan:
            inner = times[0] * shares.sigmoid().cumprod(0)
            return generalised(path, torch.cat([times[:1], inner, times[-1:]]), shifts, weights[0], weights[1])

        second = self.adversarial_rounds if self.adversarial else 0
        whole = pairs.affordable(self.rounds + second)
        first = -(-whole * self.rounds // (self.rounds + second))
        rate = self.rate * min(1.0, 4 / steps) ** 2
        descend(learned, lambda: pairs.error(plan()), first, rate, **pairs.options)
        if self.adversarial and (SECOND in problem.state or pairs.options["more"]()):
            self._second_stage(problem, pairs, learned, plan, whole - first, rate / 10)
        with torch.no_grad():
            return plan()

    def _second_stage(
        self, problem: Problem, pairs: Pairs, learned: list[Tensor], plan: Callable[[], Plan], rounds: int,
        rate: float,
    ) -> None:  # fmt: skip
        """Both losses together; after a kill the discriminator begins anew."""
        adversary = Adversary(problem.denoiser.shape, self.width, self.penalty, self.adversary_rate, problem.seed)

        def loss() -> Tensor:
            fake, ends = pairs.ran(plan())
            others = torch.randperm(len(pairs.ends), generator=pairs.generator)[: self.batch]
            adversary.learn(fake, pairs.ends[others])
            off = (fake - ends).flatten(1).square().mean(1).add(1e-14).sqrt().mean()
            return off + self.adversarial * adversary.fools(fake, pairs.ends[others])

        options = {**pairs.options, "keep_best": False, "name": SECOND}
        descend(learned, loss, rounds, rate, **options)
