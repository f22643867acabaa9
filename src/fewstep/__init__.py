"""fewstep makes a pretrained diffusion or flow model fast and steerable in few network evaluations.

Names and parts are imported when they are first used, so that importing fewstep costs next to nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.catalog import Method, methods
    from fewstep.comparison import compare
    from fewstep.denoisers import Denoiser, wrap, wrap_bridge
    from fewstep.encoding import encode, slerp
    from fewstep.generation import generate
    from fewstep.guidance import CFG, Guide
    from fewstep.loading import load
    from fewstep.measured import Claimed, claims
    from fewstep.paths import VE, VP, BridgePath, Cosine, Flow
    from fewstep.plan import Plan
    from fewstep.planning import make_plan
    from fewstep.restoration import Measurement, restore
    from fewstep.results import Event, Output
    from fewstep.sampling import sample, stream
    from fewstep.tuning import tune

_NAMES = {
    "catalog": ["Method", "methods"],
    "comparison": ["compare"],
    "denoisers": ["Denoiser", "wrap", "wrap_bridge"],
    "encoding": ["encode", "slerp"],
    "generation": ["generate"],
    "guidance": ["CFG", "Guide"],
    "loading": ["load"],
    "measured": ["Claimed", "claims"],
    "paths": ["VE", "VP", "BridgePath", "Cosine", "Flow"],
    "plan": ["Plan"],
    "planning": ["make_plan"],
    "restoration": ["Measurement", "restore"],
    "results": ["Event", "Output"],
    "sampling": ["sample", "stream"],
    "tuning": ["tune"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
_FOLDERS = (
    "aliases", "analysis", "deepinv", "denoisers", "diffusers", "errors", "generation", "grids", "guidance",
    "kdiffusion", "loops", "metrics", "networks", "paths", "restoration", "search", "solvers", "tuning", "worlds",
)  # fmt: skip

__all__ = [
    "CFG", "VE", "VP", "BridgePath", "Claimed", "Cosine", "Denoiser", "Event", "Flow", "Guide", "Measurement",
    "Method", "Output", "Plan", "claims", "compare", "encode", "generate", "load", "make_plan", "methods", "restore",
    "sample", "slerp", "stream", "tune", "wrap", "wrap_bridge",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"fewstep.{name}")
    if name == "__version__":
        return version("fewstep")
    if name not in _HOME:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    return getattr(import_module(f"fewstep.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_FOLDERS])
