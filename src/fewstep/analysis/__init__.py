"""What a plan and a model do, measured: exact error on Gaussian data, order, the flow, its shape and its gauge."""

from fewstep.analysis.conservative_part import FieldSplit, field_split
from fewstep.analysis.convergence import convergence_errors, measured_order
from fewstep.analysis.flow import exact_flow
from fewstep.analysis.gauge import Gauged, asymmetry, gauge_residual, gauge_split, intrinsic_dimension, turned
from fewstep.analysis.gaussian import gaussian_output, gaussian_w2
from fewstep.analysis.likelihood import fokker_planck_residual, log_likelihood
from fewstep.analysis.normal_directions import score_dimension
from fewstep.analysis.quadrature import quadrature_errors
from fewstep.analysis.reference import reference_ends
from fewstep.analysis.stability import momentum_method, stability_boundary
from fewstep.analysis.trajectory import Trajectory, follow, mean_shift

__all__ = [
    "FieldSplit", "Gauged", "Trajectory", "asymmetry", "convergence_errors", "exact_flow", "field_split",
    "fokker_planck_residual", "follow", "gauge_residual", "gauge_split", "gaussian_output", "gaussian_w2",
    "intrinsic_dimension", "log_likelihood", "mean_shift", "measured_order", "momentum_method", "quadrature_errors",
    "reference_ends", "score_dimension", "stability_boundary", "turned",
]  # fmt: skip
