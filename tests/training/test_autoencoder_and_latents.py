"""The autoencoder's loss and judgement by their formulas, and a latent model trained, written, loaded and sampled."""

import math

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fewstep
from fewstep.cli import app
from fewstep.denoisers import Latent
from fewstep.errors import ArgumentError, WeightsError
from fewstep.networks import LatentNetwork, build, weights
from fewstep.training.autoencode import Autoencoding, divergence
from fewstep.training.config import AutoencoderConfig, TrainingConfig, read_config
from fewstep.training.latents import codes, latent, moments
from fewstep.training.run import train_from_files
from fewstep.training.trainer import Trainer, train

VAE_NET = {"kind": "vae", "channels": 1, "latent": 2, "width": 8, "depth": 1}
UNET = {"kind": "unet", "channels": 2, "classes": 2, "width": 8, "multipliers": [1], "attention": [0], "patch": 1}
VAE_FIELDS = {"network": VAE_NET, "images": 8 * 100, "batch": 8, "rate": 1e-2, "ema": 0.95}
FIELDS = {"network": UNET, "path": {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}, "predicts": "v", "images": 320}


def waves(n, seed):
    """Smooth pictures of 16×16 whose two numbers, phase and height, a code of few numbers can hold."""
    g = torch.Generator().manual_seed(seed)
    phase, height = torch.rand(2, n, 1, 1, generator=g)
    line = torch.linspace(0, math.pi, 16)
    picture = (40 + 80 * height) * torch.sin(line[None, :, None] + 6 * phase) * torch.cos(line / 2)
    return (127 + picture).byte()[:, None], (height.flatten() > 0.5).long()


IMAGES, LABELS = waves(200, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("vae")
    config = AutoencoderConfig(**VAE_FIELDS)
    return train(Autoencoding(config, IMAGES, LABELS, waves(40, 1)[0]), out, ["low", "high"], every=50)


def test_the_divergence_is_that_of_two_normal_laws():
    laws = torch.distributions
    mean, log_variance = torch.tensor([0.0, 0.7, -2.0]), torch.tensor([0.0, -1.3, 0.9])
    want = laws.kl_divergence(laws.Normal(mean, (0.5 * log_variance).exp()), laws.Normal(0.0, 1.0))
    assert torch.allclose(divergence(mean, log_variance), want)


def test_the_loss_is_squared_error_and_divergence_of_a_draw():
    """An encoder that says N(0.3, e^v) everywhere and a decoder that shows its code: all is known."""
    network = build(VAE_NET)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    for log_variance, kl in ((-20.0, 0.5), (0.4, 0.0), (0.4, 2.0)):
        network.encoder[-1][-1].bias.data = torch.tensor([0.3, 0.3, log_variance, log_variance])
        task = Autoencoding(AutoencoderConfig(**{**VAE_FIELDS, "kl": kl}), IMAGES, LABELS)
        found, seen = float(task.loss(network, 3, "cpu").detach()), []
        network.decoder.register_forward_pre_hook(lambda _, z, seen=seen: seen.append(z[0].detach()))
        task.loss(network, 3, "cpu")
        picked = torch.randint(200, (8,), generator=torch.Generator().manual_seed(3))
        error = float((IMAGES[picked].float() / 127.5 - 1).square().mean())
        cost = 0.5 * (0.09 + math.exp(log_variance) - 1 - log_variance)
        assert found == pytest.approx(error + kl * cost, rel=1e-5)
        assert float(seen[0].std()) == pytest.approx(math.exp(0.5 * log_variance), rel=0.1, abs=1e-3)
        assert float(seen[0].mean()) == pytest.approx(0.3, abs=0.15)


def test_an_autoencoder_learns_and_says_how_well(trained, capsys):
    network, told = weights.read(trained)
    test = waves(40, 1)[0].float() / 127.5 - 1
    with torch.no_grad():
        error = (network(test) - test).square().flatten(1).mean(1)
    assert float(error.mean()) < 0.5 * float(test.var())
    assert told["training"]["psnr"] == pytest.approx(float((10 * (4 / error).log10()).mean()), abs=0.1)
    assert told["training"]["on_test_images"] is True
    assert network.encode(test).shape == (40, 2, 4, 4)


def test_codes_are_made_once_with_mean_0_and_variance_1(trained):
    network = weights.read(trained)[0]
    z = codes(network, IMAGES)
    with torch.no_grad():
        assert torch.allclose(z.float(), network.encode(IMAGES.float() / 127.5 - 1), atol=2e-2)
    shift, scale = moments(z)
    both = LatentNetwork(build(UNET), network)
    both.shift.copy_(shift)
    both.scale.copy_(scale)
    whitened = both.encode(IMAGES.float() / 127.5 - 1)
    assert torch.allclose(whitened.mean((0, 2, 3)), torch.zeros(2), atol=0.02)
    assert torch.allclose(whitened.std((0, 2, 3)), torch.ones(2), atol=0.02)
    assert torch.allclose(both.decode(whitened), network(IMAGES.float() / 127.5 - 1), atol=1e-4)


def test_a_latent_model_is_one_file_that_loads_samples_and_decodes(trained, tmp_path):
    config = TrainingConfig(**FIELDS, autoencoder=str(trained), batch=16, flip=True)
    file = train(latent(config, IMAGES, LABELS), tmp_path, ["low", "high"])
    den = fewstep.load(file)
    assert isinstance(den, Latent)
    assert den.latent
    assert den.shape == (2, 4, 4)
    assert den.picture_shape == (1, 16, 16)
    out = fewstep.sample(den, 2, steps=2, cond={"label": 1})
    assert den.decode(out.x).shape == (2, 1, 16, 16)
    x = IMAGES[:5].float() / 127.5 - 1
    assert torch.allclose(den.decode(den.encode(x)), weights.read(trained)[0](x), atol=1e-2)
    assert den.null == {"label": 2}
    assert fewstep.guidance.PAG(1.0) is not None
    assert type(den.net).__name__ == "UNet"


def test_the_latents_that_it_learns_are_those_of_the_pictures_and_their_mirror_images(trained, tmp_path):
    task = latent(TrainingConfig(**FIELDS, autoencoder=str(trained), batch=16, flip=True), IMAGES, LABELS)
    den = fewstep.load(Trainer(task, tmp_path, ["low", "high"], "cpu").write_model({}))
    both = torch.cat([IMAGES, IMAGES.flip(-1)]).float() / 127.5 - 1
    assert torch.allclose(task.images.float(), den.encode(both), atol=0.03)
    assert torch.equal(task.labels, torch.cat([LABELS, LABELS]))
    assert not task.config.flip


def test_wrong_data_and_files_are_refused(trained, tmp_path):
    config = TrainingConfig(**FIELDS, autoencoder=str(trained), batch=16)
    with pytest.raises(ArgumentError, match="takes pictures of 1 channels"):
        latent(config, IMAGES.expand(-1, 3, -1, -1), LABELS)
    with pytest.raises(ArgumentError, match="multiples of 4"):
        Autoencoding(AutoencoderConfig(**VAE_FIELDS), IMAGES[..., :15], LABELS)
    with pytest.raises(ArgumentError, match="test needs images of shape"):
        Autoencoding(AutoencoderConfig(**VAE_FIELDS), IMAGES, LABELS, IMAGES[..., :8])
    with pytest.raises(ArgumentError, match="kl must be at least 0"):
        AutoencoderConfig(**VAE_FIELDS, kl=-1.0)
    weights.write(tmp_path / "unet.safetensors", build(UNET), {})
    with pytest.raises(ArgumentError, match="must be the file of a VAE"):
        latent(TrainingConfig(**FIELDS, autoencoder=str(tmp_path / "unet.safetensors")), IMAGES, LABELS)
    with pytest.raises(WeightsError, match="no weight file"):
        latent(TrainingConfig(**FIELDS, autoencoder="nowhere"), IMAGES, LABELS)
    with pytest.raises(WeightsError, match="kind 'vae'"):
        build({"kind": "latent", "network": UNET, "autoencoder": UNET})
    with pytest.raises(ArgumentError, match="without an autoencoder of its own"):
        Latent(3, torch.sin, torch.cos, (1,))


def test_a_config_says_what_is_trained(tmp_path):
    for label, (picture, name) in enumerate(zip(IMAGES[:8, 0], "ab" * 4, strict=True)):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.numpy()).save(tmp_path / "data" / name / f"{label}.png")
    network = 'kind = "vae"\nchannels = 1\nlatent = 2\nwidth = 8\ndepth = 1\n'
    (tmp_path / "vae.toml").write_text(f"images = 32\nbatch = 8\n[network]\n{network}")
    assert isinstance(read_config(tmp_path / "vae.toml"), AutoencoderConfig)
    data, out = str(tmp_path / "data"), tmp_path / "out"
    said = CliRunner().invoke(
        app, ["train", str(tmp_path / "vae.toml"), "--data", data, "--test", data, "--out", str(out), "--device", "cpu"]
    )
    assert said.exit_code == 0, said.output
    assert "dB on 8 images" in said.output
    (tmp_path / "latent.toml").write_text(
        f'autoencoder = "{out / "model.safetensors"}"\npredicts = "v"\nimages = 16\nbatch = 8\n'
        '[network]\nkind = "unet"\nchannels = 2\nclasses = 2\nwidth = 8\nmultipliers = [1]\nattention = [0]\n'
        '[path]\nkind = "flow"\n'
    )
    model = train_from_files(tmp_path / "latent.toml", data, tmp_path / "latent", device="cpu")
    assert fewstep.load(model).latent
