"""The training loop: it learns what is known, and a run killed with −9 ends as the run that was not."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from fewstep.errors import NumericalError
from fewstep.networks.weights import read
from fewstep.paths import PREDICTIONS, change_of_basis, from_json
from fewstep.training import loop
from fewstep.training.config import TrainingConfig
from fewstep.training.loop import train

NETWORK = {"kind": "unet", "channels": 1, "classes": 2, "width": 8, "multipliers": [1], "attention": [0]}
CONFIG = TrainingConfig(NETWORK, {"kind": "flow"}, "flow", images=640, batch=16, rate=1e-2, ema=0.9)


def data():
    """16 pictures of 4×4: class 0 is dark grey (−0.5), class 1 is white (1)."""
    labels = torch.arange(16) % 2
    return torch.where(labels == 0, 64, 255).to(torch.uint8)[:, None, None, None].expand(16, 1, 4, 4).clone(), labels


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Oracle(torch.nn.Module):
    """The exact answer for pictures that are all `value`: x̂₀ = value, in the network's own prediction."""

    def __init__(self, config, value):
        super().__init__()
        self.config, self.value = config, value

    def forward(self, x, lam, label):
        path = from_json(self.config.path)
        t = path.t_of_lam(lam.double())[:, None, None, None]
        on_x, on_x0 = change_of_basis(path, t, "x0", self.config.predicts)
        return (on_x * x + on_x0 * self.value).float()


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize(
    "path", [{"kind": "flow"}, {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}], ids=["flow", "vp"]
)
def test_the_exact_denoiser_has_no_loss_and_another_has(path, predicts):
    images, labels = torch.full((4, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    config = replace(CONFIG, path=path, predicts=predicts)
    right = loop.loss(config, Oracle(config, 1.0), images, labels, 0)
    wrong = loop.loss(config, Oracle(config, 0.5), images, labels, 0)
    assert right < 1e-4 * wrong
    assert wrong > 1e-3


def test_a_tenth_of_the_labels_is_dropped_and_none_without_dropout():
    images, labels = data()
    wide = replace(CONFIG, batch=20_000, images=20_000)
    x0, label, lam, _ = loop._batch(wide, images, labels, 0)
    assert 0.09 < (label == 2).double().mean() < 0.11
    kept = label < 2
    assert torch.equal(x0[kept].mean((1, 2, 3)) > 0, label[kept] == 1)
    assert lam.min() >= -7
    assert lam.max() <= 7
    assert (lam < -4).any()
    assert not (loop._batch(replace(wide, dropout=0.0), images, labels, 0)[1] == 2).any()


def test_half_of_the_pictures_is_mirrored_where_asked():
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    images[..., 0] = 255
    wide = replace(CONFIG, batch=2000, images=2000, flip=True)
    left = loop._batch(wide, images, torch.zeros(1, dtype=torch.int64), 0)[0][..., 0].mean((1, 2)) > 0
    assert 0.45 < left.double().mean() < 0.55


def test_it_learns_two_constant_classes(tmp_path):
    images, labels = data()
    config = replace(CONFIG, images=16 * 500, ema=0.98, dropout=0.1)
    network, metadata = read(train(config, images, labels, tmp_path, ["dark", "white"]))
    assert metadata["classes"] == ["dark", "white"]
    assert metadata["null_label"] == 2
    assert metadata["training"]["images_seen"] == 8000
    noise = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    lam = torch.full((64,), -2.0)
    t = torch.sigmoid(-lam)[:, None, None, None]
    for label, value in ((0, 64 / 127.5 - 1), (1, 1.0)):
        x = (1 - t) * value + t * noise
        x0 = x - t * network(x, lam, torch.full((64,), label))
        assert (x0.mean() - value).abs() < 0.15


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    images, labels = data()
    monkeypatch.setattr(loop, "loss", lambda *a: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(NumericalError, match="not finite"):
        train(CONFIG, images, labels, tmp_path, ["a", "b"])
    assert not (tmp_path / "model.safetensors").exists()


CHILD = """
import sys; sys.path[:0] = {path!r}
import torch; torch.set_num_threads(1)
import test_loop
test_loop.train(test_loop.CONFIG, *test_loop.data(), {out!r}, ["a", "b"], every=2)
"""


def test_a_run_killed_with_9_resumes_to_the_very_same_weights(tmp_path):
    path = [__file__.rsplit("/", 1)[0], *sys.path]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(CONFIG, *data(), whole, ["a", "b"], every=2)
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(path=path, out=str(cut))], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (cut / "checkpoint.pt").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    step = torch.load(cut / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < CONFIG.images // CONFIG.batch
    train(CONFIG, *data(), cut, ["a", "b"], every=2)
    first, second = (torch.load(out / "checkpoint.pt", weights_only=True) for out in (whole, cut))
    assert first["step"] == second["step"] == 40
    for kind in ("network", "mean"):
        assert all(torch.equal(first[kind][name], second[kind][name]) for name in first[kind])
    for one, two in zip(*(list(s["optimiser"]["state"].values()) for s in (first, second)), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "path", [{"kind": "flow"}, {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}], ids=["flow", "vp"]
)
def test_the_network_is_shown_the_noise_level_that_it_is_told(path):
    config, seen = replace(CONFIG, path=path, batch=4000, images=4000), []
    grey = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    loop.loss(config, lambda *a: seen.append(a) or torch.zeros_like(a[0]), grey, torch.zeros(1, dtype=torch.int64), 0)
    x, lam, _ = seen[0]
    t = from_json(path).t_of_lam(lam.double())
    alpha, sigma = (f(t)[:, None, None, None].float() for f in (from_json(path).alpha, from_json(path).sigma))
    noise = (x - alpha) / sigma
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
