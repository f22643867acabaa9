"""Random search: N start noises, each mapped to its sample by a deterministic solver, and the best one kept.

    n_1 … n_N ~ N(0, I),        x = arg max_j 𝒱(f(n_j))

Best-of-N, the baseline of every search.  It costs N solver runs.
"""

from dataclasses import dataclass
from typing import ClassVar

from fewstep.catalog import method
from fewstep.search.base import Ending, Search
from fewstep.search.noises import NoiseMap
from fewstep.search.particles import count
from fewstep.search.verifiers import Verifier
from fewstep.session import Session


@method(
    name="random-search", papers=["Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps"],
    arxiv="2501.09732", family="search", summary="Best-of-N: the best of N start noises by a verifier.",
)  # fmt: skip
@dataclass(frozen=True)
class RandomSearch(Search):
    """The best of N start noises; the first is that of plain sampling.

    Args:
        verifier: a callable on pictures, a `Reward`, or a `RankEnsemble`.
        candidates: N ≥ 1.

    Raises:
        ArgumentError: N out of range; a plan that draws noise.
    """

    solver: ClassVar[str] = "dpm-solver++"
    verifier: Verifier
    candidates: int = 4

    def __post_init__(self) -> None:
        count("candidates", self.candidates)

    def paths(self) -> int:
        """One path a candidate."""
        return self.candidates

    def run(self, session: Session, started: bool) -> Ending:
        """All candidates as one batch."""
        noises = NoiseMap(session, self.verifier, started, "random search")
        pool = noises.pool(noises.several(self.candidates))
        best = pool.best()
        return Ending(
            best.samples[:, 0], noises.evaluations, noises.calls, best.scores[0, :, 0], pool.samples, pool.ranked()
        )
