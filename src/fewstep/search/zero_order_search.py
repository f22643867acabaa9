"""Zero-order search: a pivot noise that moves to the best of its neighbours.

    u = n/‖n‖,   w = unit of (v − (v·u)u), v ~ N(0, I),       n′ = ‖n‖·(c·u + √(1 − c²)·w)

keeps the norm, with ‖n′ − n‖ = ‖n‖·√(2(1 − c)).  The best of the neighbours becomes the pivot; keeping the old pivot in
the pool makes the score rise monotonically.  A linear score is followed to the pole of its sphere, which no random
search of feasible N reaches: so is a verifier that can be fooled.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.search.base import Ending, Search
from fewstep.search.noises import NoiseMap
from fewstep.search.particles import count, number
from fewstep.search.verifiers import Verifier
from fewstep.session import Session


@method(
    name="zero-order-search", papers=["Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps"],
    arxiv="2501.09732", family="search", summary="A start noise that moves to the best of its neighbours.",
)  # fmt: skip
@dataclass(frozen=True)
class ZeroOrderSearch(Search):
    """Zero-order search from the noise of plain sampling.

    Args:
        verifier: a callable on pictures, a `Reward`, or a `RankEnsemble`.
        neighbours: N ≥ 1 of every round.
        rounds: at least 1.
        cosine: c in [0, 1), between a noise and its neighbours.
        keep_pivot: whether the pivot stays where no neighbour is better; else the best neighbour is taken always.

    Raises:
        ArgumentError: a parameter out of its range; a plan that draws noise.
    """

    solver: ClassVar[str] = "dpm-solver++"
    verifier: Verifier
    neighbours: int = 4
    rounds: int = 4
    cosine: float = 0.95
    keep_pivot: bool = True

    def __post_init__(self) -> None:
        count("neighbours", self.neighbours)
        count("rounds", self.rounds)
        number("cosine", self.cosine, 0, 1)
        if self.cosine == 1:
            raise ArgumentError("cosine must be less than 1, or the neighbours are the pivot itself")

    def paths(self) -> int:
        """The pivot's path, and one for each neighbour of each round."""
        return 1 + self.neighbours * self.rounds

    def run(self, session: Session, started: bool) -> Ending:
        """Rounds of neighbours, each as one batch."""
        noises = NoiseMap(session, self.verifier, started, "zero-order search")
        pivot = noises.pool(noises.start())
        for _ in range(self.rounds):
            pool = noises.pool(neighbours(pivot.noises, noises.fresh(self.neighbours), self.cosine))
            pivot = (pivot.joined(pool) if self.keep_pivot else pool).best()
        return Ending(pivot.samples[:, 0], noises.evaluations, noises.calls, pivot.scores[0, :, 0])


def neighbours(pivot: Tensor, drawn: Tensor, cosine: float) -> Tensor:
    """Noises of the pivot's norm at an angle of this cosine to it.

    Args:
        pivot: (runs, 1, *shape).
        drawn: (runs, count, *shape), standard normal.
        cosine: c.
    """
    n, v = pivot.flatten(2), drawn.flatten(2)
    length = n.norm(dim=2, keepdim=True)
    u = n / length
    w = v - (v * u).sum(2, keepdim=True) * u
    w = w / w.norm(dim=2, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    return (length * (cosine * u + math.sqrt(1 - cosine**2) * w)).reshape(drawn.shape)
