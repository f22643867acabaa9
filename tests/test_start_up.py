"""Start-up costs, and the catalogue that is read without torch."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fewstep.catalog import methods


def processor_seconds(*command):
    """User and system time of a command, the least of three: wall time would measure the other tests too."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def test_importing_fewstep_adds_little_to_torch():
    code = "import torch, time; t = time.process_time(); import fewstep; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.3


def test_the_catalogue_needs_no_torch_and_half_a_second():
    code = "import fewstep, sys; fewstep.methods(); assert 'torch' not in sys.modules"
    assert processor_seconds(sys.executable, "-c", code) < 0.5


def test_a_first_run_imports_no_computer_algebra():
    """`torch.broadcast_shapes` would: 0.2 s and more, two thirds of what the first plan of a process took."""
    code = (
        "import sys; from fewstep import VP, sample, wrap;"
        "sample(wrap(lambda x, t: x, VP(), 'x0', shape=(1, 2, 2)), solver='unipc', steps=2);"
        "assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", ["--help", "catalog"])
def test_help_and_catalog_answer_in_half_a_second(command):
    fewstep = Path(sys.executable).with_name("fewstep")
    assert processor_seconds(str(fewstep), command) < 0.5


def test_methods_are_complete():
    names = [m.name for m in methods()]
    assert {"ddim", "dpm-solver++", "euler", "heun", "ddpm", "cfg"} <= set(names)
    assert len(set(names)) == len(names)
    for m in methods():
        assert m.summary.endswith(".")
        assert set(json.loads(json.dumps(m.to_json()))) == {"name", "family", "papers", "summary", "module"}
