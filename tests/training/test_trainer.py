"""Runs that are stopped, resumed or saved within an interval end the same; bfloat16 is the network's alone."""

import itertools
import os
import signal

import pytest
import torch

from fewstep.errors import ArgumentError, NumericalError
from fewstep.networks import build, weights
from fewstep.training import denoising, trainer
from fewstep.training.batch import answer
from fewstep.training.config import TrainingConfig
from fewstep.training.run import choose_device

NET = {"kind": "unet", "channels": 1, "classes": 2, "width": 8, "multipliers": [1], "attention": [0], "patch": 2}
FIELDS = {"network": NET, "path": {"kind": "flow"}, "predicts": "flow", "images": 384, "batch": 8}
IMAGES, LABELS = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 2


def train(out, every=10, **fields):
    return trainer.train(
        denoising.Denoising(TrainingConfig(**{**FIELDS, **fields}), IMAGES, LABELS), out, ["a", "b"], every=every
    )


def checkpoint(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture
def losses(monkeypatch):
    """The loss of every step, by step; a step in `stop_at` also sends this process a signal."""
    seen, compute = {"stop_at": {}}, denoising.loss

    def watched(config, network, images, labels, step, device):
        if step in seen["stop_at"]:
            os.kill(os.getpid(), seen["stop_at"].pop(step))
        value = compute(config, network, images, labels, step, device)
        seen[step] = value.item()
        return value

    monkeypatch.setattr(denoising, "loss", watched)
    return seen


@pytest.fixture
def whole(tmp_path):
    train(tmp_path / "whole")
    return checkpoint(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, losses, number, capsys):
    """Stopped in the middle of an interval: weights, optimiser, loss curve and lines are those of the whole run."""
    train(tmp_path / "whole")
    whole = checkpoint(tmp_path / "whole")
    lines, before, out = capsys.readouterr().out.splitlines(), signal.getsignal(number), tmp_path / "stopped"
    losses["stop_at"] = {17: number, 33: number}
    for steps in (18, 34):
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {steps}"):
            train(out)
        assert checkpoint(out)["step"] == steps
        assert signal.getsignal(number) is before
    train(out)
    told = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in told] == [line.split("  ")[:2] for line in lines]
    end = checkpoint(out)
    assert end["curve"] == whole["curve"]
    assert [step for step, _ in end["curve"]] == [10, 20, 30, 40, 48]
    assert same(end["network"], whole["network"])
    assert same(end["mean"], whole["mean"])


def test_resumed_with_another_interval_the_mean_is_over_the_steps_since_the_last_line(tmp_path, losses):
    losses["stop_at"] = {17: signal.SIGTERM}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, every=10)
    train(tmp_path, every=16)
    ends = [0, 10, 32, 48]
    means = [sum(losses[k] for k in range(a, b)) / (b - a) for a, b in itertools.pairwise(ends)]
    curve = checkpoint(tmp_path)["curve"]
    assert [step for step, _ in curve] == ends[1:]
    assert [loss for _, loss in curve] == pytest.approx(means, abs=1e-5)


def test_checkpoints_inside_an_interval_change_nothing_but_are_not_counted_as_time(
    tmp_path, monkeypatch, capsys, whole, losses
):
    """With a clock of half a second a step and of 100 s a write, each line says 8/0.5 = 16 images a second."""
    clock, compute, put = [0.0], denoising.loss, trainer.write_atomically
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", 1.4)
    written = []

    def spend(seconds, function):
        def spending(*arguments):
            clock[0] += seconds
            return function(*arguments)

        return spending

    monkeypatch.setattr(denoising, "loss", spend(0.5, compute))
    monkeypatch.setattr(trainer, "write_atomically", spend(100, lambda *a: (written.append(a), put(*a))))
    capsys.readouterr()
    train(tmp_path)
    assert [line.split("  ")[2] for line in capsys.readouterr().out.splitlines()] == ["16 images/s"] * 5
    assert len(written) == 4 * 4 + 3  # 3, 3, 3 and 1 steps of each ten; 3, 3 and 2 of the last eight
    end = checkpoint(tmp_path)
    assert end["seconds"] == 24
    assert end["curve"] == whole["curve"]
    assert same(end["mean"], whole["mean"])


def test_a_finished_run_writes_its_model_again(tmp_path):
    model = train(tmp_path)
    first = model.read_bytes()
    model.unlink()
    assert train(tmp_path).read_bytes() == first


def test_a_spoilt_checkpoint_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(NumericalError, match="not finite between steps 0 and 1"):
        train(tmp_path, rate=float("inf"))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_bfloat16_is_the_networks_arithmetic_only(tmp_path, losses):
    exact = {}
    for precision in ("float32", "bfloat16"):
        train(tmp_path / precision, precision=precision)
        exact[precision] = [losses[k] for k in range(48)]
        kinds = {tensor.dtype for tensor in checkpoint(tmp_path / precision)["network"].values()}
        assert kinds == {torch.float32}
    assert exact["bfloat16"] != exact["float32"]
    assert exact["bfloat16"] == pytest.approx(exact["float32"], rel=0.05)


def test_answer_runs_in_the_precision_and_speaks_float32():
    network, seen = build(NET), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    inputs = torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long)
    for precision in ("float32", "bfloat16"):
        assert answer(network, precision, "cpu", *inputs).dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]


def test_data_that_does_not_fit_is_refused(tmp_path):
    config = TrainingConfig(**FIELDS)
    with pytest.raises(ArgumentError, match="pictures of 1 channels, the data has 3"):
        trainer.train(denoising.Denoising(config, IMAGES.repeat(1, 3, 1, 1), LABELS), tmp_path, ["a", "b"])
    with pytest.raises(ArgumentError, match="2 classes, the data 3: "):
        trainer.train(denoising.Denoising(config, IMAGES, LABELS), tmp_path, ["a", "b", "c"])


def test_the_running_mean_follows_its_formula(tmp_path):
    """θ̄ ← d·θ̄ + (1 − d)·θ with d = 1/10, then 2/11 cut off at the decay asked for."""
    config = TrainingConfig(**{**FIELDS, "ema": 0.15, "rate": 1.0})
    state = trainer.Trainer(denoising.Denoising(config, IMAGES, LABELS), tmp_path, ["a", "b"], "cpu")
    flat = torch.nn.utils.parameters_to_vector
    mean = flat(state.network.parameters()).detach().clone()
    for decay in (0.1, 0.15, 0.15):
        state.advance()
        mean = decay * mean + (1 - decay) * flat(state.network.parameters()).detach()
        assert torch.allclose(flat(state.mean.parameters()), mean, atol=1e-6)


def test_devices():
    assert choose_device("cpu") == "cpu"
    assert choose_device(None) in ("cpu", "cuda", "mps")
    with pytest.raises(ArgumentError, match="unknown device 'cdua'"):
        choose_device("cdua")


def test_the_model_says_what_it_is(tmp_path):
    told = weights.read(train(tmp_path))[1]
    assert (told["shape"], told["range"], told["classes"], told["null_label"]) == ([1, 8, 8], [-1, 1], ["a", "b"], 2)
    assert told["training"]["images_seen"] == 384
    assert told["training"]["config"] == TrainingConfig(**FIELDS).to_json()
