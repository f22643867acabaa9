"""fewstep makes a pretrained diffusion or flow model fast and steerable in few network evaluations.

Names are imported when they are first used, so that importing fewstep costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.catalog import Method, methods
    from fewstep.denoisers.assets import load
    from fewstep.denoisers.base import Denoiser
    from fewstep.denoisers.wrapped import wrap
    from fewstep.guidance import CFG, Guide
    from fewstep.paths import VE, VP, BridgePath, Cosine, Flow
    from fewstep.plan import Plan
    from fewstep.planning import make_plan
    from fewstep.sampling import Event, Output, sample, stream

_HOME = {
    "Method": "catalog", "methods": "catalog", "load": "denoisers.assets", "Denoiser": "denoisers.base",
    "wrap": "denoisers.wrapped", "CFG": "guidance", "Guide": "guidance", "VE": "paths", "VP": "paths",
    "BridgePath": "paths", "Cosine": "paths", "Flow": "paths", "Plan": "plan", "make_plan": "planning",
    "Event": "sampling", "Output": "sampling", "sample": "sampling", "stream": "sampling",
}  # fmt: skip

__all__ = [
    "CFG", "VE", "VP", "BridgePath", "Cosine", "Denoiser", "Event", "Flow", "Guide", "Method", "Output", "Plan", "load",
    "make_plan", "methods", "sample", "stream", "wrap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    return getattr(import_module(f"fewstep.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
