"""Weight files: what is written is read back, and anything less than a whole, finite file is refused by name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.errors import WeightsError
from fewstep.networks import Classifier, UNet
from fewstep.networks.weights import read, write

META = {"path": {"kind": "flow"}, "predicts": "flow", "time": "lambda", "shape": [1, 16, 16], "range": [-1, 1]}
NAME = "middle.block.conv1.weight"


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UNet(1, 3, width=8, multipliers=(1, 2), attention=(0, 2))


@pytest.fixture
def file(tmp_path, net):
    path = tmp_path / "model.safetensors"
    write(path, net, META, torch.float32)
    return path


def rewrite(path, change, header=lambda text: text):
    """The file again with its tensors changed in place by `change` and its description by `header`."""
    tensors = load_file(path)
    change(tensors)
    with open(path, "rb") as file:
        text = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]["fewstep"]
    save_file(tensors, path, {"fewstep": header(text)})


def edit(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


def test_round_trip_is_exact_in_float32(file, net):
    again, metadata = read(file)
    assert metadata == {"format": "fewstep-model", "version": 1, "network": net.config, **META}
    assert not again.training
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_float16_is_half_the_size_and_read_as_float32(file, net, tmp_path):
    small = tmp_path / "small.safetensors"
    write(small, net, META)
    assert small.stat().st_size < 0.62 * file.stat().st_size
    again, _ = read(small)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again.state_dict()[NAME], net.state_dict()[NAME], rtol=1e-3, atol=1e-4)


def test_counters_are_kept_exactly(tmp_path):
    net = Classifier(1, 2, width=8)
    for name, buffer in net.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(100_001)
    write(tmp_path / "c.safetensors", net, {})
    again, _ = read(tmp_path / "c.safetensors")
    assert again.body[0][1].num_batches_tracked.item() == 100_001


def test_writing_leaves_nothing_else_behind(file):
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), f"lacks the tensor {NAME}"),
        (lambda t: t.update(spare=torch.zeros(1)), "does not: spare"),
        (lambda t: t.update({NAME: torch.zeros(2, 2)}), rf"{NAME} has shape \(2, 2\)"),
        (lambda t: t[NAME].view(-1)[5].fill_(float("nan")), f"{NAME} holds NaN or Inf"),
        (lambda t: t[NAME].view(-1)[5].fill_(float("inf")), f"{NAME} holds NaN or Inf"),
    ],
)
def test_a_bad_tensor_is_refused_by_name(file, change, message):
    rewrite(file, change)
    with pytest.raises(WeightsError, match=message):
        read(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (lambda text: "{", "no description"),
        (lambda text: "[]", "no description"),
        (edit(format="other"), "'other' of version 1"),
        (edit(version=2), "version 2"),
        (edit(network={"kind": "pixelcnn"}), "unknown network 'pixelcnn'"),
        (edit(network=None), "a network is described"),
        (edit(network={"kind": ["unet"]}), "unknown network"),
    ],
)
def test_a_bad_description_is_refused(file, header, message):
    rewrite(file, lambda tensors: None, header)
    with pytest.raises(WeightsError, match=message):
        read(file)


def test_a_file_of_someone_else_is_refused(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no description"):
        read(tmp_path / "other.safetensors")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_file_is_refused(file, kept):
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read(file)


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"w": [1.0] * 100}))
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read(path)
    torch.save({"w": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no weight file"):
        read(tmp_path / "none.safetensors")
