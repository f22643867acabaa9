"""Adam with a cosine rate on the logarithm of a loss, which goes on after a kill as if nothing had been."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import NumericalError
from fewstep.tuning.problem import Problem


class _Descent:
    """The state of a descent: what is kept and taken up again."""

    def __init__(self, tensors: Sequence[Tensor], rate: float, generator: torch.Generator | None) -> None:
        self.tensors, self.generator = list(tensors), generator
        self.optimiser = torch.optim.Adam(self.tensors, lr=rate)
        self.round, self.best, self.seen = 0, math.inf, list[float]()
        self.points = [t.detach().clone() for t in self.tensors]

    def state(self) -> dict[str, Any]:
        moments = self.optimiser.state_dict()["state"]
        return {
            "round": self.round, "best": self.best, "seen": self.seen, "points": self.points, "tensors": self.tensors,
            "moments": [dict(moments[i]) for i in range(len(self.tensors)) if i in moments],
            "generator": None if self.generator is None else self.generator.get_state(),
        }  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        self.round, self.best, self.seen, self.points = (state[k] for k in ("round", "best", "seen", "points"))
        with torch.no_grad():
            for mine, kept in zip(self.tensors, state["tensors"], strict=True):
                mine.copy_(kept)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": dict(enumerate(state["moments"])), "param_groups": groups})
        if self.generator is not None:
            self.generator.set_state(state["generator"])


def descend(
    tensors: Sequence[Tensor],
    loss: Callable[[], Tensor],
    rounds: int,
    rate: float,
    *,
    problem: Problem | None = None,
    name: str = "descent",
    generator: torch.Generator | None = None,
    more: Callable[[], bool] = lambda: True,
    keep_best: bool = True,
) -> list[float]:
    """Descend log loss; the tensors are left at the best point seen, or at the last of a noisy loss.

    Args:
        tensors: leaves with gradients, changed in place.
        loss: more than 0; called once a round.
        rounds: at most so many.
        rate: of Adam at the start; it falls to 0 along half a cosine.
        problem: where the state is kept after every round and the loss recorded; None keeps nothing.
        name: of the state there; distinct for every descent of a tuner.
        generator: what the loss draws from, kept too.
        more: asked after every round; False ends the descent.
        keep_best: whether the best point is wanted and not the last.

    Returns:
        the losses.

    Raises:
        NumericalError: the loss is not finite at the start.
    """
    now = _Descent(tensors, rate, generator)
    if problem is not None and name in problem.state:
        now.resume(problem.state[name])
    while now.round < rounds and (now.round == 0 or more()):
        now.optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * now.round / rounds))
        with torch.enable_grad():
            value = loss()
        now.seen.append(float(value.detach()))
        if not math.isfinite(now.seen[-1]):
            if now.round == 0:
                raise NumericalError("the plan that tuning begins with has an error that is not finite")
            break
        if now.seen[-1] < now.best or not keep_best:
            now.best, now.points = now.seen[-1], [t.detach().clone() for t in now.tensors]
        now.optimiser.zero_grad()
        value.log().backward()
        now.optimiser.step()
        now.round += 1
        if problem is not None:
            problem.record(now.seen[-1])
            if now.round % max(1, rounds // 10) == 0:
                problem.tell(f"round {now.round} of {rounds}: {now.seen[-1]:.4g}, {problem.spent} evaluations spent")
            problem.keep(**{name: now.state()})
    with torch.no_grad():
        for mine, found in zip(now.tensors, now.points, strict=True):
            mine.copy_(found)
    return now.seen
