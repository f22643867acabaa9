"""Training on bridges: degraded pictures, times, every prediction's target, and models that load and restore."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import fewstep
from fewstep.denoisers import Bridged
from fewstep.denoisers.bridged import balance, wrap_bridge
from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks import build, weights
from fewstep.networks.bridged import MOST
from fewstep.networks.features import load_features
from fewstep.paths import RDDM, MeanReverting, ResShift, VPBridge
from fewstep.restoration import AverageDownsample, Blur
from fewstep.training.bridges import Restoring, degraded, moments, target, times
from fewstep.training.config import BridgeConfig, read_config
from fewstep.training.run import train_from_files
from fewstep.training.trainer import train

UNET = {"kind": "unet", "channels": 2, "classes": 0, "width": 8, "multipliers": [1], "attention": [0], "patch": 2}
NET = {"kind": "bridged", "channels": 1, "network": UNET, "answers": 1}
PATHS = {
    "resshift": ResShift(4, 0.2), "rddm": RDDM(10, visits=10), "mean-reverting": MeanReverting(noise=0.4),
    "vp-bridge": VPBridge(),
}  # fmt: skip
IMAGES = torch.randint(256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.zeros(40, dtype=torch.int64)


def config(kind="resshift", **changes):
    fields = {"path": PATHS[kind].to_json(), "predicts": "x0", "degrade": "downsample:4", "images": 8 * 20, "batch": 8}
    return BridgeConfig(network=NET, **{**fields, **changes})


class Knowing:
    """A network that is judged on what it sees, and knows the answer."""

    def __init__(self, answer):
        self.answer, self.seen = answer, None

    def __call__(self, x, told, y):
        self.seen = (x, told, y)
        return self.answer


def test_degraded_pictures_have_the_size_of_the_clean_ones():
    x0 = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    small = torch.nn.functional.avg_pool2d(x0, 4)
    assert torch.allclose(degraded(x0, "downsample:4"), small.repeat_interleave(4, -1).repeat_interleave(4, -2))
    assert torch.equal(degraded(x0, "blur:0.8"), Blur.gaussian(0.8).A(x0))
    with pytest.raises(ArgumentError, match="unknown degradation 'downsampel'"):
        degraded(x0, "downsampel:4")
    with pytest.raises(ArgumentError, match="does not divide"):
        degraded(x0, "downsample:3")


@pytest.mark.parametrize("kind", PATHS)
def test_times_are_nodes_or_all_that_a_network_is_told_apart(kind):
    path = PATHS[kind]
    t = times(path, 4000, torch.Generator().manual_seed(0))
    if kind in ("resshift", "rddm"):
        nodes = {"resshift": 4, "rddm": 10}[kind]
        assert torch.equal((t * nodes).round().unique(), torch.arange(1.0, nodes + 1).double())
        return
    assert float(path.lam(t).max()) <= MOST
    assert float(t.min()) < 0.01
    assert float(t.mean()) == pytest.approx((1 + float(path.t_of_lam(MOST))) / 2, abs=0.02)


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("predicts", ["x0", "residual", "eps", "flow", "velocity", "residual+eps"])
def test_a_network_that_meets_its_target_tells_the_data(kind, predicts):
    """What is trained is what `wrap_bridge` reads, on every path."""
    path, generator = PATHS[kind], torch.Generator().manual_seed(3)
    if predicts == "velocity" and kind == "vp-bridge":
        pytest.skip("a + b is not 1")
    x0, y, noise = torch.randn(3, 5, 1, 2, 2, dtype=torch.float64, generator=generator)
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double().reshape(5, 1, 1, 1)
    right = target(path, predicts, t, x0, y, noise)
    nets = [lambda x, time, y, part=part: part for part in right.split(1, 1)]
    den = wrap_bridge(tuple(nets) if len(nets) == 2 else nets[0], path, predicts, shape=(1, 2, 2), time="t")
    assert torch.allclose(den(path.alpha(t) * x0 + path.sigma(t) * noise, t, y=y), x0, atol=1e-9)


def test_the_loss_is_the_squared_error_at_a_state_of_the_bridge():
    task = Restoring(config("mean-reverting", predicts="velocity", noise=0.1), IMAGES, LABELS)
    x0, y, t, noise = task.draws(2)
    path, place = task.path, t[:, None, None, None]
    right = target(path, "velocity", place, x0, y, noise).float()
    knows = Knowing(right)
    assert task.loss(knows, 2, "cpu").item() < 1e-12
    x, told, seen = knows.seen
    assert torch.allclose(x, (path.alpha(place) * x0 + path.shift(place) * y + path.sigma(place) * noise).float())
    assert torch.allclose(told, path.lam(t).float())
    assert torch.equal(seen, y)
    assert float((y - degraded(x0, "downsample:4")).std()) == pytest.approx(0.1, rel=0.1)
    assert task.loss(Knowing(right + 0.3), 2, "cpu").item() == pytest.approx(0.09, rel=1e-4)
    pick = torch.randint(40, (8,), generator=torch.Generator().manual_seed(2))
    assert torch.equal(x0, IMAGES[pick].float() / 127.5 - 1)
    assert not torch.equal(task.draws(3)[3], noise)


def test_a_perceptual_loss_also_looks_through_a_classifier(tmp_path):
    images = torch.randint(256, (8, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    run = config(perceptual=0.5, features="mnist", images=8)
    task, plain = (Restoring(replace(run, perceptual=w), images, torch.zeros(8).long()) for w in (0.5, 0.0))
    x0 = task.draws(0)[0]
    guess = (0.5 * x0).requires_grad_()
    apart = load_features("mnist")(0.5 * x0) - load_features("mnist")(x0)
    both = task.loss(Knowing(guess), 0, "cpu")
    assert both.item() - plain.loss(Knowing(guess), 0, "cpu").item() == pytest.approx(
        0.5 * float(apart.square().mean()), rel=1e-4
    )
    assert task.loss(Knowing(x0), 0, "cpu").item() < 1e-9
    alone = 2 * (guess - x0) / guess.numel()
    assert float((torch.autograd.grad(both, guess)[0] - alone).detach().abs().sum()) > 1e-3
    with pytest.raises(ArgumentError, match="looks at pictures of shape"):
        train(Restoring(run, IMAGES, LABELS), tmp_path, ["all"])
    for changes in (
        {"perceptual": -1.0},
        {"perceptual": 1.0},
        {"perceptual": 1.0, "features": "mnist", "predicts": "eps"},
    ):
        with pytest.raises(ArgumentError, match="perceptual must be"):
            config(**changes)


def test_all_levels_are_trained_on_whatever_is_visited():
    visits = RDDM(10, visits=5).to_json()
    task = Restoring(config("rddm", path=visits, predicts="residual"), IMAGES, LABELS)
    assert task.path == RDDM(10, visits=10)
    assert task.describe()["path"] == visits


def test_the_moments_are_those_of_the_data():
    x0 = IMAGES.double() / 127.5 - 1
    y = degraded(x0, "downsample:4") + 0.1 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    data, seen, covariance = moments(config(noise=0.1), IMAGES)
    assert data**2 == pytest.approx(float(x0.square().mean()), rel=1e-9)
    assert seen**2 == pytest.approx(float(y.square().mean()), rel=0.02)
    assert covariance == pytest.approx(float((x0 * y).mean()), rel=0.1)


def saved(task, folder):
    """A network none of whose layers is 0, and the file that a run would write of it."""
    network = build(task.config.network)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    weights.write(folder / "m.safetensors", network, {**task.describe(), "shape": [1, 8, 8], "range": [-1, 1]})
    return weights.read(folder / "m.safetensors")[0], folder / "m.safetensors"


def test_balanced_training_asks_for_numbers_of_variance_1_and_loads_as_what_was_trained(tmp_path):
    task = Restoring(config("vp-bridge", balanced=True), IMAGES, LABELS)
    knows = Knowing(torch.zeros(8, 1, 8, 8))
    sizes, losses = [], []
    for step in range(40):
        losses.append(task.loss(knows, step, "cpu").item())
        sizes.append(float(knows.seen[0].square().mean()))
    assert np.mean(sizes) == pytest.approx(1, abs=0.05)
    assert np.mean(losses) == pytest.approx(1, abs=0.05)
    network, file = saved(task, tmp_path)
    x0, y, t, noise = task.draws(0)
    place = t[:, None, None, None]
    z = task.path.alpha(place) * x0 + task.path.sigma(place) * noise
    off = (fewstep.load(file)(z, place, y=y.double()) - x0) / balance(task.path, place, *task.moments).gain
    assert float(off.square().mean()) == pytest.approx(task.error(network, x0, y, t, noise, "cpu").item(), rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "predicts"), [("resshift", "x0"), ("rddm", "residual+eps"), ("mean-reverting", "velocity")]
)
def test_a_loaded_network_is_asked_what_it_was_trained_on(tmp_path, kind, predicts):
    run = config(kind, predicts=predicts)
    task = Restoring(replace(run, network={**NET, "answers": 2 if "+" in predicts else 1}), IMAGES, LABELS)
    network, file = saved(task, tmp_path)
    den, (x0, y, t, noise) = fewstep.load(file), task.draws(0)
    t = torch.where(t == 1, 0.9, t) if kind == "rddm" else t  # at 1 the residual alone is told, infinitely far
    place = t[:, None, None, None]
    z = (task.path.alpha(place) * x0 + task.path.sigma(place) * noise).float()
    told = network((z + task.path.shift(place) * y).float(), task.path.lam(t).float(), y).split(1, 1)
    nets = [lambda x, time, y, part=part: part for part in told]
    want = wrap_bridge(tuple(nets) if len(nets) == 2 else nets[0], task.path, predicts, shape=(1, 8, 8))
    assert torch.allclose(den(z, place, y=y), want(z, place, y=y), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "predicts", "solver"),
    [
        ("resshift", "x0", "random-walk"), ("rddm", "residual+eps", "ddim"),
        ("mean-reverting", "velocity", "dpm-solver++"), ("vp-bridge", "x0", "dbim"),
    ],
)  # fmt: skip
def test_every_kind_is_trained_from_files_and_loads_ready(tmp_path, kind, predicts, solver):
    net = {**NET, "answers": 2 if "+" in predicts else 1}
    told = "\n".join(f"{k} = {v!r}" for k, v in PATHS[kind].to_json().items())
    np.savez(tmp_path / "data.npz", images=IMAGES[:, 0].numpy(), labels=LABELS.numpy())
    (tmp_path / "c.toml").write_text(
        f'predicts = "{predicts}"\ndegrade = "downsample:4"\nimages = 16\nbatch = 8\n'
        + "balanced = true\n" * (solver == "dbim")
        + f'[path]\n{told}\n[network]\nkind = "bridged"\nchannels = 1\nanswers = {net["answers"]}\n[network.network]\n'
        + "\n".join(f"{k} = {v!r}" for k, v in UNET.items())
    )
    den = fewstep.load(train_from_files(tmp_path / "c.toml", tmp_path / "data.npz", tmp_path / "out", device="cpu"))
    assert isinstance(den, Bridged)
    assert den.path == PATHS[kind]
    assert (den.shape, den.answers) == ((1, 8, 8), predicts)
    for dtype in (torch.float32, torch.float64):
        y = degraded(IMAGES[:3].to(dtype) / 127.5 - 1, "downsample:4")
        out = fewstep.sample(den, start=den.start(y), cond={"y": y}, solver=solver, grid="uniform", steps=4)
        assert out.x.dtype == dtype
        assert out.stats.evaluations == (5 if solver == "dbim" else 4)


def test_it_learns_what_was_taken_away(tmp_path):
    """Pictures of one grey below a bright line: y tells the grey, and the line is where it always is."""
    grey = torch.randint(40, 215, (60, 1, 1, 1), generator=torch.Generator().manual_seed(1)).repeat(1, 1, 8, 8)
    grey[:, :, 3] = 255
    images, labels = grey.byte(), torch.zeros(60, dtype=torch.int64)
    run = config(images=16 * 150, batch=16, rate=2e-2, ema=0.9)
    den = fewstep.load(train(Restoring(run, images, labels), tmp_path, ["all"], every=150))
    x0 = images[:8].float() / 127.5 - 1
    y = degraded(x0, "downsample:4")
    out = fewstep.sample(den, start=den.start(y), cond={"y": y}, solver="random-walk", grid="uniform", steps=4).x
    assert float((out - x0).square().mean()) < 0.2 * float((y - x0).square().mean())


def test_stopped_and_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    train(Restoring(config(noise=0.1), IMAGES, LABELS), tmp_path / "whole", ["all"], every=10)
    asked, loss = [], Restoring.loss

    def watched(self, network, step, device):
        asked.append(step)
        if asked == list(range(8)):
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, network, step, device)

    monkeypatch.setattr(Restoring, "loss", watched)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 8"):
        train(Restoring(config(noise=0.1), IMAGES, LABELS), tmp_path / "again", ["all"], every=10)
    train(Restoring(config(noise=0.1), IMAGES, LABELS), tmp_path / "again", ["all"], every=10)
    assert asked == list(range(20))
    one, two = (torch.load(tmp_path / out / "checkpoint.pt", weights_only=True) for out in ("whole", "again"))
    assert one["curve"] == two["curve"]
    assert all(torch.equal(tensor, two["mean"][name]) for name, tensor in one["mean"].items())


def test_what_cannot_be_trained_is_refused(tmp_path):
    def run(**changes):
        return train(Restoring(config(**changes), IMAGES, LABELS), tmp_path, ["all"])

    with pytest.raises(ArgumentError, match="trained on a bridge"):
        run(path={"kind": "flow"})
    with pytest.raises(ArgumentError, match="unknown prediction 'score'"):
        run(predicts="score")
    with pytest.raises(ArgumentError, match="takes a network with answers = 2"):
        run(predicts="residual+eps")
    with pytest.raises(ArgumentError, match="what is balanced predicts x0"):
        run(predicts="eps", balanced=True)
    with pytest.raises(ArgumentError, match="noise must be at least 0"):
        run(noise=-1.0)
    with pytest.raises(WeightsError, match="needs 2 channels and 0 classes"):
        build({**NET, "network": {**UNET, "classes": 3}})


@pytest.mark.parametrize("name", ["mnist-rddm", "mnist-resshift", "mnist-mean-reverting", "mnist-diffusion-bridge"])
def test_the_shipped_restorers_bring_digits_back(name):
    """Glyphs that no training saw, made coarse: a quarter of the squared error is left at most."""
    x0 = -torch.ones(2, 1, 28, 28)
    x0[0, :, 5:23, 13:16] = 1  # a one
    rows = torch.arange(28).float()[:, None] - 13.5
    columns = torch.arange(28).float() - 13.5
    x0[1, 0] = ((((rows / 9) ** 2 + (columns / 6) ** 2).sqrt() - 1).abs() < 0.22).float() * 2 - 1  # a nought
    y = degraded(x0, "downsample:4")
    den = fewstep.load(name)
    assert isinstance(den, Bridged)
    assert torch.allclose(AverageDownsample(4).A(y), AverageDownsample(4).A(x0), atol=1e-6)
    out = fewstep.sample(
        den, start=den.start(y, seed=1), cond={"y": y}, solver="dbim" if "bridge" in name else "ddim", grid="uniform",
        steps=5,
    ).x  # fmt: skip
    assert float((out - x0).square().mean()) < 0.35 * float((y - x0).square().mean())
    config = read_config(f"configs/{name}.toml")
    assert weights.read(f"src/fewstep/assets/{name}.safetensors")[1]["training"]["config"] == config.to_json()
