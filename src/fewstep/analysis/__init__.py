"""What a plan does, known without a network: exact error on Gaussian data, quadrature, order, the flow itself."""

from fewstep.analysis.convergence import convergence_errors, measured_order
from fewstep.analysis.flow import exact_flow
from fewstep.analysis.gaussian import gaussian_output, gaussian_w2
from fewstep.analysis.quadrature import quadrature_errors
from fewstep.analysis.reference import reference_ends
from fewstep.analysis.stability import momentum_method, stability_boundary

__all__ = [
    "convergence_errors", "exact_flow", "gaussian_output", "gaussian_w2", "measured_order", "momentum_method",
    "quadrature_errors", "reference_ends", "stability_boundary",
]  # fmt: skip
