"""The command line, as a user runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fewstep.cli
from fewstep.cli.options import GRIDS

FEWSTEP = shutil.which("fewstep") or str(Path(sys.executable).with_name("fewstep"))


def run(*arguments, ok=True):
    done = subprocess.run([FEWSTEP, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout if ok else done.stderr


def test_catalog_json():
    rows = json.loads(run("catalog", "--json"))
    assert {"name", "family", "papers", "summary", "module", "aliases"} == set(rows[0])
    named = {row["name"]: row["aliases"] for row in rows}
    assert named["dpm-solver++"]["DPM++ 2M"] == {}
    assert named["ddpm"]["DPM2 a"] == {"base": "dpm-solver-2"}
    assert "[DPM++ 2M, Res Multistep]" in run("catalog")
    assert "Denoising Diffusion Implicit Models" in [p for row in rows for p in row["papers"]]


def test_plan_table_and_file(tmp_path):
    text = run("plan", "flow", "--solver", "heun", "--grid", "uniform", "--steps", 3, "--out", tmp_path / "p.json")
    assert "5 evaluations" in text
    assert run("plan", tmp_path / "p.json") == text


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("plan p.json --steps 5", "leave them out"),
        ("plan p.json --solver ddim", "leave them out"),
        ("plan p.json --grid karras", "leave them out"),
        ("generate --plan p.json --solver ddim --out none", "leave solver out"),
    ],
)
def test_what_a_plan_file_says_itself_is_not_asked_for(command, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    fewstep.make_plan(fewstep.VP(), steps=3).save("p.json")
    monkeypatch.setattr(sys, "argv", ["fewstep", *command.split()])
    with pytest.raises(SystemExit, match="2"):
        fewstep.cli.main()
    assert said in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]


def test_doctor():
    said = run("doctor")
    assert "torch" in said
    assert all(f"{name} " in said for name in ("numpy", "diffusers", "deepinv", "gradio", "plotly", "ray"))


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("sample --solver dpm-solver-", ["dpm-solver-2", "dpm-solver-3", "dpm-solver-adaptive", "dpm-solver-fast"]),
        ("sample --grid k", ["karras"]),
        ("compare --model mn", ["mnist", "mnist-ambient"]),
        ("restore x.png --method diffp", ["diffpir"]),
        ("tune --method git", ["gits"]),
        ("com", ["compare"]),
    ],
)
def test_the_shell_completes_names(begun, offered):
    words = f"fewstep {begun}"
    told = {"_FEWSTEP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run([FEWSTEP], capture_output=True, text=True, env=os.environ | told)
    assert set(offered) <= set(done.stdout.split()), done.stderr
    assert len(done.stdout.split()) <= len(offered) + 8


def test_the_grids_that_a_shell_completes_are_all():
    assert list(GRIDS) == list(fewstep.grids.GRIDS)


def test_every_command_shows_an_example():
    commands = re.findall(r"^│ (\w+)  ", run("--help"), re.MULTILINE)
    assert len(commands) >= 10
    app = [command.callback for command in fewstep.cli.app.registered_commands]
    assert len(app) == len(commands)
    assert [f.__name__ for f in app if "Example: fewstep" not in (f.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "vp", "--solver", "dmp"), "unknown solver 'dmp'"),
        (("plan", "vp", "--steps", "0"), "steps must be"),
        (("plan", "flwo"), "did you mean 'flow'"),
        (("show", "nothing.png"), "not a picture"),
        (("sample", "--model", "mnits"), "unknown model"),
        (("sample", "--model", "mnist-resshift"), "cond={'y': a tensor}"),
        (("sample", "--model", "mnist-resshift", "--label", "3"), "has no classes"),
        (("sample", "--label", "99"), "classes 0 to 9, got 99"),
        (("sample", "-n", "1", "--steps", "1", "--out", "/dev/null/x.png"), "/dev/null"),
        (("generate", "--label", "-1", "--out", "none"), "classes 0 to 9, got -1"),
        (("compare", "--out", "c.foo"), "unknown kind of picture 'foo'"),
        (("tune", "--plot", "c.foo"), "unknown kind of picture 'foo'"),
        (("tune", "--evaluations", "3", "--evaluations", "1", "--method", "gits"), "at least 2, got 1"),
        (("train", "none.toml", "--data", "none.npz"), "cannot read the training config"),
    ],
)
def test_errors_are_one_line(arguments, said, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["fewstep", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        fewstep.cli.main()
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_error_ends_the_command_in_one_line():
    error = run("plan", "vp", "--solver", "dmp", ok=False)
    assert "unknown solver 'dmp'" in error
    assert "Traceback" not in error


def test_train_sample_and_show(tmp_path):
    """The whole way of a user: train a tiny model, sample from its file, read the picture's recipe."""
    np.savez(tmp_path / "d.npz", images=np.full((8, 8, 8), 200, np.uint8), labels=np.arange(8) % 2)
    network = '[network]\nkind = "unet"\nchannels = 1\nclasses = 2\nwidth = 8\nmultipliers = [1]\nattention = [0]\n'
    head = 'predicts = "v"\nimages = 64\nbatch = 8\n'
    (tmp_path / "run.toml").write_text(head + network + '[path]\nkind = "vp"\nbeta_min = 0.1\nbeta_max = 20.0\n')
    assert "wrote" in run("train", tmp_path / "run.toml", "--data", tmp_path / "d.npz", "--out", tmp_path / "out")
    model, picture = tmp_path / "out" / "model.safetensors", tmp_path / "s.png"
    said = run("sample", "--model", model, "-n", 4, "--evaluations", 6, "--guidance", 2, "--out", picture)
    assert "6 evaluations each" in said
    assert "3 evaluations, order 2" in run("show", picture)


@pytest.mark.parametrize("solver", ["ddim", "DPM++ 2M Karras", "auto"])
def test_the_shipped_model_draws_digits(tmp_path, solver):
    said = run("sample", "-n", 2, "--solver", solver, "--steps", 5, "--out", tmp_path / "s.png")
    assert "5 evaluations each" in said
