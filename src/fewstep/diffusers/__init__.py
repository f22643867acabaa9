"""Our plans in diffusers pipelines, and their models in ours; needs diffusers."""

from fewstep.errors import require

try:
    # diffusers loads a scheduler from a saved pipeline only where its base class stands beside it.
    from diffusers import SchedulerMixin
except ImportError as error:
    raise require("diffusers", "diffusers") from error

from fewstep.diffusers.for_pipelines import scheduler
from fewstep.diffusers.models import DiffusersModel, load_model
from fewstep.diffusers.plan_scheduler import PlanScheduler

__all__ = ["DiffusersModel", "PlanScheduler", "SchedulerMixin", "load_model", "scheduler"]
