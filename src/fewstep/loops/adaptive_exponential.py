"""DPM-Solver-12 and -23: exponential integrators whose steps are chosen by an estimate of their own error.

A try of length h from λ makes two answers of orders p − 1 and p from the same p evaluations (Lu et al. 2022; see
`exponential_pair`).  With E the root mean square over a sample of (x_high − x_low)/δ and δ the larger of atol and
rtol·max(|x_low|, |x_before|),

    E ≤ 1: the try is taken, x ← x_high and x_before ← x_low;      always: h ← min(0.9·h·E^{−1/p}, 4, what is left).

Every sample has its own h; one that is done stands still.  The ends, where λ is infinite, are steps of order 1.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, NumericalError
from fewstep.loops.base import Loop, Walk, refuse_bad, refuse_ordered_guides
from fewstep.loops.exponential_pair import exponential_pair
from fewstep.paths import Path
from fewstep.plan import Plan
from fewstep.results import Stats
from fewstep.session import Session

# A step this short means that the tolerance lies below what the arithmetic or the network can tell.
SHORTEST = 1e-6
# The noise form multiplies rounding by e^h, so that a try from λ = −5 to the end would be worth nothing.
LONGEST = 4.0


@dataclass(frozen=True)
class AdaptiveStats(Stats):
    """What an adaptive run cost.

    `evaluations` counts what each row of the batch was asked: as often as its slowest sample needed.

    Args:
        each: the evaluations that each sample needed by itself, guidance and rejected tries counted.
        rejected: the tries of each sample that were thrown away.
    """

    each: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()


@method(
    name="dpm-solver-adaptive",
    papers=["DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps"],
    arxiv="2206.00927", family="loops", order=3,
    summary="DPM-Solver-12 or -23: step lengths chosen for each sample by the difference of two orders.",
)  # fmt: skip
@dataclass(frozen=True)
class AdaptiveExponential(Loop):
    """An exponential integrator with error control.

    Args:
        order: 2 (DPM-Solver-12) or 3 (DPM-Solver-23).
        atol: the absolute tolerance, in units of x; more than 0.
        rtol: the relative tolerance; at least 0.
        first_step: the length in λ of the first try; more than 0.
        safety: the factor on the next length, in (0, 1].
        ratio_max: where control begins if the path is noisier still, as a noise-to-signal ratio σ/α (λ = −5.1).
        ratio_min: where it ends and one last step of order 1 goes to clean data; in (0, ratio_max).

    Raises:
        ArgumentError: a parameter out of its range.
    """

    order: int = 3
    atol: float = 0.0078
    rtol: float = 0.05
    first_step: float = 0.05
    safety: float = 0.9
    ratio_max: float = 164.0
    ratio_min: float = 0.01

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise ArgumentError(f"order must be 2 or 3, got {self.order!r}")
        if not 0 < self.atol < math.inf or not 0 <= self.rtol < math.inf:
            raise ArgumentError(f"atol must be more than 0 and rtol at least 0, got {self.atol!r} and {self.rtol!r}")
        if not 0 < self.first_step < math.inf or not 0 < self.safety <= 1:
            raise ArgumentError(
                f"first_step must be more than 0 and safety in (0, 1], got {self.first_step!r} and {self.safety!r}"
            )
        if not 0 < self.ratio_min < self.ratio_max < math.inf:
            raise ArgumentError(
                f"ratio_min must lie between 0 and ratio_max, got {self.ratio_min!r} and {self.ratio_max!r}"
            )

    def opening(self, path: Path) -> Plan:
        """One step of order 1 over all times."""
        return self.plan(path, torch.tensor([1.0, 0.0], dtype=torch.float64))

    def run(self, session: Session) -> tuple[Tensor, Plan, Stats]:
        """Try steps until every sample is done; the plan has the steps that were taken, each sample its own."""
        refuse_ordered_guides(session, "dpm-solver-adaptive")
        walk, path, x = Walk(session), session.program.plan.path, session.start
        one = torch.ones(len(x), dtype=torch.float64)
        low, each, rejected = -math.log(self.ratio_max) * one, 0 * one, 0 * one
        if float(path.lam(1.0)) < float(low[0]):
            x = self._once(walk, x, one, path.t_of_lam(low))
        else:
            low = path.lam(one)
        done = low.clamp_min(-math.log(self.ratio_min))
        lam, before, taken, ends = low, x, [low], walk.evaluations
        h = (self.first_step * one).clamp_max(LONGEST)
        while bool((active := lam < done).any()):
            goal = torch.where(h < done - lam, lam + h, done)
            h = goal - lam
            spent = walk.evaluations
            registers = walk.take(self.plan(path, walk.place(path.t_of_lam(torch.stack([lam, goal])))), x)
            high, lower = registers[0], registers[1]
            assert high is not None
            assert lower is not None
            error = self._error(high, lower, before)
            self._refuse(error, h, active)
            good = active & (error <= 1)
            keep = walk.place(good.to(x.device))
            x, before = torch.where(keep, high, x), torch.where(keep, lower, before)
            each, rejected = each + active * (walk.evaluations - spent), rejected + (active & ~good)
            lam = torch.where(good, goal, lam)
            taken.append(lam)
            h = (self.safety * h * error.clamp_min(1e-30) ** (-1 / self.order)).clamp_max(LONGEST)
        spent = walk.evaluations
        x = self._once(walk, x, path.t_of_lam(done), 0 * one)
        each = each + ends + walk.evaluations - spent
        whole = self.plan(path, walk.place(_times(path, torch.stack(taken), ends > 0)))
        stats = AdaptiveStats(walk.evaluations, 0.0, _whole_numbers(each), _whole_numbers(rejected))
        return x, whole, stats

    def _once(self, walk: Walk, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """The state after one step of order 1."""
        after = walk.take(self.plan(walk.path, walk.place(torch.stack([t, t_next]))), x)[0]
        assert after is not None
        return after

    def _error(self, high: Tensor, low: Tensor, before: Tensor) -> Tensor:
        """E of every sample, float64 (batch,) on the host."""
        largest = torch.maximum(low.abs(), before.abs())
        parts = (high - low) / (self.rtol * largest).clamp_min(self.atol)
        return parts.double().flatten(1).square().mean(1).sqrt().cpu()

    def _refuse(self, error: Tensor, h: Tensor, active: Tensor) -> None:
        refuse_bad(error, "the error estimates of the samples")
        if bool((active & (error > 1) & (h < SHORTEST)).any()):
            raise NumericalError(
                f"steps as short as {SHORTEST} in λ do not meet atol={self.atol} and rtol={self.rtol}: "
                "raise the tolerance, or use a larger dtype"
            )

    def plan(self, path: Path, times: Tensor) -> Plan:
        """The same steps without control, on given times: register "low" holds what the lower order says.

        Args:
            path: any path.
            times: float64 (steps + 1, *place), falling or standing; 1 and 0 may be among them.
        """
        return exponential_pair(path, times, self.order, {"solver": "dpm-solver-adaptive", **asdict(self)})


def _times(path: Path, taken: Tensor, begins: bool) -> Tensor:
    """The times that each sample really visited, float64 (steps + 1, batch): from 1 to 0, standing still when done.

    Args:
        path: the path.
        taken: (tries + 1, batch), λ after every try, the same where it was rejected.
        begins: whether the first of them was reached from t = 1 by a step of order 1; else it is t = 1.
    """
    visited = [column.unique() for column in taken.unbind(1)]
    lam = torch.nn.utils.rnn.pad_sequence(visited, padding_value=math.inf)
    t = path.t_of_lam(lam.minimum(taken[-1]))
    ends = torch.ones_like(t[:1])
    return torch.cat([ends, t if begins else t[1:], 0 * ends])


def _whole_numbers(values: Tensor) -> tuple[int, ...]:
    return tuple(int(v) for v in values)
