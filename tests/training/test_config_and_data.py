"""Training configs and data files: what is read, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.errors import ArgumentError
from fewstep.networks import build
from fewstep.paths import PREDICTIONS, from_json
from fewstep.training.config import TrainingConfig, read_config
from fewstep.training.data import read_images

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
SMALL = 'predicts = "flow"\nimages = 100\n[network]\nkind = "unet"\n[path]\nkind = "flow"\n'


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_build(path):
    config = read_config(path)
    assert config.predicts in PREDICTIONS
    assert from_json(config.path).to_json() == config.path
    assert build(config.network).config == config.network


def test_the_shipped_configs_are_there():
    assert {"mnist", "cifar10"} <= {p.stem for p in CONFIGS}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat = 1e-3\n" + SMALL, "unknown key in .* 'rat'; did you mean 'rate'"),
        (SMALL.replace("images = 100\n", ""), "images"),
        (SMALL.replace("100", "10"), "images must be at least batch"),
        ("batch = 0\n" + SMALL, "batch at least 1"),
        ("batch =", "cannot read"),
    ],
)
def test_a_bad_config_is_refused(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        read_config(tmp_path / "c.toml")


def test_a_missing_config_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="cannot read"):
        read_config(tmp_path / "none.toml")


def test_a_config_goes_through_plain_data(tmp_path):
    (tmp_path / "c.toml").write_text(SMALL)
    config = read_config(tmp_path / "c.toml")
    assert TrainingConfig(**config.to_json()) == config


def pictures(shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return {"bytes": buffer.getvalue()}


@pytest.mark.parametrize("shape", [(5, 8, 6), (5, 8, 6, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_pictures_and_labels_are_read_exactly(tmp_path, shape, kind):
    images, labels, path = pictures(shape), [3, 1, 4, 1, 5], tmp_path / f"data.{kind}"
    if kind == "npz":
        np.savez(path, images=images, labels=np.array(labels))
    else:
        pa = pytest.importorskip("pyarrow")
        table = pa.table({"image": [png(one) for one in images], "label": labels})
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    read, label = read_images(path)
    expected = images[:, None] if len(shape) == 3 else images.transpose(0, 3, 1, 2)
    assert read.dtype == torch.uint8
    assert np.array_equal(read.numpy(), expected)
    assert label.dtype == torch.int64
    assert label.tolist() == labels


def test_other_data_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="no data file"):
        read_images(tmp_path / "none.npz")
    (tmp_path / "data.csv").write_text("")
    with pytest.raises(ArgumentError, match=r"parquet or \.npz"):
        read_images(tmp_path / "data.csv")
