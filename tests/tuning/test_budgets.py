"""No tuner spends more than it may, guidance counted, and one that may spend too little refuses."""

import pytest
import torch

import fewstep
from fewstep import CFG, VP, methods, tune
from fewstep.errors import ArgumentError
from fewstep.tuning.problem import Problem
from fewstep.tuning.single import tuner_named

SEARCHES = {"usf": {"trials": 24}, "autodiffusion": {"samples": 32}, "align-your-steps": {"samples": 8}}


@pytest.mark.parametrize("name", sorted(m.name for m in methods() if m.family == "tuning"))
def test_no_tuner_spends_more_than_its_budget_and_too_small_a_one_is_refused(name):
    classes = fewstep.wrap(
        lambda x, t, label: (0.5 + 0.1 * label[:, None]) * torch.tanh(2 * x), VP(), "x0", shape=(6,), null={"label": 0}
    )
    options = {"samples": 32, "guides": [CFG(2.0)], "cond": {"label": [1, 2]}}
    tuner = tuner_named(name, **SEARCHES.get(name, {}))
    least = tuner.least(Problem(classes, 6, **options))
    if name == "worlds":
        assert least == 0
        return
    about = tune(classes, 6, method=tuner, budget=least + 500, settle=False, **options).source["tuned"]
    assert about["spent"] <= least + 500
    if least > 1:
        with pytest.raises(ArgumentError, match="is too small: this method needs at least"):
            tune(classes, 6, method=tuner, budget=least - 1, settle=False, **options)
