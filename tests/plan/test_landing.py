"""A plan with one coefficient a little off does not exist, whichever it is, in every place."""

from dataclasses import replace

import pytest
import torch

from fewstep import VP, make_plan
from fewstep.errors import PlanError
from fewstep.plan.table import Table

SHARED = torch.tensor([0.9, 0.6, 0.4, 0.1], dtype=torch.float64)
EACH = torch.stack([SHARED, SHARED**2], 1)


@pytest.mark.parametrize("times", [SHARED, EACH], ids=["shared", "each"])
@pytest.mark.parametrize("solver", ["heun", "dpm-solver++", "unipc", "sde-dpm-solver++"])
def test_every_coefficient_counts(solver, times):
    plan = make_plan(VP(), solver, times)
    for name in "MBN":
        table = getattr(plan, name)
        for entry in range(len(table)):
            value = table.value.clone()
            # Of several places the last alone is wrong.
            value.reshape(len(table), -1)[entry, -1] *= 1 + 1e-3
            with pytest.raises(PlanError, match=r"step \d leaves register \w+ at "):
                replace(plan, **{name: Table(table.index, value)})


@pytest.mark.parametrize("ask", [(3, 0), (-1, 0), (0, 5), (0, -1)])
def test_an_ask_of_nothing_is_refused(ask):
    plan = make_plan(VP(), "ddim", SHARED)
    asks = torch.cat([plan.asks, torch.tensor([ask])])
    with pytest.raises(PlanError, match="no such step or register"):
        replace(plan, asks=asks, ask_times=torch.cat([plan.ask_times, plan.ask_times[:1]]))


@pytest.mark.parametrize(("name", "index"), [("M", (3, 0, 0)), ("M", (0, 1, 0)), ("M", (0, 0, 1)), ("B", (0, 0, 1))])
def test_an_entry_of_nothing_is_refused(name, index):
    plan = make_plan(VP(), "ddim", SHARED)
    with pytest.raises(PlanError, match="no such step, register or"):
        replace(plan, **{name: Table(torch.tensor([index]), torch.ones(1, dtype=torch.float64))})
