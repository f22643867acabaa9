"""Distributions whose denoiser, density and posterior are exact."""

from fewstep.worlds.base import World, WorldDenoiser
from fewstep.worlds.empirical import Empirical
from fewstep.worlds.gaussian import Gaussian
from fewstep.worlds.mixture import GaussianMixture

__all__ = ["Empirical", "Gaussian", "GaussianMixture", "World", "WorldDenoiser"]
