"""Denoisers: what a network believes the clean data to be."""

from fewstep.denoisers.base import Denoiser
from fewstep.denoisers.bridged import Bridged, precondition, wrap_bridge
from fewstep.denoisers.distributed import Distributed
from fewstep.denoisers.latent import Latent
from fewstep.denoisers.masked import Masked
from fewstep.denoisers.wrapped import Wrapped, wrap

__all__ = ["Bridged", "Denoiser", "Distributed", "Latent", "Masked", "Wrapped", "precondition", "wrap", "wrap_bridge"]
