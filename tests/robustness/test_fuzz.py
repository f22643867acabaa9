"""Drawn arguments: every public call gives a finite result or one of our errors, never anything else, and soon."""

import pytest
from fuzz import CALLS, SEEN, WORLD, fuzzed

import fewstep
from fewstep.errors import ArgumentError

EXAMPLES = {
    "sample": 150, "make_plan": 150, "command": 20, "tune": 15, "compare": 25, "restore": 25, "generate": 20,
    "verify": 20,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_only_results_or_our_errors(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results, refusals, _ = fuzzed(name, EXAMPLES.get(name, 60), deadline=60.0)
    assert refusals > 0 or name == "command"
    assert results > 0 or name == "load"


@pytest.mark.parametrize(
    "wrong", [{"method": {}}, {"method": []}, {"method": "repaint", "grid": [0.9, 0.2]}, {"grid": 3}]
)
def test_what_was_drawn_once_stays_refused(wrong):
    with pytest.raises(ArgumentError):
        fewstep.restore(WORLD, SEEN, **{"evaluations": 4, **wrong})
