"""A model that costs next to nothing."""

import pytest
import torch

import fewstep
from fewstep.networks import build, weights


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The file of a model of 8×8 pixels, untrained and quick."""
    torch.manual_seed(0)
    network = build({"kind": "unet", "channels": 1, "classes": 2, "width": 8, "multipliers": [1], "attention": [0]})
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    told = {"path": fewstep.VP().to_json(), "predicts": "v", "time_range": [-6.0, 5.0], "null_label": 2}
    weights.write(file, network, {**told, "shape": [1, 8, 8], "range": [-1, 1], "classes": 2})
    return str(file)
