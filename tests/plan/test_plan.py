"""Plans: consistency, normal form, JSON bit for bit, and what may not exist."""

import json
from dataclasses import replace

import pytest
import torch

from fewstep.catalog import methods
from fewstep.errors import FewstepError, PlanError
from fewstep.grids import GRIDS
from fewstep.paths import VE, VP, Cosine, Flow
from fewstep.plan import Builder, Plan
from fewstep.plan.files import dumps, loads
from fewstep.planning import make_plan
from fewstep.solvers import solver_named

PATHS = [VP(), VE(), Flow(), Cosine(), VP.from_betas("scaled_linear")]
SOLVERS = [m.name for m in methods() if m.family == "solvers"]
# Those that end at the least trained level are the same grids on all paths but one.
DISTINCT = [name for name in GRIDS if not name.endswith("-trained")]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("grid", DISTINCT)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_solver_on_every_path_and_grid_lands_and_survives_json(path, solver, grid, steps):
    plan = make_plan(path, solver, grid, steps)
    again = loads(dumps(plan))
    assert again == plan
    assert dumps(again) == dumps(plan)
    assert plan.times[-1] == 0
    assert "x = x̂₀" in str(plan)


def broken(**change):
    """DDIM's first step on the flow path from 1 to 0.5, with something wrong."""
    builder = Builder(torch.tensor([1.0, 0.5], dtype=torch.float64), ("x",))
    builder.ask("x", times=torch.tensor([change.get("asked", 1.0)], dtype=torch.float64))
    builder.add("x", "x", change.get("x", 0.5))
    builder.add("x", 0, change.get("answer", 0.5))
    builder.add("x", "noise", change.get("noise", 0.0))
    return Plan.build(Flow(), builder, deviates=change.get("deviates", ""))


@pytest.mark.parametrize(
    "change", [{"x": 0.51}, {"x": -0.5}, {"answer": 0.49}, {"noise": 0.1}, {"asked": 0.9}, {"x": float("nan")}]
)
def test_an_inconsistent_plan_is_refused(change):
    assert broken().evaluations == 1
    with pytest.raises(PlanError):
        broken(**change)


def test_a_method_may_deviate_if_it_says_so():
    assert "on purpose" in str(broken(x=0.51, deviates="on purpose"))


def test_normal_form_drops_what_changes_nothing():
    times = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)

    def build(extra):
        builder = Builder(times, ("x", "m1"))
        builder.ask("x")
        builder.add("x", "x", torch.tensor([0.5, 0.0]))
        builder.add("x", 0, torch.tensor([0.5, 1.0]))
        if extra:
            builder.add("m1", 0, 1.0)
            builder.add("x", "noise", 0.0)
            builder.ask("x", slot=1)
        return Plan.build(Flow(), builder)

    assert build(True) == build(False)
    assert build(True).evaluations == 2
    assert not build(True).stochastic


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_a_place_whose_time_stands_still_is_not_touched(solver):
    times = torch.tensor([[0.9, 0.4, 0.0], [0.5, 0.4, 0.0], [0.5, 0.1, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    plan = make_plan(VP(), solver, times)
    for step in plan:
        still = step.t == step.t_next
        for kind, source, value in step.writes.get(0, []):
            expected = 1.0 if (kind, source) == ("M", 0) else 0.0
            assert (value[still] == expected).all()
    assert loads(dumps(plan)) == plan


def test_columns_of_a_placed_plan_are_the_plans_of_their_times():
    columns = [[0.9, 0.5, 0.2, 0.0], [1.0, 0.7, 0.6, 0.0]]
    both = make_plan(VP(), "dpm-solver++", torch.tensor(columns, dtype=torch.float64).T)
    for i, column in enumerate(columns):
        alone = make_plan(VP(), "dpm-solver++", column)
        assert torch.equal(both.M.value[:, i], alone.M.value)
        assert torch.equal(both.B.value[:, i], alone.B.value)


def test_a_notebook_shows_the_table():
    shown = make_plan(VP(), "heun", "uniform", 2)._repr_html_()
    assert shown.count("<tr>") == 1 + 3
    assert "<td>x = x̂₀</td>" in shown
    assert "(Heun in other tools)" in shown
    assert "<script" not in replace(make_plan(VP(), "heun", steps=1), source={"solver": "<script>"})._repr_html_()


def test_reversible_is_read_from_the_table():
    assert not make_plan(VP(), "ddim", steps=3).reversible
    builder = Builder(torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64), ("x", "y"))
    builder.ask("x", steps=range(1))
    builder.add("y", "x", 0.5, range(1))
    builder.add("y", 0, 0.5, range(1))
    builder.add("x", "y", 1.0, range(1, 2))
    builder.add("y", "x", 1.0, range(1, 2))
    swapped = Plan.build(Flow(), builder, deviates="the state waits in y for a row")
    assert not swapped.reversible  # y's old value is overwritten by a map of x alone


def test_the_plan_file(tmp_path):
    plan = solver_named("ddim", eta=0.3)(VP(), GRIDS["karras"](VP(), 5, 1.0))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    text = (tmp_path / "plan.json").read_text()
    data = json.loads(text)
    for damage in (text[:-20], text.replace("0.1", "0.2", 1), "[]", "null", "{}", "", "\x00", '{"format": NaN}'):
        with pytest.raises(PlanError):
            loads(damage)
    for key in data:
        with pytest.raises(FewstepError):
            loads(json.dumps({k: v for k, v in data.items() if k != key}))
    with pytest.raises(PlanError, match="cannot read"):
        Plan.load(tmp_path / "none.json")


def test_gradients_reach_the_times():
    times = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64, requires_grad=True)
    plan = make_plan(VP(), "dpm-solver++", times)
    (gradient,) = torch.autograd.grad(plan.M.value.sum() + plan.B.value.square().sum(), times)
    assert gradient[1:3].isfinite().all()
    assert (gradient[1:3] != 0).all()
