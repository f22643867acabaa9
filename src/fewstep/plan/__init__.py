"""The plan: a sampler on one grid, as data."""

from fewstep.plan.plan import Plan, Step
from fewstep.plan.table import Builder, Table

__all__ = ["Builder", "Plan", "Step", "Table"]
