"""Verifiers: what tells a search over noises which candidate is better.

A verifier is a reward.  An ensemble of several ranks the candidates of a run under each and takes the mean of the
ranks, unweighted, so that no scale of one decides; a rank is relative to its pool, and means nothing beside it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.search.rewards import Function, Reward


@dataclass(frozen=True)
class RankEnsemble:
    """Several verifiers at once.

    Args:
        rewards: at least one callable on pictures, or `Reward`.

    Raises:
        ArgumentError: none given.
    """

    rewards: tuple[Function | Reward, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rewards", tuple(self.rewards))
        if not self.rewards:
            raise ArgumentError("an ensemble of verifiers needs at least one")


Verifier = Function | Reward | RankEnsemble


def rewards_of(verifier: Verifier) -> tuple[Function | Reward, ...]:
    """The rewards that a verifier asks."""
    return verifier.rewards if isinstance(verifier, RankEnsemble) else (verifier,)


def mean_ranks(scores: Tensor) -> Tensor:
    """The mean over verifiers of the rank in the pool, 0 for the worst; equal scores share a rank.

    Args:
        scores: (verifiers, runs, candidates); one verifier's scores are kept as they are.
    """
    if len(scores) == 1:
        return scores[0]
    below = (scores[..., None] > scores[..., None, :]).double().sum(-1)
    equal = (scores[..., None] == scores[..., None, :]).double().sum(-1) - 1
    return torch.as_tensor(below + 0.5 * equal).mean(0)
