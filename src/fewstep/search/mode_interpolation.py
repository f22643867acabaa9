"""Hallucinations by mode interpolation: samples between modes that the data does not have, and a filter against them.

Where the modes are apart, x̂₀(x_t) is nearly a step between them at small noise; a network rounds the step, and samples
that get there keep changing their mind.  So the variance of the last answers tells them:

    H = mean over the numbers of a sample of Var(x̂₀ of the last W steps).

It sees what rounding does.  What too few steps do it does not: then the window holds but a step or two.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.results import Output
from fewstep.sampling import sample
from fewstep.search.particles import count, number


def mind_changes(answers: Tensor, window: int = 10) -> Tensor:
    """H of every sample, (batch,): the variance of its last answers.

    Args:
        answers: (steps, batch, *shape), as `sample(…, keep="answers")` keeps them.
        window: W, how many of the last are looked at, at least 2.

    Raises:
        ArgumentError: a window that the run does not have.
    """
    if not isinstance(window, int) or isinstance(window, bool) or not 2 <= window <= len(answers):
        raise ArgumentError(f"window must be an integer from 2 to the {len(answers)} steps of the run, got {window!r}")
    return answers[-window:].flatten(2).var(0, correction=0).mean(1)


@method(
    name="mode-interpolation-filter",
    papers=["Understanding Hallucinations in Diffusion Models through Mode Interpolation"],
    arxiv="2406.09358", family="theory", summary="Drop the samples whose last answers kept changing.",
)  # fmt: skip
@dataclass(frozen=True)
class Reject:
    """Draws more samples than asked and drops those with the largest H; `sample(…, reject=Reject())`.

    Args:
        kept: the share of what is drawn that is kept, in (0, 1].
        window: W, the last answers that are looked at; the paper's are the last 10 of 1,000 levels, σ/α from 0.03 to
            0.14.  On other grids as many as lie below three to five times the width of the data's modes.
    """

    # The argument of `sample` that takes it.
    role: ClassVar[str] = "reject"
    kept: float = 0.96
    window: int = 10

    def __post_init__(self) -> None:
        number("kept", self.kept, most=1, open_=True)
        count("window", self.window, 2)

    def __call__(self, denoiser: Denoiser, n: int | None = None, **options: Any) -> Output:
        """n samples, in the order of their numbers; the arguments are those of `sample`.

        Which are kept depends on all that were drawn.  What a dropped sample cost is counted in.

        Raises:
            ArgumentError: a start of its own, conditions of another number of rows, or a window beyond the run.
        """
        n = 1 if n is None else n
        if options.get("start") is not None:
            raise ArgumentError("reject draws more samples than asked, so it takes no start")
        count("n", n)
        drawn = math.ceil(n / self.kept - 1e-9)
        options["cond"] = {k: _dealt(k, v, n, drawn) for k, v in (options.get("cond") or {}).items()}
        out = sample(denoiser, drawn, keep="answers", **options)
        assert out.answers is not None
        rows = mind_changes(out.answers, self.window).argsort()[:n].sort().values
        stats = replace(out.stats, evaluations=-(-out.stats.evaluations * drawn // n))
        seeds = [out.seeds[i] for i in rows.tolist()]
        return replace(out, x=out.x[rows], answers=out.answers[:, rows], seeds=seeds, stats=stats, by=repr(self))


def _dealt(name: str, value: Any, n: int, drawn: int) -> Any:
    """A condition of n rows dealt out to all that are drawn; one of a single row is left as it is."""
    if not isinstance(value, (Tensor, list, tuple)) or (isinstance(value, Tensor) and not value.ndim):
        return value
    if len(value) not in (1, n):
        raise ArgumentError(f"condition {name!r} has {len(value)} rows for {n} samples")
    if len(value) == 1:
        return value
    if isinstance(value, Tensor):
        return value[torch.arange(drawn, device=value.device) % n]
    return [value[i % n] for i in range(drawn)]
