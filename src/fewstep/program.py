"""A program: a plan bound to a denoiser, its guides, a dtype and a device; what runs.

Binding makes everything that a step needs on the host, once (`rows.py`), the network's own prediction folded into the
coefficients when no guide changes answers.

The loop is then one fused combination a register; a register that only takes another's value is renamed for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.batching import as_rows, ask_together
from fewstep.denoisers import Denoiser
from fewstep.denoisers.skipped_layers import skipping
from fewstep.errors import ArgumentError
from fewstep.guidance import LEVELS, Ask, Branch, Guide
from fewstep.noise import BrownianNoise, KeyedNoise
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.rows import Question, Row, Term, rows_of

# How far the draws of one guide are numbered from the next one's.
APART = 2**40
# Letters of a path that a message shows.
WIDEST = 80


@dataclass
class Run:
    """What a run carries from step to step: registers, memories of the guides, counts and marks."""

    registers: list[Tensor | None]
    memories: list[Any]
    cond: Mapping[str, Any]
    noise: KeyedNoise
    evaluations: int = 0
    # The sum of every answer and the step of its question: what a look for NaN needs, at no copy to the host.
    sums: list[Tensor] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    since_jump: int = 10**9
    answer: tuple[Tensor, Tensor, Question | None] | None = None
    # The answers to move with, where a search chooses between ask and move which rows go on.
    between: Callable[["Run", list[Tensor]], list[Tensor]] | None = None


def combine(values: list[Tensor], terms: list[Term]) -> Tensor:
    """Σ coefficient·values[index] over the terms; one term of coefficient 1 is that value itself."""
    (source, first), *rest = terms
    if not rest and isinstance(first, float) and first == 1.0:
        return values[source]
    out = values[source] * first
    for source, number in rest:
        if isinstance(number, float):
            out.add_(values[source], alpha=number)
        else:
            out = torch.addcmul(out, values[source], number)
    return out


def _of(ask: Ask, place: int) -> Ask:
    """The question as the guide at a place sees it: with draws of its own."""
    return ask if place == 0 else replace(ask, noise=lambda slot: ask.noise(slot + place * APART))


def _short(path: Path) -> str:
    """A path in words that fit a line; one of a thousand β would not."""
    text = str(path)
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}…)"


def _spans(rows: Sequence[Row]) -> list[tuple[bool, Tensor]]:
    """For each row: whether its first question begins a step of x, and the time at which that step ends.

    A method of several stages takes several rows a step; x is written in the last.
    """
    found, end = [], rows[-1].t_next
    for row in reversed(rows):
        end = row.t_next if _writes_x(row) else end
        found.append(end)
    begins, spans = True, []
    for row, end in zip(rows, reversed(found), strict=True):
        spans.append((begins, end))
        begins = _writes_x(row) or (begins and not row.questions)
    return spans


def _writes_x(row: Row) -> bool:
    return any(to == 0 for to, _ in row.writes)


class Program:
    """A plan bound to a denoiser.

    Args:
        plan: the sampler; its path must be the denoiser's.
        denoiser: the model.
        guides: put in the order of their levels, the list's order within a level.
        dtype: the dtype of the state.
        device: where it runs.

    Raises:
        ArgumentError: another path, the network's prediction does not tell x̂₀ at one of the plan's times, or the plan
            has several questions a step beside a guide that needs one.
    """

    def __init__(
        self,
        plan: Plan,
        denoiser: Denoiser,
        guides: Sequence[Guide] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if plan.path != denoiser.path:
            mine, its = (_short(path) for path in (plan.path, denoiser.path))
            raise ArgumentError(
                f"the plan is for the path {mine}, the denoiser lives on {its}: make or tune one for it"
            )
        self.denoiser = skipping(denoiser, plan.ask_times, plan.skips)
        self.plan, self.dtype, self.device = plan, dtype, torch.device(device)
        self.guides = sorted(guides, key=lambda g: LEVELS.index(g.level))
        self.folds = denoiser.predicts != "x0" and not any(g.level in ("network", "answer") for g in guides)
        self.rows = self._rows(plan)
        self.spans = _spans(self.rows)
        # Which steps of a run these are; a loop that takes a run by several plans says so.
        self.before, self.of = 0, len(self.rows)
        self._refuse_stages()
        # Draws are numbered by their step with room for the most that any step makes, so that none is used twice.
        self.draws = max(int(p.N.index[:, 2].max()) + 1 if len(p.N) else 0 for p in (plan, *plan.restarts))

    def _refuse_stages(self) -> None:
        """Refuse a plan of several questions a step beside a guide that acts once a step."""
        if all(begins for begins, _ in self.spans) and all(len(row.questions) < 2 for row in self.rows):
            return
        for guide in self.guides:
            if guide.needs_one_question():
                raise ArgumentError(
                    f"{guide!r} acts once a step and cannot be shared among stages: take a solver that asks once a "
                    "step, such as ddim or dpm-solver++"
                )

    @cached_property
    def restarts(self) -> list[list[Row]]:
        """The rows of the plan's restarts, made when a guide first jumps."""
        return [self._rows(p) for p in self.plan.restarts]

    def _rows(self, plan: Plan) -> list[Row]:
        return rows_of(plan, self.denoiser, self.folds, self.dtype, self.device)

    def start(self, x: Tensor, cond: Mapping[str, Any], noise: KeyedNoise) -> Run:
        """A run that stands before the first step at state x, (batch, *shape)."""
        if isinstance(noise, BrownianNoise) and self.plan.stochastic and self.plan.place:
            raise ArgumentError("noise='brownian' needs one time for all samples; this plan has several")
        registers: list[Tensor | None] = [None] * len(self.plan.registers)
        registers[0] = x
        if "one" in self.plan.registers:
            registers[self.plan.registers.index("one")] = torch.ones_like(x)
        noise.prepare(self.plan.steps * self.draws)
        return Run(registers, [g.init(self.denoiser, len(x)) for g in self.guides], cond, noise)

    def step(self, run: Run, index: int) -> None:
        """Take step `index`: ask, combine, and let guides of level state move x."""
        rows = self.rows
        if run.since_jump < len(self.plan.restarts):
            rows = self.restarts[run.since_jump]
        row = rows[index]
        answers = self._answers(run, row, index)
        if run.between is not None:
            answers = run.between(run, answers)
        values: list[Any] = [*run.registers, *answers]
        for slot in range(row.draws):
            values.append(run.noise.step(index * self.draws + slot, *row.lam))
        for to, new in [(to, combine(values, terms)) for to, terms in row.writes]:
            run.registers[to] = new
        run.since_jump += 1
        if not _writes_x(row):
            return
        for place, guide in enumerate(self.guides):
            if guide.level == "state":
                x = run.registers[0]
                assert x is not None
                believed = self.preview(run) if row.questions else None
                ask = self._ask(run, x, row.t_next, index, believed, torch.is_grad_enabled())
                run.registers[0], run.memories[place], jumped = guide.move(_of(ask, place), x, run.memories[place])
                run.since_jump = 0 if jumped else run.since_jump

    def _ask(
        self, run: Run, x: Tensor, t: Tensor, index: int, x0: Tensor | None = None, through: bool = False,
        first: bool = True,
    ) -> Ask:  # fmt: skip
        def noise(slot: int) -> Tensor:
            return run.noise.guide(index * 64 + slot)

        def again(x: Tensor, t: Tensor, cond: Mapping[str, Any], denoiser: Denoiser | None = None) -> Tensor:
            run.evaluations += 1
            told = {key: as_rows(value, run.cond.get(key), len(x)) for key, value in cond.items()}
            return (denoiser or self.denoiser)(x, t, **told)

        begins, end = self.spans[index]
        return Ask(
            x, t, end, self.before + index, self.of, self.denoiser, noise, again, run.cond, x0, through, begins & first
        )

    def _answers(self, run: Run, row: Row, index: int) -> list[Tensor]:
        """The network's answers to all questions of a step, asked as one batch: raw where they are folded, else x̂₀."""
        states = [x for x in (run.registers[question.register] for question in row.questions) if x is not None]
        if not states:
            return []
        if self.guides:
            return self._guided(run, row, states, index)
        if len(states) == 1:
            raws = [self.denoiser.raw(states[0], row.questions[0].told, **run.cond)]
        else:
            asked = [(x, q.told, [Branch(run.cond)]) for x, q in zip(states, row.questions, strict=True)]
            raws, _ = ask_together(self.denoiser, asked)
        self._count(run, raws, index)
        run.answer = (states[-1], raws[-1], row.questions[-1])
        if self.folds or self.denoiser.predicts == "x0":
            return raws
        return [self._x0(q, x, raw) for q, x, raw in zip(row.questions, states, raws, strict=True)]

    @staticmethod
    def _count(run: Run, raws: list[Tensor], index: int) -> None:
        run.evaluations += len(raws)
        run.steps += [index] * len(raws)
        run.sums += [raw.sum(dtype=torch.float32 if raw.dtype.itemsize < 4 else None).detach() for raw in raws]

    def _x0(self, question: Question, x: Tensor, raw: Tensor) -> Tensor:
        if self.denoiser.predicts == "x0":
            return raw
        return combine([x, raw], [(0, question.on_x), (1, question.on_raw)])

    def _guided(self, run: Run, row: Row, states: list[Tensor], index: int) -> list[Tensor]:
        through, grad = torch.is_grad_enabled(), any(g.needs_grad for g in self.guides)
        with torch.set_grad_enabled(grad or through):
            asks, wanted = [], []
            for question, x in zip(row.questions, states, strict=True):
                seen = x.detach().requires_grad_() if grad and not x.requires_grad else x
                ask = self._ask(run, seen, question.t, index, through=through, first=question is row.questions[0])
                cond = run.cond
                for place, guide in enumerate(self.guides):
                    if guide.level == "condition":
                        cond, run.memories[place] = guide.condition(_of(ask, place), cond, run.memories[place])
                asks.append(ask if cond is run.cond else replace(ask, cond=cond))
                wanted.append([
                    guide.branches(_of(asks[-1], place), cond, memory) if guide.level == "network" else []
                    for place, (guide, memory) in enumerate(zip(self.guides, run.memories, strict=True))
                ])  # fmt: skip
            raws, places = ask_together(self.denoiser, [
                (ask.x, question.told, [Branch(ask.cond), *(b for some in branches for b in some)])
                for question, ask, branches in zip(row.questions, asks, wanted, strict=True)
            ])  # fmt: skip
            self._count(run, raws, index)
            return [
                self._mixed(run, question, ask, [len(some) for some in branches], [raws[i] for i in found])
                for question, ask, branches, found in zip(row.questions, asks, wanted, places, strict=True)
            ]

    def _mixed(self, run: Run, question: Question, ask: Ask, counts: list[int], raws: list[Tensor]) -> Tensor:
        """What the guides make of the raw answers to a question: its own, then `counts` further ones of each guide."""
        x = run.registers[question.register]
        assert x is not None
        if self.folds:
            run.answer = (x, raws[0], question)
            return raws[0]
        answers = [self._x0(question, ask.x, raw) for raw in raws]
        x0, at = answers[0], 1
        for place, (guide, count) in enumerate(zip(self.guides, counts, strict=True)):
            others = answers[at : at + count]
            at += count
            if guide.level == "network":
                x0, run.memories[place] = guide.mix(_of(ask, place), x0, answers[0], others, run.memories[place])
            elif guide.level == "answer":
                new, run.memories[place] = guide.answer(_of(ask, place), x0, run.memories[place])
                if guide.keeps == "eps":
                    moved = new - x0 if ask.differentiated else (new - x0).detach()
                    run.registers[question.register] = combine([x, moved], [(0, 1.0), (1, question.alpha)])
                x0 = new
        x0 = x0.detach() if not ask.differentiated and x0.requires_grad else x0
        run.answer = (x, x0, None)
        return x0

    def preview(self, run: Run) -> Tensor:
        """x̂₀ as the last question of the last step was answered."""
        if run.answer is None:
            raise ArgumentError("the plan has asked the network nothing yet, so there is no x̂₀ to show")
        x, raw, question = run.answer
        return raw if question is None else self._x0(question, x, raw)
