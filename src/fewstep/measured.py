"""What was measured of each method: the paper's sentence, its figure, ours, and whether it points the same way."""

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "assets" / "claims.json"


@dataclass(frozen=True)
class Claimed:
    """A claim of a paper and what came out.

    Args:
        name: family/function, by which `python -m claims` measures it again.
        paper: the exact title.
        method: the name in the catalogue.
        says: the paper's claim in a sentence of our own.
        published: the paper's figure, on the paper's model.
        figure: ours, in words and numbers, with what it was measured on.
        holds: whether it points the way that the paper says.
        why: where it does not, or only in part: why, as far as we know.
        seconds: how long the measurement took.
        date, commit, device: when, of what and on what it was measured.
    """

    name: str
    paper: str
    method: str
    says: str
    published: str
    figure: str
    holds: bool
    why: str
    seconds: float
    date: str
    commit: str
    device: str


@cache
def claims() -> tuple[Claimed, ...]:
    """Every claim that was measured, in the order of family and paper; docs/claims.md is made of the same."""
    known = {field.name for field in fields(Claimed)} - {"name"}
    kept = json.loads(FILE.read_text(encoding="utf8"))
    return tuple(Claimed(name, **{key: one[key] for key in known}) for name, one in kept.items())
