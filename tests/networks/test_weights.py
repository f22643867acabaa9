"""Weight files come back whole, and anything else is refused by name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.errors import WeightsError
from fewstep.networks import build, weights

CONFIG = {
    "kind": "unet",
    "channels": 1,
    "classes": 3,
    "width": 8,
    "multipliers": [1, 2],
    "attention": [0, 2],
    "patch": 2,
}


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    network = build(CONFIG)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    weights.write(tmp_path / "net.safetensors", network, {"path": {"kind": "flow"}}, dtype=torch.float32)
    return tmp_path / "net.safetensors", network


def test_round_trip_and_shapes(file):
    path, network = file
    again, config = weights.read(path)
    x, time = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert config["path"] == {"kind": "flow"}
    assert torch.equal(network(x, time, torch.tensor([0, 1])), again(x, time, torch.tensor([0, 1])))
    assert torch.equal(again(x, time), again(x, time, torch.tensor([3, 3])))
    assert not torch.equal(again(x, time), again(x, time, torch.tensor([0, 1])))
    assert not torch.equal(again(x, time), again(x, time + 1))


def rewrite(path, change, hashed=True):
    tensors, meta = load_file(path), {"fewstep": json.dumps(weights.read(path)[1])}
    kept = weights.content_hash(tensors, meta["fewstep"])
    change(tensors, meta)
    if meta.get("fewstep", "").endswith("}"):
        kept = weights.content_hash(tensors, json.dumps(json.loads(meta["fewstep"]))) if hashed else kept
        meta["fewstep"] = f'{meta["fewstep"][:-1]}, "sha256": "{kept}"}}'
    save_file(tensors, path, meta)


def test_one_changed_bit_is_refused(file):
    """What would load as another model without a word."""
    for change in (
        lambda t, m: t["first.weight"].view(torch.int16).flatten()[0:1].bitwise_xor_(1),
        lambda t, m: m.update(fewstep=m["fewstep"].replace('"width": 8', '"width": 9')),
    ):
        whole = file[0].read_bytes()
        rewrite(file[0], change, hashed=False)
        with pytest.raises(WeightsError, match="hash does not match"):
            weights.read(file[0])
        file[0].write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, m: t.pop("first.weight"), "lacks the tensor first.weight"),
        (lambda t, m: t.update(extra=torch.zeros(1)), "does not: extra"),
        (lambda t, m: t.update({"first.bias": torch.zeros(9)}), "first.bias has shape"),
        (lambda t, m: t["first.bias"].fill_(float("nan")), "first.bias holds NaN"),
        (lambda t, m: m.clear(), "no description"),
        (lambda t, m: m.update(fewstep="{"), "no description"),
        (lambda t, m: m.update(fewstep=m["fewstep"].replace('"unet"', '"vnet"')), "unknown network"),
        (lambda t, m: m.update(fewstep=m["fewstep"].replace('"width": 8', '"wdth": 8')), "cannot be built"),
        (lambda t, m: m.update(fewstep=m["fewstep"].replace('"version": 1', '"version": 9')), "of version 9"),
    ],
)
def test_wrong_content_is_refused_by_name(file, change, said):
    rewrite(file[0], change)
    with pytest.raises(WeightsError, match=said):
        weights.read(file[0])


def test_broken_files_are_refused(file):
    path, data = file[0], file[0].read_bytes()
    for damaged in (b"", data[:100], data[:-8], b"<html>", pickle.dumps({"a": 1}), b"\xff" * 8 + data[8:]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="not a whole safetensors file"):
            weights.read(path)
    with pytest.raises(WeightsError, match="no weight file"):
        weights.read(path.with_name("none.safetensors"))
