"""Picard iteration over a window of steps: a plan's steps are asked side by side instead of one after another.

With Φ_j the step j of any plan (its noise drawn once) and R_j its registers, a round asks all steps of a window that
begins at b at the guesses of the last round, in one batch, and corrects them (Shih et al. 2023):

    x_{j+1} ← x_b + Σ_{i=b…j} (Φ_i(R_i) − R_i)_x,      other registers_{j+1} ← Φ_j(R_j),

in R_i the x of the last round and the other registers of this one.  With

    error_j = ‖x_j new − x_j old‖²/(d·v_j),      v_j the variance of the chain's posterior from time j to j + 1,

(the largest such error where a method asks other registers than x too)

the window goes on to the first guess whose error is above tolerance², but at least by one: the guess beside b is exact.
So tolerance 0 gives the plan's own result in as many rounds as it has steps.  Every sample has its own window.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.grids import Grid
from fewstep.loops.base import GUIDE_SLOTS, Loop, Walk, refuse_moving_guides, refuse_ordered_guides
from fewstep.noise import KeyedNoise
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.results import Stats
from fewstep.session import Session


@dataclass(frozen=True)
class ParallelStats(Stats):
    """What a run in parallel cost; `evaluations` is the most that any sample was asked.

    Args:
        rounds: how many batches of the network followed one another.
        each: the evaluations of each sample.
    """

    rounds: int = 0
    each: tuple[int, ...] = ()


@method(
    name="paradigms", papers=["Parallel Sampling of Diffusion Models"], arxiv="2305.16317", family="loops",
    summary="Runs a plan by Picard iteration: many steps asked in one batch, few rounds one after another.",
)  # fmt: skip
@dataclass(frozen=True)
class Picard(Loop):
    """A runner for any plan that asks many of its steps at once.

    Args:
        solver: the name of the plan's solver.
        grid: the name of its grid.
        steps: its number of steps, at least 1.
        tolerance: in standard deviations of the chain's posterior noise, at least 0; 0 reproduces the plan.
        window: how many steps are asked at once, at least 1.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    solver: str = "ddpm"
    grid: str | Grid = "uniform"
    steps: int = 100
    tolerance: float = 0.1
    window: int = 20

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ArgumentError(f"tolerance must be at least 0, got {self.tolerance!r}")
        if not isinstance(self.window, int) or self.window < 1:
            raise ArgumentError(f"window must be an integer of at least 1, got {self.window!r}")

    def opening(self, path: Path) -> Plan:
        """The plan that is run."""
        return make_plan(path, self.solver, self.grid, self.steps)

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Rounds until every sample's window has passed the last step."""
        refuse_ordered_guides(session, "paradigms")
        refuse_moving_guides(session, "paradigms")
        guesses, rounds = _Guesses(session, self.window), 0
        while bool((guesses.begins < guesses.steps).any()):
            guesses.slide(guesses.correct(), self.tolerance)
            rounds += 1
        each = tuple(int(v) for v in guesses.asked)
        stats = ParallelStats(max(each), 0.0, rounds, each)
        return guesses.registers[-1, :, 0], session.program.plan, stats


class _Guesses:
    """The registers of all samples before every step and after the last, (steps + 1, batch, registers, *shape)."""

    def __init__(self, session: Session, window: int) -> None:
        plan, x = session.program.plan, session.start
        self.session, self.plan, self.steps, self.window = session, plan, plan.steps, window
        self.registers = x.new_zeros(self.steps + 1, len(x), len(plan.registers), *session.program.denoiser.shape)
        self.registers[:, :, 0] = x
        if "one" in plan.registers:
            self.registers[:, :, plan.registers.index("one")] = 1.0
        self.tables = [table.to(x.device, x.dtype) for table in _dense(plan)]
        self.noises = _draws(session, self.tables[2].shape[-1])
        self.variance = _posterior_variances(plan)
        self.begins = torch.zeros(len(x), dtype=torch.int64)
        self.asked = torch.zeros(len(x), dtype=torch.int64)
        # A register that is asked is a guess like the state; others follow from them.
        self.watched = sorted({0, *plan.asks[:, 1].tolist()})
        slots = [slot for step in plan for slot in range(len(step.asks))]
        self.slots = torch.tensor(slots, dtype=torch.int64)
        self.answers = x.new_zeros(self.steps, len(x), max(slots, default=0) + 1, *x.shape[1:])

    def correct(self) -> Tensor:
        """One round over every sample's window: error/v of each guess, float64 (window, batch) on the host."""
        self._ask()
        rows = (self.begins < self.steps).nonzero()[:, 0]
        errors = torch.zeros(self.window, len(self.begins), dtype=torch.float64)
        new = self.registers[self.begins[rows], rows]
        old = new
        found = []
        for offset in range(self.window):
            at = self.begins[rows] + offset
            inside = at < self.steps
            at, rows, new, old = at[inside], rows[inside], new[inside], old[inside]
            if not len(rows):
                break
            values = torch.cat([torch.cat([old[:, :1], new[:, 1:]], 1), self.answers[at, rows]], 1)
            values = torch.cat([values, self.noises[at, rows]], 1)
            after = torch.einsum("ntf,nf...->nt...", torch.cat([t[at] for t in self.tables], 2), values)
            after[:, 0] += new[:, 0] - old[:, 0]
            old = self.registers[at + 1, rows]
            moved = (after - old)[:, self.watched].flatten(2).square().mean(2)
            found.append((offset, at, rows, moved.amax(1)))
            self.registers[at + 1, rows] = new = after
        measured = torch.cat([error for *_, error in found]).double().cpu()  # read once a round
        for (offset, at, rows, _), values in zip(found, measured.split([len(f[1]) for f in found]), strict=True):
            errors[offset, rows] = values / self.variance[at + 1]
        return errors

    def _ask(self) -> None:
        """Ask all steps of all windows in one batch."""
        step, register = self.plan.asks.unbind(1)
        inside = (step >= self.begins[:, None]) & (step < self.begins[:, None] + self.window)
        row, ask = inside.nonzero().unbind(1)
        if not len(row):
            return
        walk = Walk(_gathered(self.session, row, step[ask]))
        x0, _ = walk.ask(self.registers[step[ask], row, register[ask]], self.plan.ask_times[ask])
        self.answers[step[ask], row, self.slots[ask]] = x0
        self.asked += inside.sum(1) * walk.evaluations

    def slide(self, errors: Tensor, tolerance: float) -> None:
        """Move every sample's window past what has settled; the new guesses stand where the last one does."""
        within = (errors <= tolerance**2).long()
        ends = (self.begins + self.window).clamp_max(self.steps)
        self.begins = (self.begins + within.cumprod(0).sum(0) + 1).minimum(ends)
        for offset in range(1, self.window + 1):
            rows = (ends + offset <= self.steps).nonzero()[:, 0]
            self.registers[ends[rows] + offset, rows, 0] = self.registers[ends[rows], rows, 0]


def _dense(plan: Plan) -> list[Tensor]:
    """M (steps, registers, registers), B (steps, registers, slots) and N (steps, registers, draws)."""
    size, one = len(plan.registers), torch.ones((), dtype=torch.float64)
    slots, draws = (max(1, int(t.index[:, 2].max()) + 1 if len(t) else 0) for t in (plan.B, plan.N))
    sources = {"M": size, "B": slots, "N": draws}
    tables = {kind: torch.zeros(plan.steps, size, k, dtype=torch.float64) for kind, k in sources.items()}
    for step in plan:
        for to in range(size):
            for kind, source, value in step.writes.get(to, [("M", to, one)]):
                tables[kind][step.index, to, source] = value
    return [tables[kind] for kind in "MBN"]


def _draws(session: Session, slots: int) -> Tensor:
    """The noise of all steps, (steps, batch, slots, *shape), numbered as a program does; every round sees the same."""
    x, rows = session.start, session.program.rows
    noises = x.new_zeros(len(rows), len(x), slots, *x.shape[1:])
    for index, row in enumerate(rows):
        for slot in range(row.draws):
            noises[index, :, slot] = session.noise.step(index * row.draws + slot, *row.lam)
    return noises


def _posterior_variances(plan: Plan) -> Tensor:
    """v_j for j = 0 … steps; where a step has none (it stands still, or ends at 0) the last one before it."""
    sigma, alpha = plan.path.sigma(plan.times), plan.path.alpha(plan.times)
    forward = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:]) ** 2 * sigma[1:] ** 2
    own = forward * sigma[1:] ** 2 / sigma[:-1].clamp_min(1e-300) ** 2
    variances, last = [], 1.0
    for v in [*own.tolist(), 0.0]:
        last = v if v > 0 else last
        variances.append(last)
    return torch.tensor(variances, dtype=torch.float64)


class _GatheredNoise(KeyedNoise):
    """The guides' draws for pairs (sample, step), as each would have them in its own step."""

    def __init__(self, noise: KeyedNoise, rows: Tensor, steps: Tensor) -> None:
        self.seed, self.shape, self.dtype, self.device = noise.seed, noise.shape, noise.dtype, noise.device
        self.samples = [noise.samples[row] for row in rows.tolist()]
        self._noise, self._rows, self._steps = noise, rows, steps

    def guide(self, index: int) -> Tensor:
        """Draw number `index` of each pair's own step."""
        out = torch.empty(len(self._rows), *self.shape, dtype=self.dtype, device=self.device)
        for step in self._steps.unique().tolist():
            here = self._steps == step
            out[here] = self._noise.guide(GUIDE_SLOTS * step + index)[self._rows[here]]
        return out

    def prepare(self, count: int) -> None:
        """Nothing: a question draws no noise of its own."""


def _gathered(session: Session, rows: Tensor, steps: Tensor) -> Session:
    """The session of a batch of pairs (sample, step)."""
    cond = {k: v[rows.to(v.device)] if isinstance(v, Tensor) else v for k, v in session.cond.items()}
    return replace(session, cond=cond, noise=_GatheredNoise(session.noise, rows, steps))
