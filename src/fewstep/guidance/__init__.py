"""Guides: they change what the denoiser says."""

from fewstep.guidance.annealed_mcmc import AnnealedMCMC
from fewstep.guidance.autoguidance import Autoguidance
from fewstep.guidance.base import LEVELS, Ask, Branch, Guide
from fewstep.guidance.cads import CADS
from fewstep.guidance.cfg import CFG
from fewstep.guidance.classifier_guidance import ClassifierGuidance
from fewstep.guidance.composition import Composition
from fewstep.guidance.density_guidance import DensityGuidance, prior_guidance
from fewstep.guidance.epsilon_scaling import EpsilonScaling
from fewstep.guidance.factorized import Factorized, FixedComponent
from fewstep.guidance.flowchef import FlowChef
from fewstep.guidance.higs import HiGS
from fewstep.guidance.minority import MinorityGuidance, minority_classes, minority_score
from fewstep.guidance.pag import PAG
from fewstep.guidance.sag import SAG
from fewstep.guidance.self_guided_minority import SelfGuidedMinority
from fewstep.guidance.steered import Steered, SteeredLinear
from fewstep.guidance.thresholding import Thresholding
from fewstep.guidance.upsample import UpsampleGuidance

__all__ = [
    "CADS", "CFG", "LEVELS", "PAG", "SAG", "AnnealedMCMC", "Ask", "Autoguidance", "Branch", "ClassifierGuidance",
    "Composition", "DensityGuidance", "EpsilonScaling", "Factorized", "FixedComponent", "FlowChef", "Guide", "HiGS",
    "MinorityGuidance", "SelfGuidedMinority", "Steered", "SteeredLinear", "Thresholding", "UpsampleGuidance",
    "minority_classes", "minority_score", "prior_guidance",
]  # fmt: skip
