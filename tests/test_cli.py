"""The command line, as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FEWSTEP = shutil.which("fewstep") or str(Path(sys.executable).with_name("fewstep"))


def run(*arguments, ok=True):
    done = subprocess.run([FEWSTEP, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout if ok else done.stderr


def test_catalog_json():
    rows = json.loads(run("catalog", "--json"))
    assert {"name", "family", "papers", "summary", "module"} == set(rows[0])
    assert "Denoising Diffusion Implicit Models" in [p for row in rows for p in row["papers"]]


def test_plan_table_and_file(tmp_path):
    text = run("plan", "flow", "--solver", "heun", "--grid", "uniform", "--steps", 3, "--out", tmp_path / "p.json")
    assert "5 evaluations" in text
    assert run("plan", tmp_path / "p.json") == text


def test_doctor():
    assert "torch" in run("doctor")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "vp", "--solver", "dmp"), "unknown solver 'dmp'"),
        (("plan", "vp", "--steps", "0"), "steps must be"),
        (("plan", "flwo"), "did you mean 'flow'"),
        (("show", "nothing.png"), "not a picture"),
        (("sample", "--model", "mnits"), "unknown model"),
        (("train", "none.toml", "--data", "none.npz"), "cannot read the training config"),
    ],
)
def test_errors_are_one_line(arguments, said):
    error = run(*arguments, ok=False)
    assert said in error
    assert "Traceback" not in error
