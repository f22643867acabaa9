"""Start-up costs, and the catalogue that is read without torch."""

import json
import subprocess
import sys
import time

from fewstep.catalog import methods


def timed(code):
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        best = min(best, time.perf_counter() - began)
    return best


def test_importing_fewstep_adds_little_to_torch():
    assert timed("import torch, fewstep") - timed("import torch") < 0.3


def test_the_catalogue_needs_no_torch_and_half_a_second():
    assert timed("import fewstep, sys; fewstep.methods(); assert 'torch' not in sys.modules") < 0.5


def test_methods_are_complete():
    names = [m.name for m in methods()]
    assert {"ddim", "dpm-solver++", "euler", "heun", "ddpm", "cfg"} <= set(names)
    assert len(set(names)) == len(names)
    for m in methods():
        assert m.summary.endswith(".")
        assert set(json.loads(json.dumps(m.to_json()))) == {"name", "family", "papers", "summary", "module"}
