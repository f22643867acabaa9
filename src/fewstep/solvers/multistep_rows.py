"""The rows of a linear multistep predictor–corrector with one evaluation a step, whatever its coefficients.

At every row the network is asked at the predicted state x.  Of state and answer the method keeps f = u·x + v·x̂₀; with
f₁, f₂ … the kept ones of the last moves, f₀ the fresh one, and a base that the last move left behind, the row is

    corrected   y  = base + Σ_k c_k f_k + c        (where there is nothing to correct with, y = x)
    base        b′ = keep·y + held·f₀ + drawn·ξ + b
    predicted   x′ = b′ + Σ_k p_k f_k + p,         f₁′ = f₀,  f₂′ = f₁ …

The fresh noise stands in the base, so that the corrector meets the same noise as the predictor, and so does the step
with f held constant, so that all registers are of the size of the state.  Each place counts its
own moves: one that stands still keeps state, base and history, as if the row were not there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.plan import Builder


@dataclass(frozen=True)
class Past:
    """Which rows a place moved in before each row.

    Args:
        moves: bool (steps, *place), where the time moves.
        rows: int64 (depth, steps, *place), the row of the k-th last move before each row; −1 where there is none.
    """

    moves: Tensor
    rows: Tensor

    @staticmethod
    def of(times: Tensor, depth: int, window: int | None = None) -> "Past":
        """The past of a grid.

        Args:
            times: float64 (steps + 1, *place).
            depth: how many moves are remembered.
            window: how many rows back one may look; all unless given.
        """
        moves = times[1:] != times[:-1]
        empty = torch.full((depth, *times.shape[1:]), -1, dtype=torch.int64)
        state, found = empty, []

        def push(state: Tensor, row: int) -> Tensor:
            newer = torch.cat([torch.full_like(empty[:1], row), state])[:depth]
            return torch.where(moves[row], newer, state)

        for i in range(len(moves)):
            if window is not None:
                state = empty
                for row in range(max(0, i - window), i):
                    state = push(state, row)
            found.append(state)
            if window is None:
                state = push(state, i)
        return Past(moves, torch.stack(found, 1))

    def at(self, k: int, values: Tensor, default: float = float("nan")) -> Tensor:
        """`values` (steps or more, *place) at the row of the k-th last move, k from 1; `default` where none was."""
        rows = self.rows[k - 1]
        return torch.where(rows >= 0, values.gather(0, rows.clamp(min=0)), default)

    def older(
        self, lam: Tensor, usable: Tensor, origin: Tensor, h: Tensor, which: range
    ) -> tuple[list[Tensor], Tensor]:
        """The places (λ_k − origin)/h of older answers, and how many in a row can be used.

        Args:
            lam: (steps, *place), λ of each row.
            usable: bool (steps, *place), where any can be used at all.
            origin, h: finite (steps, *place), h not 0.
            which: the k of the k-th last moves that are looked at.
        """
        places, count = [], torch.zeros_like(self.rows[0])
        for k in which:
            before = self.at(k, lam)
            usable = usable & before.isfinite()
            places.append(torch.where(usable, (torch.where(usable, before, 0.0) - origin) / h, -float(k)))
            count = count + usable
        return places, count

    def left(self) -> Tensor:
        """How many moves are left from each row on, its own included: int64 (steps, *place)."""
        return self.moves.flip(0).cumsum(0).flip(0)


@dataclass(frozen=True)
class Rows:
    """The coefficients of all rows; each tensor is float64 (steps, *place), those of f₀, f₁ … stacked in front.

    Args:
        on_x, on_answer: u and v of the kept f.
        keep: the factor of the corrected state.
        held: the weight of f₀ in the base.
        drawn: the factor of the fresh noise.
        predict: (predictor, steps, *place), p₀, p₁ …
        correct: (corrector, steps, *place), c₀, c₁ …, at least two; no rows of it for a method without a corrector.
        corrects: bool (steps, *place), where there is a step to correct.
        ones: the constants of the base, of the prediction and of the correction; a plan with them has a register "one".
        stored: (…, steps, *place), the weights of the fresh f₀, f₁ … in what base, prediction and memory take for f₀;
            f₀ itself unless given.  The k-th is not looked at before row k.
    """

    on_x: Tensor
    on_answer: Tensor
    keep: Tensor
    held: Tensor
    drawn: Tensor
    predict: Tensor
    correct: Tensor
    corrects: Tensor
    ones: tuple[Tensor, Tensor, Tensor] | None = None
    stored: Tensor | None = None

    @property
    def kept(self) -> list[str]:
        """The registers of the older f."""
        return [f"f{k}" for k in range(1, max(len(self.predict), len(self.correct)))]

    @property
    def memory(self) -> list[str]:
        """The registers that hand something on to the next row, x aside."""
        return (["base"] if len(self.correct) else []) + self.kept

    def builder(self, times: Tensor, past: Past, resumed: bool) -> Builder:
        """The written rows.

        Args:
            times: float64 (steps + 1, *place).
            past: of the same times.
            resumed: whether the rows hand their history on to those of another plan, as a restart's do.
        """
        one = ["one"] if self.ones is not None else []
        builder = Builder(times, ("x", *self.memory, *one), self.memory if resumed else ())
        moves = past.moves.double()
        builder.ask("x")
        self._add_base(builder, "x", moves)
        for k, weight in enumerate(self.predict):
            self._add_f(builder, "x", k, moves * weight)
        if self.ones is not None:
            builder.add("x", "one", moves * self.ones[1])
        builder.add("x", "x", 1 - moves)
        self.remember(builder, past)
        return builder

    def remember(self, builder: Builder, past: Past) -> None:
        """Write the base and the kept f, each place its own."""
        moves, stays = past.moves.double(), (~past.moves).double()
        # What was never written is not read: not even times 0.
        filled = [torch.ones_like(moves), *((rows >= 0).double() for rows in past.rows)]
        if len(self.correct):
            self._add_base(builder, "base", moves)
            builder.add("base", "base", stays * filled[1])
        for k, name in enumerate(self.kept):
            self._add_f(builder, name, k, moves * filled[k])
            builder.add(name, name, stays * filled[k + 1])

    def _add_base(self, builder: Builder, to: str, moves: Tensor) -> None:
        for source, value in self.corrected():
            builder.add(to, source, moves * self.keep * value)
        self._add_f(builder, to, 0, moves * self.held)
        if self.ones is not None:
            builder.add(to, "one", moves * self.ones[0])
        builder.add(to, "noise", moves * self.drawn)

    def _add_f(self, builder: Builder, to: str, k: int, value: Tensor) -> None:
        if k:
            builder.add(to, f"f{k}", value)
            return
        fresh, *older = [value] if self.stored is None else value * self.stored
        builder.add(to, "x", fresh * self.on_x)
        builder.add(to, 0, fresh * self.on_answer)
        for back, share in enumerate(older, 1):
            builder.add(to, f"f{back}", share[back:], range(back, builder.steps))

    def corrected(self) -> list[tuple[str | int, Tensor]]:
        """The corrected state: (register or answer, factor), each factor (steps, *place)."""
        corrects = self.corrects.double()
        found: list[tuple[str | int, Tensor]] = [("x", 1 - corrects)]
        if not len(self.correct):
            return found
        found += [("base", corrects)]
        for k, weight in enumerate(self.correct):
            value = corrects * weight
            found += [(f"f{k}", value)] if k else [("x", value * self.on_x), (0, value * self.on_answer)]
        if self.ones is not None:
            found.append(("one", corrects * self.ones[2]))
        return found
