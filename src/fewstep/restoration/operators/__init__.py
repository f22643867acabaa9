"""Degradations: what can be measured of a picture, each with its exact adjoint."""

from fewstep.restoration.operators.base import Operator, RowOrthogonalOperator, SpectralOperator
from fewstep.restoration.operators.blur import Blur
from fewstep.restoration.operators.clipping import Clipping
from fewstep.restoration.operators.downsample import AverageDownsample, BicubicDownsample
from fewstep.restoration.operators.fourier_mask import FourierMask, MultiCoil
from fewstep.restoration.operators.grey import Grey
from fewstep.restoration.operators.mask import Mask
from fewstep.restoration.operators.matrix import Matrix
from fewstep.restoration.operators.nonlinear_blur import NonlinearBlur
from fewstep.restoration.operators.phase_retrieval import PhaseRetrieval
from fewstep.restoration.operators.quantisation import Quantisation
from fewstep.restoration.operators.random_projection import RandomProjection
from fewstep.restoration.operators.tomography import Tomography

__all__ = [
    "AverageDownsample", "BicubicDownsample", "Blur", "Clipping", "FourierMask", "Grey", "Mask", "Matrix", "MultiCoil",
    "NonlinearBlur", "Operator", "PhaseRetrieval", "Quantisation", "RandomProjection", "RowOrthogonalOperator",
    "SpectralOperator", "Tomography",
]  # fmt: skip
