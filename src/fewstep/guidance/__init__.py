"""Guides: they change what the denoiser says."""

from fewstep.guidance.annealed_mcmc import AnnealedMCMC
from fewstep.guidance.autoguidance import Autoguidance
from fewstep.guidance.base import LEVELS, Ask, Branch, Guide
from fewstep.guidance.cads import CADS, embedded_labels
from fewstep.guidance.cfg import CFG
from fewstep.guidance.classifier_guidance import ClassifierGuidance
from fewstep.guidance.composition import Composition
from fewstep.guidance.contrastive_energy import ContrastiveEnergy, energy_loss
from fewstep.guidance.density_control import DensityControl, DensityNoise
from fewstep.guidance.density_guidance import DensityGuidance, prior_guidance
from fewstep.guidance.during import During
from fewstep.guidance.energy_parameterised import EnergyParameterised, log_prob_of
from fewstep.guidance.energy_training import EnergyNetwork, train_energy
from fewstep.guidance.epsilon_scaling import EpsilonScaling
from fewstep.guidance.experts import ExpertGuidance, train_experts
from fewstep.guidance.factorized import Factorized, FixedComponent
from fewstep.guidance.flowchef import FlowChef
from fewstep.guidance.higs import HiGS
from fewstep.guidance.latent_tree import LatentTree, fit_latent_tree
from fewstep.guidance.low_rank_adaptation import LowRankAdapted
from fewstep.guidance.minority import MinorityGuidance, minority_classes, minority_score
from fewstep.guidance.pag import PAG
from fewstep.guidance.sag import SAG
from fewstep.guidance.score_alignment import score_alignment
from fewstep.guidance.self_guided_minority import SelfGuidedMinority
from fewstep.guidance.steered import Steered, SteeredLinear
from fewstep.guidance.thresholding import Thresholding
from fewstep.guidance.tractable_steering import TractableSteering, to_levels
from fewstep.guidance.upsample import UpsampleGuidance

__all__ = [
    "CADS", "CFG", "LEVELS", "PAG", "SAG", "AnnealedMCMC", "Ask", "Autoguidance", "Branch", "ClassifierGuidance",
    "Composition", "ContrastiveEnergy", "DensityControl", "DensityGuidance", "DensityNoise", "During", "EnergyNetwork",
    "EnergyParameterised", "EpsilonScaling", "ExpertGuidance", "Factorized", "FixedComponent", "FlowChef", "Guide",
    "HiGS", "LatentTree", "LowRankAdapted", "MinorityGuidance", "SelfGuidedMinority", "Steered", "SteeredLinear",
    "Thresholding", "TractableSteering", "UpsampleGuidance", "embedded_labels", "energy_loss", "fit_latent_tree",
    "log_prob_of", "minority_classes", "minority_score", "prior_guidance", "score_alignment", "to_levels",
    "train_energy", "train_experts",
]  # fmt: skip
