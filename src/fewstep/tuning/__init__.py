"""Plans tuned to a model, a data set or a family of worlds."""

from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.tune import tune, tune_each

__all__ = ["Problem", "Tuner", "tune", "tune_each"]
