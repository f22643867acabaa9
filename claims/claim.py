"""What a claim is, and the register of all of them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """What came out.

    Args:
        figure: our figures in words and numbers, with what they were measured on.
        holds: whether it points the way that the paper says.
        why: where it does not, or only in part: why, as far as we know.
    """

    figure: str
    holds: bool
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, its figure, and the function that measures ours.

    Args:
        paper: the exact title.
        method: the name in the catalogue.
        says: the paper's claim in a sentence of our own.
        figure: the paper's figure, on the paper's model.
        measure: takes nothing, is deterministic, and takes at most a minute on two cores.
    """

    paper: str
    method: str
    says: str
    figure: str
    measure: Callable[[], Measured]

    @property
    def name(self) -> str:
        """family/function, by which one claim is run alone."""
        return f"{self.measure.__module__.split('.')[1]}/{self.measure.__name__}"


CLAIMS: list[Claim] = []


def claim(
    *, paper: str, method: str, says: str, figure: str
) -> Callable[[Callable[[], Measured]], Callable[[], Measured]]:
    """Register a claim; the arguments are those of `Claim`."""

    def register(measure: Callable[[], Measured]) -> Callable[[], Measured]:
        CLAIMS.append(Claim(paper, method, says, figure, measure))
        return measure

    return register
