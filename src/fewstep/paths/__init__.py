"""Paths: how data becomes noise, and the change of basis between what networks predict."""

from dataclasses import fields
from typing import Any

from fewstep.errors import PlanError, unknown
from fewstep.paths.base import Path
from fewstep.paths.bridge import Bridge, BridgePath
from fewstep.paths.cosine import Cosine
from fewstep.paths.diffusion_bridge import DiffusionBridge, VEBridge, VPBridge
from fewstep.paths.flow import Flow
from fewstep.paths.mean_reverting import MeanReverting
from fewstep.paths.prediction import PREDICTIONS, Prediction, change_of_basis
from fewstep.paths.residual_diffusion import RDDM
from fewstep.paths.residual_shifting import ResShift
from fewstep.paths.ve import VE
from fewstep.paths.vp import VP, DiscreteVP

PATHS: dict[str, type[Path]] = {
    cls.kind: cls for cls in (VP, DiscreteVP, VE, Flow, Cosine, RDDM, ResShift, MeanReverting, VPBridge, VEBridge)
}

__all__ = [
    "PATHS", "PREDICTIONS", "RDDM", "VE", "VP", "Bridge", "BridgePath", "Cosine", "DiffusionBridge", "DiscreteVP",
    "Flow", "MeanReverting", "Path", "Prediction", "ResShift", "VEBridge", "VPBridge", "change_of_basis", "from_json",
]  # fmt: skip


def from_json(data: dict[str, Any]) -> Path:
    """The path that `Path.to_json` wrote.

    Args:
        data: {"kind": one of the known kinds, and that path's parameters}.

    Raises:
        PlanError: the parameters are not that path's own.
        ArgumentError: the kind is unknown or a parameter is out of range.
    """
    if not isinstance(data, dict) or "kind" not in data:
        raise PlanError(f"a path is an object with a 'kind', got {data!r}")
    parameters = {key: value for key, value in data.items() if key != "kind"}
    cls = PATHS.get(str(data["kind"]))
    if cls is None:
        raise unknown("path", data["kind"], PATHS)
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if set(parameters) != names:
        raise PlanError(f"path {cls.kind!r} has the parameters {sorted(names)}, got {sorted(parameters)}")
    for name, value in parameters.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers):
            raise PlanError(f"path {cls.kind!r}: {name} must be numbers, got {value!r:.80}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()})
