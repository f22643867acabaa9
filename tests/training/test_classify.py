"""Classifiers: the loss, the rate and the moves as their formulas say, and a run that learns, stops and resumes."""

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fewstep.cli import app
from fewstep.errors import ArgumentError
from fewstep.networks import build, weights
from fewstep.networks.features import load_features
from fewstep.training import classify
from fewstep.training.classify import Classifying, shifted
from fewstep.training.config import ClassifierConfig
from fewstep.training.trainer import train

NET = {"kind": "classifier", "channels": 1, "classes": 3, "width": 4}
FIELDS = {"network": NET, "images": 1280, "batch": 32, "shift": 1}
NAMES = ["rows", "columns", "plain"]


def stripes(n, seed):
    """Rows, columns or neither, of random phase and contrast, in noise."""
    g = np.random.default_rng(seed)
    label, phase, contrast = g.integers(0, 3, n), g.uniform(0, 2 * np.pi, n), g.uniform(40, 100, n)
    wave = contrast[:, None, None] * np.sin(np.arange(12) * np.pi / 2 + phase[:, None])[:, None, :]
    flat = np.zeros((n, 12, 12))
    picture = np.select(
        [label[:, None, None] == 0, label[:, None, None] == 1], [wave.swapaxes(1, 2) + flat, wave + flat], 0
    )
    noisy = (127 + picture + g.normal(0, 10, picture.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(noisy)[:, None], torch.from_numpy(label)


TRAIN, TEST = stripes(300, 0), stripes(100, 1)


def test_it_learns_and_says_how_well(tmp_path, capsys):
    model = train(Classifying(ClassifierConfig(**FIELDS), *TRAIN, TEST), tmp_path, NAMES, every=10)
    lines = capsys.readouterr().out.splitlines()
    told = weights.read(model)[1]
    assert told["training"]["test_accuracy"] > 0.9
    assert told["training"]["test_images"] == 100
    assert told["classes"] == NAMES
    assert lines[-1] == f"accuracy {told['training']['test_accuracy']:.4f} on 100 test images"
    named = load_features(model).classify(TEST[0].float() / 127.5 - 1).argmax(1)
    assert float((named == TEST[1]).double().mean()) == pytest.approx(told["training"]["test_accuracy"], abs=0.02)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    """Batch normalisation's statistics and the momentum are part of the state."""
    config, compute, stops = ClassifierConfig(**{**FIELDS, "images": 640}), Classifying.loss, [7]
    whole = train(Classifying(config, *TRAIN, TEST), tmp_path / "whole", NAMES)

    def stopping(task, network, step, device):
        if stops and step == stops[0]:
            os.kill(os.getpid(), signal.SIGTERM)
            stops.pop()
        return compute(task, network, step, device)

    monkeypatch.setattr(classify.Classifying, "loss", stopping)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 8"):
        train(Classifying(config, *TRAIN, TEST), tmp_path / "again", NAMES)
    again = train(Classifying(config, *TRAIN, TEST), tmp_path / "again", NAMES)
    (one, told), (other, retold) = weights.read(whole), weights.read(again)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert told["training"]["test_accuracy"] == retold["training"]["test_accuracy"]
    assert told["training"]["loss"] == retold["training"]["loss"]


def test_the_loss_is_the_smoothed_cross_entropy():
    """For fixed logits: −Σ q·log p with q = (1 − s)·[c = label] + s/3."""
    labels, logits = torch.full((20,), 2), torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
    config = ClassifierConfig(**{**FIELDS, "smoothing": 0.3})
    task = Classifying(config, TRAIN[0][:20], labels)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum()
    q = np.array([0.1, 0.1, 0.8])
    found = task.loss(lambda x: logits.expand(len(x), 3), 0, "cpu")
    assert float(found) == pytest.approx(-(q * np.log(p)).sum(), rel=1e-6)


def test_judging_changes_nothing_and_counts_right_answers():
    """The statistics of batch normalisation stay; labels that are the answers give 1, others 0."""
    network = build(NET)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    task = Classifying(ClassifierConfig(**FIELDS), *TRAIN, TEST)
    task.judge(network, "cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    answers = network(TEST[0].float() / 127.5 - 1).argmax(1)
    for labels, accuracy in ((answers, 1.0), ((answers + 1) % 3, 0.0)):
        task = Classifying(ClassifierConfig(**FIELDS), *TRAIN, (TEST[0], labels))
        assert task.judge(network, "cpu") == {"test_accuracy": accuracy, "test_images": 100}


def test_the_rate_falls_in_a_straight_line_to_0():
    task = Classifying(ClassifierConfig(**FIELDS), *TRAIN)
    assert [task.rate(k) for k in (0, 10, 20, 40)] == pytest.approx([0.1, 0.075, 0.05, 0.0])


def test_moves_are_all_those_within_reach_and_enter_by_reflection():
    x = torch.arange(2 * 6 * 5.0).reshape(1, 2, 6, 5).repeat(400, 1, 1, 1)
    moved = shifted(x, 2, torch.Generator().manual_seed(0)).numpy()
    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = {(i, j): padded[:, i : i + 6, j : j + 5] for i in range(5) for j in range(5)}
    seen = [next(k for k, window in windows.items() if np.array_equal(window, one)) for one in moved]
    assert set(seen) == set(windows)
    assert torch.equal(shifted(x, 0, torch.Generator()), x)


def test_the_batch_is_that_of_seed_and_step_with_its_own_labels():
    """A batch shows each picture with its own label: here the level is the label."""
    images, labels = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 8, 8) * 100, torch.arange(3)
    seen = []

    def net(x):
        seen.append(x)
        level = ((x.mean((1, 2, 3)) + 1) * 127.5 / 100).round().long()
        return 50 * torch.nn.functional.one_hot(level, 3).float()

    task = Classifying(ClassifierConfig(**{**FIELDS, "smoothing": 0.0, "flip": True}), images, labels)
    assert float(task.loss(net, 5, "cpu")) < 1e-6
    task.loss(net, 5, "cpu")
    task.loss(net, 6, "cpu")
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"shift must be less than the sides \(12, 12\), got 12"):
        Classifying(ClassifierConfig(**{**FIELDS, "shift": 12}), *TRAIN)
    with pytest.raises(ArgumentError, match="test needs labelled images of shape"):
        Classifying(ClassifierConfig(**FIELDS), *TRAIN, (TEST[0][..., :8], TEST[1]))


CONFIG = 'images = 320\nbatch = 32\nshift = 1\n[network]\nkind = "classifier"\nchannels = 1\nclasses = 3\nwidth = 4\n'


def folder(path, data):
    for i, (picture, label) in enumerate(zip(*data, strict=True)):
        (path / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[0].numpy()).save(path / NAMES[label] / f"{i}.png")
    return str(path)


def test_the_command_line_trains_on_folders_and_keeps_their_names(tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG)
    data, test = folder(tmp_path / "train", stripes(60, 2)), folder(tmp_path / "test", stripes(20, 3))
    arguments = ["train", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), "--device", "cpu", "--data"]
    said = CliRunner().invoke(app, [*arguments, data, "--test", test])
    assert said.exit_code == 0, said.output
    assert "on 20 test images" in said.output
    told = weights.read(tmp_path / "out" / "model.safetensors")[1]
    assert told["classes"] == sorted(NAMES)
    assert told["training"]["device"] == "cpu"
    (tmp_path / "test" / "plain").rename(tmp_path / "test" / "blank")
    with pytest.raises(ArgumentError, match=r"are \['blank', .*those of"):
        CliRunner().invoke(app, [*arguments, data, "--test", test], catch_exceptions=False)
    with pytest.raises(ArgumentError, match="unknown device 'abacus'"):
        CliRunner().invoke(app, [*arguments, data, "--device", "abacus"], catch_exceptions=False)


def test_the_command_line_says_in_one_line_that_it_was_stopped(tmp_path, monkeypatch):
    (tmp_path / "run.toml").write_text(CONFIG)
    data, compute = folder(tmp_path / "train", stripes(60, 2)), Classifying.loss
    monkeypatch.setattr(Classifying, "loss", lambda *a: (os.kill(os.getpid(), signal.SIGTERM), compute(*a))[1])
    out = str(tmp_path / "out")
    said = CliRunner().invoke(app, ["train", str(tmp_path / "run.toml"), "--data", data, "--out", out])
    assert said.exit_code == 130
    assert "fewstep: stopped at step 1; start again" in said.output


def test_test_pictures_are_for_classifiers(tmp_path):
    (tmp_path / "run.toml").write_text('predicts = "v"\nimages = 64\n[network]\nkind = "unet"\n[path]\nkind = "flow"\n')
    with pytest.raises(ArgumentError, match="test pictures are for classifiers"):
        CliRunner().invoke(
            app, ["train", str(tmp_path / "run.toml"), "--data", "x", "--test", "y"], catch_exceptions=False
        )
