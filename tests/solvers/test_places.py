"""Each place of a sample may have its own times, and stand still: it then runs as if it were alone."""

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample, wrap
from fewstep.catalog import methods
from fewstep.errors import ArgumentError
from fewstep.plan.files import dumps, loads
from fewstep.solvers import solver_named

ONE_TIME = {"churn", "restart", "phase-space-conjugate", "phase-space-euler", "phase-space-oba"}
# Its steps are cut by the number of intervals, which places share.
COUNTS_INTERVALS = {"dpm-solver-fast"}
NAMES = [m.name for m in methods() if m.family == "solvers" and m.name not in ONE_TIME | COUNTS_INTERVALS]
# A row that stands still is to these as if it were not there; others forget their history at it, or draw its noise.
PASS_OVER = [
    "conjugate", "ddim", "dpm-solver++2s", "dpm-solver++3s", "dpm-solver-2", "dpm-solver-3", "dpm-solver-v3", "euler",
    "ghvb", "heun", "ralston3", "restoration-degradation", "rk4", "unipc",
]  # fmt: skip
# From α = 0 they take one answer, of a step that has several.
ENDS_APART = {"ghvb", "heun", "ralston3", "rk4"}
CASES = [(name, path, False) for name in NAMES for path in (VP(), Flow())]
CASES += [(name, path, True) for name in PASS_OVER for path in (VP(), Flow())]


def belief(x, t):
    """Linear neither in x nor in t."""
    return torch.tanh(x) * (1 + 0.3 * t.double().cos().reshape(len(t), -1))


@pytest.mark.parametrize(("name", "path", "rests"), CASES, ids=lambda v: getattr(v, "kind", None))
def test_places_have_their_own_times_and_may_stand_still(name, path, rests):
    first = 0.8 if name in ENDS_APART and path == Flow() else 1.0
    columns = [
        [0.9, 0.5, 0.3, 0.2, 0.0], [first, 0.7, 0.7 if rests else 0.6, 0.4, 0.1], [0.4, 0.0, 0.0, 0.0, 0.0],
    ]  # fmt: skip
    plan = solver_named(name)(path, torch.tensor(columns, dtype=torch.float64).T[:, None])
    den = wrap(belief, path, "x0", shape=(3,))
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    assert loads(dumps(plan)) == plan
    together = sample(den, start=x, plan=plan).x
    for i, column in enumerate(columns):
        falling = sorted(set(column), reverse=True)
        alone = sample(den, start=x, plan=make_plan(path, name, falling)).x
        assert torch.allclose(together[:, i], alone[:, i], rtol=1e-10)
    for step in plan:
        for kind, source, value in step.writes.get(0, []):
            still = (step.t == step.t_next).expand(value.shape)
            assert (value[still] == (1.0 if (kind, source) == ("M", 0) else 0.0)).all()


@pytest.mark.parametrize("name", sorted(ONE_TIME))
def test_solvers_of_one_time_say_so(name):
    times = torch.tensor([[0.9, 0.8], [0.4, 0.5], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ArgumentError, match="time"):
        solver_named(name)(VP(), times)
