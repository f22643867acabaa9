"""Five thousand damaged files: weights, plans and pictures are refused by name, or say what they said before."""

import io
import json
import pickle
import random
import zipfile

import pytest
import torch

import fewstep
from fewstep.errors import FewstepError
from fewstep.networks import weights
from fewstep.networks.unet import UNet
from fewstep.pictures import read_recipe
from fewstep.plan import Plan

COUNT = 1700
OTHER_FILES = [
    b"",
    b"\0" * 64,
    b"PK\x03\x04",
    pickle.dumps({"a": 1}),
    b"<html></html>",
    b"\x89PNG\r\n\x1a\n",
    b"{}",
    b"[" * 9000,
]
READERS = [fewstep.load, lambda file: Plan.load(str(file)), lambda file: read_recipe(str(file))]


def damaged(whole, random_):
    """The bytes of a file with one thing wrong."""
    data = bytearray(whole)
    at, more = random_.randrange(len(data)), random_.randrange(1, 200)
    kind = random_.randrange(8)
    if kind <= 2:  # one bit, most of all
        data[at] ^= 1 << random_.randrange(8)
    elif kind == 3:
        data = data[:at]
    elif kind == 4:
        del data[at : at + more]
    elif kind == 5:
        data[at:at] = random_.randbytes(more)
    elif kind == 6:
        data[at : at + more] = random_.randbytes(min(more, len(data) - at))
    else:
        other = random_.randrange(len(data))
        data[at : at + more] = data[other : other + more]
    return bytes(data)


def refusals(file, read, same, seed):
    """How many damaged files were refused; the others must read as the whole one does."""
    whole, random_, refused = file.read_bytes(), random.Random(seed), 0
    first = read(file)
    for number in range(COUNT):
        file.write_bytes(damaged(whole, random_))
        try:
            found = read(file)
        except FewstepError:
            refused += 1
            continue
        assert same(found, first), f"damage number {number} was read, as something else"
    for other in OTHER_FILES:
        file.write_bytes(other)
        with pytest.raises(FewstepError):
            read(file)
    file.write_bytes(whole)
    return refused


def test_weights(tmp_path):
    network = UNet(channels=1, classes=2, width=8, multipliers=[1], attention=[0])
    told = {
        "path": {"kind": "vp", "beta_min": 0.1, "beta_max": 20.0}, "predicts": "v", "time": "lambda", "null_label": 2,
        "time_range": [-5.0, 7.0], "shape": [1, 8, 8], "range": [-1, 1], "classes": ["a", "b"],
    }  # fmt: skip
    file = tmp_path / "model.safetensors"
    weights.write(file, network, told)

    def read(file):
        return weights.read(file)

    def same(found, first):
        pairs = zip(found[0].state_dict().values(), first[0].state_dict().values(), strict=True)
        return found[1] == first[1] and all(torch.equal(a, b) for a, b in pairs)

    assert refusals(file, read, same, 0) > 0.99 * COUNT
    assert fewstep.load(file).shape == (1, 8, 8)


def test_plans(tmp_path):
    file = tmp_path / "plan.json"
    fewstep.make_plan(fewstep.VP(), "unipc", steps=4).save(str(file))
    assert refusals(file, lambda file: Plan.load(str(file)), lambda a, b: a == b, 1) > 0.95 * COUNT


def test_pictures(tmp_path):
    """A recipe is refused or whole; damage to the pixels alone does not touch it."""
    denoiser = fewstep.wrap(lambda x, t: 0.1 * x, fewstep.VP(), "x0", shape=(1, 8, 8))
    file = tmp_path / "picture.png"
    fewstep.sample(denoiser, 1, steps=2).save(str(file))

    def read(file):
        recipe = read_recipe(str(file))
        return fewstep.plan.files.loads(json.dumps(recipe["plan"])), recipe["seeds"]

    assert refusals(file, read, lambda a, b: a == b, 2) > 0.9 * COUNT


@pytest.mark.parametrize("reader", READERS)
def test_a_pickle_is_never_opened(reader, tmp_path):
    """Neither by its name nor by what it holds: nothing in it runs."""

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    inside = io.BytesIO()
    torch.save({"a": Trap()}, inside)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    for name in ("model.safetensors", "model.bin", "model.pt", "plan.json", "picture.png"):
        for data in (pickle.dumps(Trap()), inside.getvalue(), packed.getvalue()):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(FewstepError):
                reader(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_asks_for_the_world_is_refused(tmp_path):
    """Sizes that a file claims are believed only as far as the file goes."""
    file = tmp_path / "huge.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    for length in (len(header), 2**40, 2**63):
        file.write_bytes(length.to_bytes(8, "little") + header)
        with pytest.raises(FewstepError):
            fewstep.load(file)
