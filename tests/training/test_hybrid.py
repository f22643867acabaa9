"""Training with learned variances: the loss is the chain's, and importance sampling's memory survives a kill."""

import os
import signal

import pytest
import torch

import fewstep
from fewstep.denoisers.learned_variance import TwoHeaded
from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks import build
from fewstep.paths import VP, from_json
from fewstep.training import hybrid
from fewstep.training.config import HybridConfig, read_config
from fewstep.training.hybrid import HybridDenoising
from fewstep.training.run import train_from_files
from fewstep.training.trainer import train
from fewstep.training.variational import Chain

UNET = {"kind": "unet", "channels": 2, "classes": 2, "width": 8, "multipliers": [1], "attention": [0], "patch": 2}
NET = {"kind": "variance", "channels": 1, "classes": 2, "network": UNET}
FIELDS = {
    "network": NET, "path": {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}, "predicts": "eps", "images": 8 * 48,
    "batch": 8, "steps": 4, "history": 3, "importance": True,
}  # fmt: skip
IMAGES = torch.randint(256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
LABELS = torch.arange(20) % 2


def config(**changes):
    return HybridConfig(**{**FIELDS, **changes})


def task(**changes):
    return HybridDenoising(config(**changes), IMAGES, LABELS)


def awake():
    """A network whose last layer is not 0 any more."""
    torch.manual_seed(0)
    network = build(NET)
    torch.nn.init.normal_(network.network.last[-1].weight, std=0.1)
    return network


def checkpoint(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def draws(step, batch=8, steps=4, dropout=0.1, seed=0):
    """What a step draws while every step of the chain is as likely as another."""
    generator = torch.Generator().manual_seed(seed * 2**32 + step)
    pick = torch.randint(20, (batch,), generator=generator)
    label = torch.where(torch.rand(batch, generator=generator) < dropout, 2, LABELS[pick])
    index = torch.multinomial(torch.full((steps,), 1 / steps).double(), batch, True, generator=generator)
    return IMAGES[pick].float() / 127.5 - 1, label, index, torch.randn(batch, 1, 4, 4, generator=generator)


def test_the_loss_is_the_mean_hybrid_of_the_chain():
    one, network = task(bound=0.3), awake()
    x0, label, index, noise = draws(5)
    times = torch.linspace(1, 0, 5, dtype=torch.float64)
    chain = Chain(one.denoiser(network, "cpu"), times, 256)
    want = chain.hybrid(x0, index, noise, 0.3, label=label).detach()
    assert one.loss(network, 5, "cpu").item() == pytest.approx(float(want.mean()), rel=1e-6)
    assert one.memory["seen"].tolist() == torch.bincount(index, minlength=4).tolist()
    plain = task(bound=0.0)
    path, t = VP(), times[index].reshape(-1, 1, 1, 1)
    x = (path.alpha(t) * x0 + path.sigma(t) * noise).float()
    told = network(x, path.lam(t).flatten().clamp(-7, 7).float(), label)[:, :1].detach()
    assert plain.loss(network, 5, "cpu").item() == pytest.approx(float((told - noise).square().mean()), rel=1e-5)


def test_likely_steps_count_less_so_that_the_mean_stays():
    """With a memory in which step 2 lost most it is drawn most, and the mean loss is still that of even draws."""
    network, fields = awake(), {"batch": 4096, "images": 4096, "bound": 0.1}
    even, skewed = task(importance=False, **fields), task(**fields)
    for _ in range(3):
        skewed.importance.record(torch.arange(4), torch.tensor([1.0, 2.0, 5.0, 2.0]))
    assert float(skewed.importance.probabilities[2]) == pytest.approx(0.5, abs=0.01)
    with torch.no_grad():
        assert skewed.loss(network, 0, "cpu").item() == pytest.approx(even.loss(network, 0, "cpu").item(), rel=0.07)
    assert int(even.memory["seen"].sum()) == 0


def test_what_importance_sampling_remembers_is_in_the_checkpoint(tmp_path, monkeypatch):
    """Stopped and resumed, the run is bit for bit the whole run, its memory and its draws too."""
    drawn, stop_at, draw = [], set(), hybrid.ImportanceTimes.draw

    def watched(self, count, generator):
        index, weight = draw(self, count, generator)
        drawn.append((index.tolist(), self.probabilities.tolist()))
        if len(drawn) in stop_at:
            stop_at.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        return index, weight

    monkeypatch.setattr(hybrid.ImportanceTimes, "draw", watched)
    train(HybridDenoising(config(), IMAGES, LABELS), tmp_path / "whole", ["a", "b"], every=16)
    whole, every = checkpoint(tmp_path / "whole"), list(drawn)
    assert every[0][1] == [0.25] * 4
    assert max(every[-1][1]) > 0.3
    drawn.clear()
    stop_at.add(30)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 30"):
        train(HybridDenoising(config(), IMAGES, LABELS), tmp_path / "again", ["a", "b"], every=16)
    train(HybridDenoising(config(), IMAGES, LABELS), tmp_path / "again", ["a", "b"], every=16)
    assert drawn == every
    end = checkpoint(tmp_path / "again")
    for part in ("network", "mean", "memory"):
        assert all(torch.equal(tensor, end[part][name]) for name, tensor in whole[part].items())
    assert end["curve"] == whole["curve"]
    # Without what it remembers the resumed run would have drawn otherwise.
    assert every[30][1] != [0.25] * 4


def test_the_bound_teaches_the_second_answer_alone():
    slopes, network = {}, awake()
    for bound in (0.0, 1.0):
        bias = network.network.last[-1].bias
        (slopes[bound],) = torch.autograd.grad(task(bound=bound, importance=False).loss(network, 0, "cpu"), bias)
    # The answers stand one after the other, four folded pixels each.
    assert torch.allclose(slopes[0.0][:4], slopes[1.0][:4], rtol=1e-4)
    assert not slopes[0.0][4:].any()
    assert (slopes[1.0][4:].abs() > 1e-3).all()


def test_a_trained_model_is_one_that_improved_ddpm_samples_from(tmp_path):
    """A picture is all black or all white, as its label says."""
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(10).reshape(20, 1, 1, 1).repeat(1, 1, 4, 4)
    made = config(images=16 * 120, batch=16, rate=3e-2, ema=0.9, bound=0.3, steps=3, dropout=0.5, predicts="v")
    den = fewstep.load(train(HybridDenoising(made, images, LABELS), tmp_path, ["black", "white"], every=120))
    assert isinstance(den, TwoHeaded)
    with torch.no_grad():
        x, told = torch.randn(8, 1, 4, 4), den.told(torch.tensor([0.5]).double())
        assert float(den.both(x, told, label=torch.arange(8) % 2)[1].abs().mean()) > 0.1  # 0 before training
    out = fewstep.sample(den, solver="improved-ddpm", n=32, steps=3, cond={"label": [0, 1] * 16}, seed=1).x
    assert (out.mean((1, 2, 3)).sign() == torch.tensor([-1.0, 1.0] * 16)).float().mean() > 0.9


def test_it_is_trained_from_files(tmp_path):
    import numpy as np

    np.savez(tmp_path / "data.npz", images=IMAGES[:, 0].numpy(), labels=LABELS.numpy())
    (tmp_path / "c.toml").write_text(
        'predicts = "eps"\nimages = 32\nbatch = 8\nsteps = 4\nimportance = true\n[path]\nkind = "cosine"\n'
        '[network]\nkind = "variance"\nchannels = 1\nclasses = 2\n[network.network]\n'
        + "\n".join(f"{k} = {v!r}" for k, v in UNET.items())
    )
    file = train_from_files(tmp_path / "c.toml", tmp_path / "data.npz", tmp_path / "out", device="cpu")
    assert isinstance(fewstep.load(file), TwoHeaded)


def test_every_path_begins_where_its_data_can_be_told():
    for path in ({"kind": "cosine"}, {"kind": "flow"}, FIELDS["path"]):
        times = task(path=path).times
        assert 0.99 < float(times[0]) <= 1
        assert float(from_json(path).lam(times[0])) >= -7.0001
        assert torch.isfinite(task(path=path).loss(build(NET), 0, "cpu"))


def test_bad_configs():
    for changes in ({"steps": 1}, {"bound": -1.0}, {"history": 0}, {"hidden": 0.2}, {"autoencoder": "a"}):
        with pytest.raises(ArgumentError, match="a learned variance needs"):
            config(**changes)
    with pytest.raises(WeightsError, match="needs 2 channels and 2 classes"):
        build({**NET, "network": {**UNET, "channels": 1}})
    assert read_config("configs/mnist-variance.toml").importance
