"""Improved integration approximation (IIA): every step of a solver gets a few terms more, fitted to finer steps.

With x′ what the solver makes of x and v_k some vectors that it has at hand, a step becomes

    x″ = x′ + Σ_k c_k v_k,      c = argmin E‖x‴ − x″‖,

x‴ where M steps of the same solver for each of its own lead.  The c of a step are some small linear systems, averaged
over noises and entries (`robust_fit`); the next step is fitted from where the fitted ones lead.  In the paper x‴ is the
end of finer steps over one interval from the same x, and E‖·‖² is what is least.  Then each step is nearer to the flow
from where it stands, and yet the end is often farther off: the solver's errors in successive steps partly cancel, and
no step makes up for what an earlier one missed.  Here the finer steps begin at the first noise, so that each does.

With x̂ and ε̂ the answer and its noise at the step's start, x̂₁ and ε̂₁ those of the step before, x̂′ and ε̂′ at Heun's
second point, the vectors are

    "differences"   x̂ − x̂₁, ε̂ − ε̂₁                                  IIA-DDIM, IIA-DPM-Solver; from the second step on
    "noise"         ε̂                                                IIA-DDIM for guided text-to-image
    "advanced"      ε̂, x̂′ − x̂ and the same of the step before        IIA-EDM
    "basic"         Δ = ½(ε̂ + ε̂′) and that of the step before        BIIA-EDM

of which all but "differences" leave the path where the fit wants them to.  Heun's last step, which has one answer,
stays as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.plan import Builder, Plan, Step
from fewstep.planning import make_plan
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.robust_fit import fitted
from fewstep.tuning.teacher import refined, taught

Terms = dict[str | int, float]
RULES = ("differences", "noise", "advanced", "basic")
TOWARDS = ("flow", "step")
KEPT = {
    "differences": ("x̂ before", "ε̂ before"),
    "noise": (),
    "advanced": ("ε̂ before", "x̂′ − x̂ before"),
    "basic": ("Δ before",),
}


def _noise(path: Path, state: str, answer: str | int, t: Tensor) -> Terms:
    """ε̂ = (x − α·x̂)/σ."""
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    return {state: 1 / sigma, answer: -alpha / sigma}


def _sum(parts: list[tuple[float, Terms]]) -> Terms:
    out: Terms = {}
    for factor, terms in parts:
        for source, value in terms.items():
            out[source] = out.get(source, 0.0) + factor * value
    return out


def directions(rule: str, path: Path, step: Step, registers: tuple[str, ...]) -> tuple[list[Terms], dict[str, Terms]]:
    """The vectors that a row may add to x, those of the step before last, and what it keeps for the next step.

    Args:
        rule: one of `RULES`.
        path: the solver's.
        step: a row of the solver's plan that writes x.
        registers: of that plan.
    """
    (asked, t), *_ = step.asks
    if rule in ("differences", "noise"):
        noise, answer = _noise(path, "x", 0, step.t), Terms({0: 1.0})
        if rule == "noise":
            return [noise], {}
        before: list[Terms] = [{0: 1.0, "x̂ before": -1.0}, _sum([(1.0, noise), (-1.0, {"ε̂ before": 1.0})])]
        return before, {"x̂ before": answer, "ε̂ before": noise}
    if registers[asked] != "u":
        return [], {}
    first, second = _noise(path, "x", "m0", step.t), _noise(path, "u", 0, t)
    if rule == "basic":
        mean = _sum([(0.5, first), (0.5, second)])
        past: Terms = {"Δ before": 1.0}
        return [mean, past], {"Δ before": mean}
    moved: Terms = {0: 1.0, "m0": -1.0}
    return [first, moved, {"ε̂ before": 1.0}, {"x̂′ − x̂ before": 1.0}], {"ε̂ before": first, "x̂′ − x̂ before": moved}


def finer(path: Path, start: Tensor, end: Tensor, parts: int) -> Tensor:
    """Times from `start` to `end`, even in ρ^{1/7}; even in t where ρ is infinite at the start."""
    share = torch.linspace(0, 1, parts + 1, dtype=torch.float64)
    ends = torch.exp(-path.lam(torch.stack([start, end])) / 7)
    if not ends.isfinite().all():
        return start + share * (end - start)
    inner = path.t_of_lam(-7 * (ends[0] + share * (ends[1] - ends[0]))[1:-1].log())
    return torch.cat([start[None], inner, end[None]])


class _Walk:
    """The solver's own run on some noises, and the table that is written on the way."""

    def __init__(self, problem: Problem, base: Plan, extra: tuple[str, ...]) -> None:
        self.problem, self.registers = problem, (*base.registers, *extra)
        self.builder = Builder(base.times, self.registers)
        self.values: dict[str | int, Tensor] = {"x": problem.starts(problem.samples, part=1)}

    def ask(self, row: int, register: int, t: Tensor) -> None:
        """The answer of a row, in slot 0."""
        name = self.registers[register]
        self.builder.ask(name, t[None], range(row, row + 1))
        state = self.values[name]
        self.values[0] = self.problem.once(f"answer {row}", lambda: self.problem.believed(state, t))

    def combined(self, terms: Terms) -> Tensor:
        """A linear combination of what is at hand."""
        return torch.stack([value * self.values[source] for source, value in terms.items()]).sum(0)

    def write(self, row: int, writes: dict[str, Terms]) -> None:
        """Take the step, and write it down."""
        for to, terms in writes.items():
            for source, value in terms.items():
                self.builder.add(to, source, value, range(row, row + 1))
        new = {to: self.combined(terms) for to, terms in writes.items()}
        self.values.update(new)


@method(
    name="iia-ddim",
    papers=["On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation"],
    arxiv="2304.11328", family="tuning", solver="ddim", rule="differences",
    summary="DDIM with the last two answers' differences in x and noise, weighted by a fit to finer steps.",
)  # fmt: skip
@method(
    name="iia-ddim-guided",
    papers=["On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation"],
    arxiv="2304.11328", family="tuning", solver="ddim", rule="noise",
    summary="DDIM with its guided noise rescaled by a fit to finer steps, for text-to-image.",
)  # fmt: skip
@method(
    name="iia-dpm-solver",
    papers=["On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation"],
    arxiv="2304.11328", family="tuning", solver="dpm-solver++", rule="differences",
    summary="DPM-Solver++(2M) with the last two answers' differences, weighted by a fit to finer steps.",
)  # fmt: skip
@method(
    name="iia-edm",
    papers=["On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation"],
    arxiv="2304.11328", family="tuning", solver="heun", grid="karras", rule="advanced",
    summary="Heun's method with four vectors of this step and the last, weighted by a fit to finer steps.",
)  # fmt: skip
@method(
    name="biia-edm",
    papers=["On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation"],
    arxiv="2304.11328", family="tuning", solver="heun", grid="karras", rule="basic",
    summary="Heun's method with its mean direction and the last one, weighted by a fit to finer steps.",
)  # fmt: skip
@dataclass(frozen=True)
class ImprovedIntegration(Tuner):
    """A solver with fitted terms.

    Args:
        solver: of the catalogue, deterministic; with one answer a step for the rules "differences" and "noise", and
            "heun" for "advanced" and "basic".
        grid: its grid.
        rule: which vectors are added, see the module.
        parts: M, finer steps in each, at least 2.
        towards: "flow", where finer steps from the first noise on lead; "step", where those over one interval from the
            fitted state lead, as published.
        reweighted: rounds in which noises that went astray come to count less; 0 as published.

    Raises:
        ArgumentError: a parameter out of its range, or a rule that does not fit the solver.
    """

    solver: str = "ddim"
    grid: str = "logsnr"
    rule: str = "differences"
    parts: int = 10
    towards: str = "flow"
    reweighted: int = 5

    def __post_init__(self) -> None:
        for name, allowed in (("rule", RULES), ("towards", TOWARDS)):
            if getattr(self, name) not in allowed:
                raise ArgumentError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name, least in (("parts", 2), ("reweighted", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ArgumentError(f"{name} must be an integer of at least {least}, got {getattr(self, name)!r}")
        if self.rule in ("advanced", "basic") and self.solver != "heun":
            raise ArgumentError(f"rule {self.rule!r} is for solver 'heun', got {self.solver!r}")

    def untuned(self, problem: Problem) -> Plan:
        """The solver as it is.

        Raises:
            ArgumentError: a solver that the rule does not fit.
        """
        plan = make_plan(problem.denoiser.path, self.solver, self.grid, evaluations=problem.evaluations)
        single = plan.evaluations == plan.steps and not plan.stochastic
        if not single or (self.rule in ("differences", "noise") and bool(plan.asks[:, 1].any())):
            raise ArgumentError(
                f"rule {self.rule!r} needs a deterministic solver that asks x once a step, got {plan!r}"
            )
        return plan

    def __call__(self, problem: Problem) -> Plan:
        """The plan; a run of the solver and of its finer steps is what is spent."""
        base, path = self.untuned(problem), problem.denoiser.path
        walk, begun, goal = _Walk(problem, base, KEPT[self.rule]), False, self._goal(problem, base)
        for step in base:
            walk.ask(step.index, *step.asks[0])
            writes = {base.registers[to]: self._terms(base, entries) for to, entries in step.writes.items()}
            vectors, kept = directions(self.rule, path, step, base.registers) if "x" in writes else ([], {})
            usable = [v for v in vectors if begun or not any(str(source).endswith("before") for source in v)]
            if usable:
                problem.tell(f"fitting step {step.index + 1} of {base.steps}")
                found = problem.once(
                    f"fit {step.index}",
                    lambda: self._fit(walk, usable, goal(walk, step) - walk.combined(writes["x"])),  # noqa: B023
                )
                writes["x"] = _sum([(1.0, writes["x"]), *zip(found, usable, strict=True)])
            begun = begun or bool(kept)
            walk.write(step.index, {**writes, **kept})
        deviates = "" if self.rule == "differences" else "the fit leaves the path where finer steps lead"
        source = {"solver": self.solver, "grid": self.grid, "rule": self.rule, "parts": self.parts}
        return Plan.build(path, walk.builder, order=1, source=source, deviates=deviates)

    @staticmethod
    def _terms(base: Plan, entries: list[tuple[str, int, Tensor]]) -> Terms:
        return {base.registers[source] if kind == "M" else source: float(value) for kind, source, value in entries}

    def _goal(self, problem: Problem, base: Plan) -> Callable[[_Walk, Step], Tensor]:
        """What gives the state that a step should lead to."""
        if self.towards == "step":
            return lambda walk, step: problem.run(self._fine(base, step), walk.values["x"])
        times, start = base.times.unique(sorted=True).flip(0), problem.starts(problem.samples, part=1)
        states = problem.once("teacher", lambda: taught(problem, self.solver, times, start, self.parts))
        return lambda walk, step: states[int((times == step.t_next).nonzero()[0])]

    def _fine(self, base: Plan, step: Step) -> Plan:
        """The solver on a finer grid over one interval."""
        return make_plan(base.path, self.solver, finer(base.path, step.t, step.t_next, self.parts))

    def _fit(self, walk: _Walk, vectors: list[Terms], missing: Tensor) -> list[float]:
        """The weights of the vectors that bring x nearest to where finer steps lead."""
        columns = torch.stack([walk.combined(v).flatten(1) for v in vectors], 2)
        found: list[float] = fitted(columns, missing.flatten(1), self.reweighted).tolist()
        return found

    def least(self, problem: Problem) -> int:
        """A run of the solver and of its finer steps."""
        base = self.untuned(problem)
        if self.towards == "flow":
            times = base.times.unique(sorted=True).flip(0)
            fine = make_plan(base.path, self.solver, refined(base.path, times, self.parts)).evaluations
        else:
            fine = sum(self._fine(base, step).evaluations for step in base if bool(step.t > step.t_next))
        return problem.run_cost(base.evaluations + fine, problem.samples)
