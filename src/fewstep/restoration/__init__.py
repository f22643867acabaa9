"""Restoration: posterior sampling for inverse problems, y = A(x) + noise."""

from fewstep.restoration.decoded import decoded
from fewstep.restoration.measurement import Measurement
from fewstep.restoration.measurement_noise import Gaussian, Noise, Poisson
from fewstep.restoration.operators import (
    AverageDownsample,
    BicubicDownsample,
    Blur,
    Clipping,
    FourierMask,
    Grey,
    Mask,
    Matrix,
    MultiCoil,
    NonlinearBlur,
    Operator,
    PhaseRetrieval,
    Quantisation,
    RandomProjection,
    Tomography,
)
from fewstep.restoration.restoring import Restored, restore, restorer_named

__all__ = [
    "AverageDownsample", "BicubicDownsample", "Blur", "Clipping", "FourierMask", "Gaussian", "Grey", "Mask", "Matrix",
    "Measurement", "MultiCoil", "Noise", "NonlinearBlur", "Operator", "PhaseRetrieval", "Poisson", "Quantisation",
    "RandomProjection", "Restored", "Tomography", "decoded", "restore", "restorer_named",
]  # fmt: skip
