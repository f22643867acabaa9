"""Denoisers: what a network believes the clean data to be."""

from fewstep.denoisers.base import Denoiser
from fewstep.denoisers.wrapped import Wrapped

__all__ = ["Denoiser", "Wrapped"]
