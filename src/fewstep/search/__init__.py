"""Search towards a reward: weighted particles, and searches over noises and paths."""

from fewstep.search.base import Found, Search, SearchStats
from fewstep.search.ensemble_kalman import EnKG
from fewstep.search.feynman_kac import FKSteering
from fewstep.search.inverse_design import InverseDesign
from fewstep.search.learned_value import LearnedValue, fit_value
from fewstep.search.mode_interpolation import Reject, mind_changes
from fewstep.search.particles import CollapseWarning
from fewstep.search.preference_inversion import PAHI, InvertedNoise, OneHot
from fewstep.search.random_search import RandomSearch
from fewstep.search.rewards import Reward
from fewstep.search.search_over_paths import PathSearch
from fewstep.search.soft_value_decoding import SVDD
from fewstep.search.tilted_mixture import TiltedMixture
from fewstep.search.values import Rollouts
from fewstep.search.verifiers import RankEnsemble
from fewstep.search.weighted_ensemble import AFDPS
from fewstep.search.zero_order_search import ZeroOrderSearch

__all__ = [
    "AFDPS", "PAHI", "SVDD", "CollapseWarning", "EnKG", "FKSteering", "Found", "InverseDesign", "InvertedNoise",
    "LearnedValue", "OneHot", "PathSearch", "RandomSearch", "RankEnsemble", "Reject", "Reward", "Rollouts", "Search",
    "SearchStats", "TiltedMixture", "ZeroOrderSearch", "fit_value", "mind_changes",
]  # fmt: skip
