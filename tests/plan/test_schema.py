"""The published schema describes the plans that are written, and refuses what is not one."""

import copy
import json
from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from jsonschema import Draft202012Validator

from fewstep import VP, make_plan
from fewstep.catalog import methods
from fewstep.plan.files import dumps

SCHEMA = json.loads((files("fewstep") / "plan" / "plan.schema.json").read_text(encoding="utf8"))
VALID = Draft202012Validator(SCHEMA)


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("solver", [m.name for m in methods() if m.family == "solvers"])
def test_plans_fit_it(solver):
    assert VALID.is_valid(json.loads(dumps(make_plan(VP(), solver, "logsnr", 4))))


def test_plans_that_leave_out_layers_fit_it():
    plan = replace(make_plan(VP(), "ddim", "logsnr", 2), skips=((), ("a.0", "b")))
    assert VALID.is_valid(json.loads(dumps(plan)))


def test_plans_with_a_time_a_place_fit_it():
    times = torch.tensor([[[1.0], [0.9]], [[0.4], [0.2]]], dtype=torch.float64)
    assert VALID.is_valid(json.loads(dumps(make_plan(VP(), "ddim", times))))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("times"),
        lambda d: d.update(version=2),
        lambda d: d.update(registers=["y"]),
        lambda d: d["M"].append([0, 0, 1.0]),
        lambda d: d["asks"].append([-1, 0, 0.5]),
        lambda d: d["restarts"].append({}),
        lambda d: d.update(hash="0"),
    ],
)
def test_what_is_no_plan_does_not(change):
    data = copy.deepcopy(json.loads(dumps(make_plan(VP(), "dpm-solver++", "logsnr", 3))))
    change(data)
    assert not VALID.is_valid(data)
