"""A checkpoint in one file, under its makers' names, read by diffusers' own maps; and only whole."""

import re

import pytest
import torch
from safetensors.torch import save_file
from tiny import start
from whole import stable_diffusion

import fewstep
from fewstep import CFG, sample
from fewstep.errors import ArgumentError, WeightsError

pytest.importorskip("transformers")

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def latent_diffusions_name(key):
    """The name that a tensor of the tiny UNet, one layer a block, has in a checkpoint of Stable Diffusion."""
    for ours, theirs in ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    side, block, kind, place, rest = re.fullmatch(
        r"(down|up|mid)_block(?:s\.(\d))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", key
    ).groups()
    block, place = int(block or 0), int(place)
    if kind == "resnets":
        part, _, leaf = rest.rpartition(".")
        rest = f"{RESNET[part]}.{leaf}"
    if side == "mid":
        return f"middle_block.{2 * place if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{2 * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{2 * block + 1}.2.{rest}"
    at = 1 + 2 * block if side == "down" else 2 * block + place
    return f"{'input' if side == 'down' else 'output'}_blocks.{at}.{0 if kind == 'resnets' else 1}.{rest}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(the pipeline's folder, its tensors under their makers' names)."""
    folder = tmp_path_factory.mktemp("single")
    pipe = stable_diffusion(folder / "tokenizers")
    pipe.save_pretrained(folder / "pipe")
    unet = {f"model.diffusion_model.{latent_diffusions_name(k)}": v for k, v in pipe.unet.state_dict().items()}
    assert len(unet) == len(pipe.unet.state_dict())
    return folder / "pipe", unet | pipe.vae.state_dict() | {"alphas_cumprod": torch.ones(1000)}


def test_it_is_the_model_of_the_folder(checkpoint, tmp_path):
    folder, tensors = checkpoint
    save_file(tensors, tmp_path / "model.safetensors")
    den, want = fewstep.load(tmp_path / "model.safetensors", config=folder), fewstep.load(folder)
    out, other = (
        sample(d, start=start(1, (4, 8, 8)), steps=2, cond=d.encode_texts("a cat"), guides=[CFG(3.0)]).x
        for d in (den, want)
    )
    assert torch.equal(out, other)
    assert torch.equal(den.decode(out), want.decode(out))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.pop("model.diffusion_model.out.2.weight"), WeightsError, "out.2.weight|conv_out.weight"),
        (lambda t: t.pop("decoder.conv_in.weight"), WeightsError, "AutoencoderKL"),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.ones(3)}), WeightsError, "shape"),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.full((4,), float("nan"))}), WeightsError, "NaN"),
    ],
    ids=["missing", "missing of the autoencoder", "shape", "nan"],
)
def test_what_is_not_whole_is_refused_by_name(checkpoint, tmp_path, change, error, message):
    folder, tensors = checkpoint
    tensors = dict(tensors)
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(error, match=message):
        fewstep.load(tmp_path / "model.safetensors", config=folder)


def test_what_is_no_such_file(checkpoint, tmp_path):
    folder, tensors = checkpoint
    torch.save(tensors, tmp_path / "model.ckpt")
    with pytest.raises(ArgumentError, match="safetensors only"):
        fewstep.load(tmp_path / "model.ckpt", config=folder)
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="not a whole"):
        fewstep.load(tmp_path / "cut.safetensors", config=folder)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="config"):
        fewstep.load(tmp_path / "model.safetensors")
    with pytest.raises(ArgumentError, match="40 hexadecimal"):
        fewstep.load(tmp_path / "model.safetensors", config="owner/name")
    with pytest.raises(ArgumentError, match="not a checkpoint in one file"):
        fewstep.load(folder, config=folder)
