"""Training learns what is known, and a run that was killed ends as one that was not."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from fewstep.errors import ArgumentError, NumericalError, WeightsError
from fewstep.networks import weights
from fewstep.training import trainer
from fewstep.training.config import TrainingConfig, read_config
from fewstep.training.data import read_images
from fewstep.training.denoising import Denoising, loss

NET = {"kind": "unet", "channels": 1, "classes": 2, "width": 8, "multipliers": [1], "attention": [0], "patch": 2}
FIELDS = {"network": NET, "path": {"kind": "flow"}, "predicts": "flow", "images": 480, "batch": 8}
IMAGES, LABELS = torch.full((20, 1, 8, 8), 200, dtype=torch.uint8), torch.arange(20) % 2

SCRIPT = """
import sys, torch
sys.path.insert(0, {here!r})
import test_denoising as t
t.trainer.train(t.Denoising(t.TrainingConfig(**t.FIELDS), t.IMAGES, t.LABELS), sys.argv[1], ["a", "b"], every=10)
"""


def run(out):
    code = SCRIPT.format(here=os.path.dirname(__file__))
    return subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole = run(tmp_path / "whole")
    killed = run(tmp_path / "killed")
    for line in killed.stdout:
        if line.startswith("step 20 "):
            time.sleep(0.05)
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    again = run(tmp_path / "killed")
    lines = again.communicate()[0].splitlines()
    whole.communicate()
    assert 0 < len(lines) < 7
    ends = [weights.read(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("whole", "killed")]
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def test_it_learns_a_constant_picture(tmp_path, capsys):
    """All data is one picture, so flow = ε − x₀ is known from x and the loss can fall far below its start."""
    config = TrainingConfig(**{**FIELDS, "images": 8 * 1200, "rate": 3e-3})
    trainer.train(Denoising(config, IMAGES, LABELS), tmp_path, ["a", "b"], every=100)
    losses = [float(line.split()[5]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < 0.25 * losses[0]
    model = weights.read(tmp_path / "model.safetensors")[1]
    assert model["training"]["images_seen"] == 9600
    assert model["null_label"] == 2


def test_the_target_is_the_paths_own():
    """A network that answers ε − x₀ exactly has loss 0 on the flow path; off by a sign it has not."""
    config = TrainingConfig(**FIELDS)
    level = 200 / 127.5 - 1

    def exact(sign):
        def net(x, lam, label):
            t = torch.sigmoid(-lam)[:, None, None, None]
            return sign * ((x - (1 - t) * level) / t - level)

        return net

    assert float(loss(config, exact(1), IMAGES, LABELS, 0)) < 1e-4
    assert float(loss(config, exact(-1), IMAGES, LABELS, 0)) > 1


def test_another_runs_or_a_damaged_checkpoint_and_wrong_labels_are_refused(tmp_path):
    trainer.train(Denoising(TrainingConfig(**FIELDS), IMAGES, LABELS), tmp_path, ["a", "b"], every=60)
    with pytest.raises(ArgumentError, match="another rate"):
        trainer.train(Denoising(TrainingConfig(**{**FIELDS, "rate": 0.5}), IMAGES, LABELS), tmp_path, ["a", "b"])
    (tmp_path / "checkpoint.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:500])
    with pytest.raises(WeightsError, match="cannot be read"):
        trainer.train(Denoising(TrainingConfig(**FIELDS), IMAGES, LABELS), tmp_path, ["a", "b"])
    for labels in (LABELS + 1, LABELS[:3]):
        with pytest.raises(ArgumentError, match="every image needs a label"):
            trainer.train(Denoising(TrainingConfig(**FIELDS), IMAGES, labels), tmp_path / "new", ["a", "b"])


def test_nan_ends_the_run(tmp_path):
    config = TrainingConfig(**{**FIELDS, "rate": float("inf")})
    with pytest.raises(NumericalError, match="not finite"):
        trainer.train(Denoising(config, IMAGES, LABELS), tmp_path, ["a", "b"], every=5)


def test_configs(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("imagse = 3")
    with pytest.raises(ArgumentError, match="did you mean 'images'"):
        read_config(file)
    file.write_text("images = ")
    with pytest.raises(ArgumentError, match="cannot read"):
        read_config(file)
    file.write_text("images = 3")
    with pytest.raises(ArgumentError, match="missing"):
        read_config(file)
    with pytest.raises(ArgumentError, match="images must be"):
        TrainingConfig(**{**FIELDS, "images": 1})


def test_data(tmp_path):
    np.savez(tmp_path / "d.npz", images=np.zeros((3, 8, 8, 3), np.uint8), labels=np.arange(3))
    images, labels = read_images(tmp_path / "d.npz")
    assert images.shape == (3, 3, 8, 8)
    assert labels.tolist() == [0, 1, 2]
    for name in ("none.npz", "none.txt"):
        with pytest.raises(ArgumentError):
            read_images(tmp_path / name)
