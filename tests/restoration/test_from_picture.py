"""`fewstep restore`, as a user runs it, and what it reads and writes."""

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fewstep import VP, cli
from fewstep.errors import ArgumentError
from fewstep.loading import load
from fewstep.pictures import read_recipe
from fewstep.restoration.from_picture import Job, degradation, fitted, read, restored
from fewstep.worlds import GaussianMixture

RUN = CliRunner()
SHORT = ("--evaluations", 4, "--samples", 3)


@pytest.fixture
def picture(tmp_path):
    """A smooth picture."""
    x = (torch.linspace(0, 255, 32)[:, None] * torch.ones(32)).byte().numpy()
    Image.fromarray(np.stack([x, x.T, x], -1)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def run(*arguments):
    return RUN.invoke(cli.app, ["restore", *map(str, arguments)])


def test_samples_mean_and_deviation_are_written(picture, tmp_path):
    out = tmp_path / "new" / "r.png"
    done = run(picture, "--degrade", "half", "--noise", 0.02, "--method", "ddnm", *SHORT, "--out", out)
    assert done.exit_code == 0, done.output
    assert "3 samples, 4 evaluations each" in done.output
    names = {p.name for p in out.parent.iterdir()}
    assert names == {"r.png", "r-mean.png", "r-std.png", "r-seen.png"}
    assert read_recipe(str(out))["seeds"] == [[0, 0], [0, 1], [0, 2]]
    pixels = {n: np.asarray(Image.open(out.parent / n), float) for n in names}
    clean = np.asarray(Image.open(picture), float)
    inner = pixels["r-mean.png"]
    assert all(p.shape[:2] == (32, 32) for n, p in pixels.items() if n != "r.png")
    assert np.abs(inner[:, :16] - clean[:, :16]).mean() < 8  # 255·0.02/2 is 2.6
    assert np.abs(inner[:, 16:] - clean[:, 16:]).mean() > 8
    std = pixels["r-std.png"]
    assert std[:, :16].mean() < 0.3 * std[:, 16:].mean()
    assert np.all(pixels["r-seen.png"][:, 16:] == 128)
    error = (pixels["r-mean.png"] - clean) ** 2
    said = float(done.output.split("PSNR of the mean ")[1].split(" dB")[0])
    assert said == pytest.approx(10 * np.log10(255**2 / error.mean()), abs=0.1)


def test_ones_own_picture_with_a_mask(picture, tmp_path):
    known = np.full((32, 32), 255, np.uint8)
    known[8:24, 8:24] = 0
    Image.fromarray(known).save(tmp_path / "known.png")
    job = Job(picture, mask=tmp_path / "known.png", noise=0.0)
    model = load("cifar10-lowrank")
    asked = []
    out, done = restored(job, model, "ddnm", asked.append, samples=2, evaluations=3)
    assert asked == [1.0, 1.0, 1.0]
    assert done == ""
    assert "raw" not in vars(model)
    clean = read(picture, 3, (-1.0, 1.0))[0]
    seen = torch.from_numpy(known > 0)
    assert torch.allclose(out.x.double()[:, :, seen], clean[:, seen].expand(2, -1, -1), atol=1e-4)
    assert not torch.allclose(out.x[0][:, ~seen], out.x[1][:, ~seen], atol=0.01)


def test_ones_own_small_picture(picture, tmp_path):
    small = Image.open(picture).resize((8, 8), Image.Resampling.BOX)
    small.save(tmp_path / "small.png")
    options = ("--own", "--degrade", "downsample:4", "--noise", 0, "--evaluations", 3, "--samples", 1)
    done = run(tmp_path / "small.png", *options, "--method", "ddnm", "--out", tmp_path / "s.png")
    assert done.exit_code == 0, done.output
    assert "PSNR" not in done.output
    back = np.asarray(Image.open(tmp_path / "s-mean.png"), float).reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(back - np.asarray(small, float)).max() < 16
    assert np.abs(back - np.asarray(small, float)).mean() < 2


def test_a_picture_of_another_size_is_scaled_and_it_is_said(picture):
    wide = read(picture, 3, (0.0, 1.0)).repeat(1, 1, 2, 4)
    small, said = fitted(wide, 32, 32)
    assert small.shape == (1, 3, 32, 32)
    assert said == "the middle 64×64 of 128×64 pixels was scaled to 32×32"
    assert float(small.mean()) == pytest.approx(float(wide[..., 32:96].mean()), abs=0.01)
    assert fitted(small, 32, 32)[0] is small


def test_a_picture_is_turned_as_its_camera_says(picture, tmp_path):
    image = Image.open(picture)
    tag = image.getexif()
    tag[274] = 6  # held upright: to be turned a quarter to the right
    image.save(tmp_path / "turned.png", exif=tag)
    straight, turned = (read(f, 3, (0.0, 1.0)) for f in (picture, tmp_path / "turned.png"))
    assert torch.equal(turned, straight.rot90(-1, (2, 3)))


def test_every_degradation_makes_a_measurement():
    from fewstep.restoration.from_picture import DEGRADATIONS

    x = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    sizes = {kind: degradation(kind, 32, 32).A(x).shape[1:] for kind in DEGRADATIONS}
    assert sizes["downsample"] == (3, 8, 8)
    assert sizes["grey"] == (1, 32, 32)
    assert degradation("downsample:2", 32, 32).A(x).shape[1:] == (3, 16, 16)
    assert float(degradation("random:0.5", 32, 32).mask.double().mean()) == 0.5
    phase = degradation("phase", 32, 32)
    assert not torch.allclose(phase.A(x + 0.5), phase.A(x - 0.5))  # light, whose sign is known


def test_the_help_has_an_example():
    said = RUN.invoke(cli.app, ["restore", "--help"]).output
    assert "Example: fewstep restore" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--degrade", "blurr"), "did you mean 'blur'"),
        (("--degrade", "blur:x"), "must be one"),
        (("--degrade", "downsample:2.5"), "whole number"),
        (("--method", "dpss"), "did you mean"),
        (("--own", "--degrade", "phase"), "no picture|must be"),
        (("--own", "--degrade", "downsample:4"), "must be 8×8"),
        (("--noise", "-1"), "sigma"),
        (("--mask", "none.png"), "cannot read"),
        (("--mask", "none.png", "--degrade", "blur"), "neither --degrade nor --own"),
        (("--own",), "--own needs --degrade"),
    ],
)
def test_bad_arguments_are_refused(picture, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        raise run(picture, *arguments).exception


def test_models_of_classes_take_a_label(picture):
    world = GaussianMixture([1.0], torch.zeros(1, 1, 8, 8), torch.ones(1, 1))
    with pytest.raises(ArgumentError, match="no classes"):
        restored(Job(picture), world.denoiser(VP()), "ddrm", label=3)
    denoiser = load("mnist")
    job = Job(picture, "half")
    for label in (None, 3):
        out, _ = restored(job, denoiser, "ddrm", label=label, evaluations=2, samples=2)
        assert out.x.shape == (2, 1, *denoiser.shape[1:])
