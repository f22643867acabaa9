"""What few steps are measured against: the exact flow of a world, else very many steps of the same denoiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.analysis.flow import exact_flow
from fewstep.denoisers import Denoiser
from fewstep.guidance import Guide
from fewstep.planning import make_plan
from fewstep.sampling import sample
from fewstep.worlds import WorldDenoiser

STEPS = 100


def reference_ends(
    denoiser: Denoiser,
    start: Tensor,
    cond: Mapping[str, Any] | None = None,
    guides: Sequence[Guide] = (),
    steps: int = STEPS,
) -> tuple[Tensor, str, int]:
    """Where the flow takes states at t = 1, what that was found by, and the evaluations that it took.

    Args:
        denoiser: a world's, without guides, is solved exactly; any other by Heun's method with the same guides.
        start: (batch, *shape), the states at t = 1.
        cond, guides: as in `sample`.
        steps: of Heun's method.

    Returns:
        float64 (batch, *shape), a description, evaluations a sample (0 for a world).
    """
    if isinstance(denoiser, WorldDenoiser) and not guides:
        labels = {k: torch.as_tensor(v) for k, v in (cond or {}).items()}
        return exact_flow(denoiser, start.cpu(), 1.0, 0.0, cond=labels).to(start.device), "the exact flow", 0
    plan = make_plan(denoiser.path, "heun", "logsnr", steps)
    out = sample(denoiser, start=start, plan=plan, cond=cond, guides=guides)
    return out.x.double(), f"{steps} steps of Heun", out.stats.evaluations
