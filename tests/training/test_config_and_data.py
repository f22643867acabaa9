"""Training configs and data files: what is read, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.errors import ArgumentError
from fewstep.networks import build
from fewstep.paths import PREDICTIONS, from_json
from fewstep.training.config import ClassifierConfig, TrainingConfig, read_config
from fewstep.training.data import class_names, read_images

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
CLASSIFIER = 'images = 200\n[network]\nkind = "classifier"\n'
SMALL = 'predicts = "flow"\nimages = 100\n[network]\nkind = "unet"\n[path]\nkind = "flow"\n'


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_build(path):
    config = read_config(path)
    assert build(config.network).config == config.network
    if isinstance(config, TrainingConfig):
        assert config.predicts in PREDICTIONS
        assert from_json(config.path).to_json() == config.path
    assert isinstance(config, ClassifierConfig) is path.stem.endswith("-classifier")


def test_the_shipped_configs_are_there():
    assert {"mnist", "cifar10", "mnist-classifier", "cifar10-classifier"} <= {p.stem for p in CONFIGS}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rat = 1e-3\n" + SMALL, "unknown key in .* 'rat'; did you mean 'rate'"),
        (SMALL.replace("images = 100\n", ""), "images"),
        (SMALL.replace("100", "10"), "images must be at least batch"),
        ("batch = 0\n" + SMALL, "batch at least 1"),
        ("batch =", "cannot read"),
        ('precision = "bf16"\n' + SMALL, "precision must be float32 or bfloat16, got 'bf16'"),
        ('precision = "float16"\n' + CLASSIFIER, "precision must be float32 or bfloat16"),
        ("smothing = 0.1\n" + CLASSIFIER, "did you mean 'smoothing'"),
        ("smoothing = 1.0\n" + CLASSIFIER, r"smoothing must be in \[0, 1\)"),
        ("shift = -1\n" + CLASSIFIER, "shift at least 0"),
        ('predicts = "v"\n' + CLASSIFIER, "unknown key"),
        ("network = 3", "network must be a table, got 3"),
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


def save(path, picture, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(path)


def test_class_folders_are_labels_in_sorted_order(tmp_path):
    """Read back exactly: classes by name, pictures by name within, anything else ignored."""
    shown = pictures((4, 6, 5, 3))
    for name, picture in zip(("cat/b.png", "cat/a.bmp", "ant/9.PNG", "bee/0.webp"), shown, strict=True):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path, lossless=True)
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / ".hidden").mkdir()
    images, labels = read_images(tmp_path)
    assert class_names(tmp_path) == ["ant", "bee", "cat"]
    assert labels.tolist() == [0, 1, 2, 2]
    assert np.array_equal(images.numpy(), shown[[2, 3, 1, 0]].transpose(0, 3, 1, 2))


def test_a_flat_folder_has_one_class_and_no_names(tmp_path):
    for i, picture in enumerate(pictures((3, 6, 5))):
        save(tmp_path / f"{i}.png", picture)
    images, labels = read_images(tmp_path)
    assert np.array_equal(images[:, 0].numpy(), pictures((3, 6, 5)))
    assert labels.tolist() == [0, 0, 0]
    assert class_names(tmp_path) == []


def test_one_picture_of_colour_makes_all_of_three_channels(tmp_path):
    grey, colour = pictures((6, 5)), pictures((6, 5, 3))
    save(tmp_path / "0.png", grey)
    save(tmp_path / "1.png", colour)
    save(tmp_path / "2.png", grey, "RGBA")
    images, _ = read_images(tmp_path)
    assert images.shape == (3, 3, 6, 5)
    for channel in range(3):
        assert np.array_equal(images[0, channel].numpy(), grey)
        assert np.array_equal(images[1, channel].numpy(), colour[..., channel])
        assert np.array_equal(images[2, channel].numpy(), grey)


def test_a_bad_folder_is_refused_by_the_files_name(tmp_path):
    with pytest.raises(ArgumentError, match="no pictures"):
        read_images(tmp_path)
    save(tmp_path / "a.png", pictures((6, 5)))
    save(tmp_path / "b.png", pictures((5, 6)))
    with pytest.raises(ArgumentError, match=r"b\.png is 5×6, .*a\.png 6×5"):
        read_images(tmp_path)
    whole = (tmp_path / "a.png").read_bytes()
    for broken in (whole[:40], b"", b"no picture"):
        (tmp_path / "b.png").write_bytes(broken)
        with pytest.raises(ArgumentError, match=r"b\.png is not a whole picture"):
            read_images(tmp_path)
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(ArgumentError, match=r"b\.png has mode I;16"):
        read_images(tmp_path)
    save(tmp_path / "cat" / "a.png", pictures((6, 5)))
    with pytest.raises(ArgumentError, match=r"both pictures \(a\.png\) and folders \(cat\)"):
        read_images(tmp_path)


def test_parquet_tells_its_class_names_and_its_damage(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table, path = pa.table({"image": [png(pictures((4, 4))), {"bytes": b"?"}], "label": [0, 1]}), tmp_path / "d.parquet"
    told = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), path)
    assert class_names(path) == ["cat", "dog"]
    with pytest.raises(ArgumentError, match=r"picture 1 of .*d\.parquet is not a whole picture"):
        read_images(path)
    pq.write_table(table, path)
    assert class_names(path) == []
    pq.write_table(pa.table({"label": [0]}), path)
    with pytest.raises(ArgumentError, match=r"d\.parquet is not a whole parquet"):
        read_images(path)


def test_other_data_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="no data file"):
        read_images(tmp_path / "none.npz")
    (tmp_path / "data.csv").write_text("")
    with pytest.raises(ArgumentError, match=r"parquet or an \.npz"):
        read_images(tmp_path / "data.csv")
    for name in ("d.npz", "d.parquet"):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(ArgumentError, match=f"{name} is not a whole"):
            read_images(tmp_path / name)
    np.savez(tmp_path / "d.npz", images=np.zeros((2, 3, 3)), labels=[0, 1])
    with pytest.raises(ArgumentError, match="must be uint8"):
        read_images(tmp_path / "d.npz")
