"""Models of diffusers as denoisers: each class called as its own pipeline calls it, and weights that are whole."""

import io

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import BLOCKS, CASES, FLOW, VP, flux, start, text, unet, vae

import fewstep.diffusers as ours
from fewstep import CFG, generate, sample
from fewstep.diffusers.architectures import conditions_of
from fewstep.errors import ArgumentError, WeightsError
from fewstep.restoration import Gaussian, Mask, Measurement, restore


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@torch.no_grad()
def test_each_class_is_asked_as_its_pipeline_asks_it(case):
    make, peer, cond, answer = case
    torch.manual_seed(0)
    net = make().eval()
    den = ours.load_model(net, scheduler=peer, size=8)
    x, t = start(shape=(4, 8, 8)), 0.6
    told = torch.full((2,), 600.0 if den.convention.flows else 599.0)
    raw = answer(net, x, told, cond)
    assert raw.std() > 1e-3
    if den.convention.flows:
        want = x - 0.6 * raw
    else:
        bar = float(peer.alphas_cumprod[599])
        want = (x - (1 - bar) ** 0.5 * raw) / bar**0.5
    assert torch.allclose(den(x, t, **cond), want, rtol=1e-4, atol=1e-4)
    assert sample(den, 2, steps=2, cond=cond, grid="uniform").x.shape == (2, 4, 8, 8)


@torch.no_grad()
def test_dit_has_its_null_class():
    torch.manual_seed(0)
    den = ours.load_model(CASES["dit"][0](), scheduler=VP)
    x, labels = start(shape=(4, 8, 8)), torch.tensor([3, 5])
    guided = sample(den, start=x, solver="ddim", grid=[0.5, 0.0], cond={"class_labels": labels}, guides=[CFG(3.0)]).x
    one, none = den(x, 0.5, class_labels=labels), den(x, 0.5, class_labels=torch.tensor([1000, 1000]))
    assert torch.allclose(guided, none + 3 * (one - none), rtol=1e-4, atol=1e-3)


def test_a_missing_condition_is_named():
    den = ours.load_model(CASES["sdxl"][0](), scheduler=VP)
    with pytest.raises(ArgumentError, match="time_ids"):
        den(start(shape=(4, 8, 8)), 0.5, encoder_hidden_states=text(), text_embeds=torch.ones(2, 12))


@pytest.mark.parametrize("config", [{"scaling_factor": 0.3}, {"scaling_factor": 0.3, "shift_factor": 0.1}])
def test_latents_are_shifted_and_scaled(config):
    den = ours.load_model(unet(channels=4), scheduler=VP)
    den.vae = vae(**config)
    x, shift = start().clamp(-1, 1), config.get("shift_factor", 0.0)
    with torch.no_grad():
        plain = den.vae.encode(x).latent_dist.mode()
        assert torch.allclose(den.encode(x), (plain - shift) * 0.3, atol=1e-6)
        assert torch.allclose(den.decode(den.encode(x)), den.vae.decode(plain).sample, atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path)
    return tmp_path


def test_from_a_folder_and_from_a_pipeline(folder):
    den = ours.load_model(folder)
    other = ours.load_model(diffusers.DDPMPipeline(unet(), VP))
    with torch.no_grad():
        assert torch.equal(sample(den, 2, steps=3).x, sample(other, 2, steps=3).x)


def _change(folder, change):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv_in.weight"), "conv_in.weight"),
        (lambda t: t.update(extra=torch.ones(2)), "extra"),
        (lambda t: t.update({"conv_in.bias": torch.full_like(t["conv_in.bias"], float("nan"))}), "conv_in.bias"),
        (lambda t: t.update({"conv_in.bias": torch.ones(3)}), "conv_in.bias"),
    ],
    ids=["missing", "extra", "nan", "shape"],
)
def test_weights_that_are_not_whole_are_refused_by_name(folder, change, message):
    _change(folder, change)
    with pytest.raises(WeightsError, match=message):
        ours.load_model(folder)


def test_a_broken_file_and_a_pickle_are_refused(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    pickled = io.BytesIO()
    torch.save(load_file(file), pickled)
    header_of_2_63_bytes = b"\xff" * 7 + b"\x7f" + whole[8:]
    for content in (whole[:-100], b"", b"<html>", whole + b"more", header_of_2_63_bytes, pickled.getvalue()):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="not a whole"):
            ours.load_model(folder)
    file.unlink()
    torch.save(unet().state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsError, match="not a whole"):
        ours.load_model(folder)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("owner/model", {}, "40 hexadecimal"),
        ("owner/model", {"revision": "main"}, "40 hexadecimal"),
        ("no such folder", {}, "neither a folder"),
        (unet(), {}, "trained on"),
        (torch.nn.Linear(2, 2), {"scheduler": VP}, "unknown diffusers network"),
        (flux(False), {"scheduler": FLOW}, "no size"),
        (flux(False), {"scheduler": FLOW, "size": 7}, "even"),
        (3, {}, "give a pipeline"),
    ],
)
def test_what_is_no_model_is_refused(source, options, message):
    with pytest.raises(ArgumentError, match=message):
        ours.load_model(source, **options)


def test_an_inpainting_network_is_refused():
    net = diffusers.UNet2DConditionModel(**BLOCKS, in_channels=9, out_channels=4)
    with pytest.raises(ArgumentError, match="9 channels"):
        ours.load_model(net, scheduler=VP)


def test_a_network_of_pixels_is_its_own_decoder_and_one_of_codes_is_none(tmp_path):
    den = ours.load_model(unet(), scheduler=VP)
    x = start().clamp(-1, 1)
    assert den.decode(x) is x
    assert den.encode(x) is x
    seen = Measurement.simulate(Mask.half(*x.shape[-2:]), x, Gaussian(0.1))
    assert torch.equal(restore(den, seen, "diffpir", evaluations=2).measurement.y, seen.y)
    assert generate(den, 2, str(tmp_path / "many"), steps=1).made == 2
    with pytest.raises(ArgumentError, match=r"no VAE came with this network, whose state of \(4, 8, 8\) is no picture"):
        ours.load_model(unet(channels=4), scheduler=VP).decode(start(shape=(4, 8, 8)))


def test_what_a_network_is_not_told_is_refused_by_name():
    den = ours.load_model(unet(), scheduler=VP)
    with pytest.raises(ArgumentError, match=r"UNet2DModel takes no condition 'prompt'; its own are class_labels$"):
        sample(den, 1, steps=1, cond={"prompt": "a cat"})
    for case in CASES.values():
        net = case[0]()
        assert set(case[2]) <= conditions_of(net)
        assert not {"sample", "hidden_states", "timestep", "return_dict", "self"} & conditions_of(net)
    with pytest.raises(ArgumentError, match="scheduler must be a scheduler of diffusers or its config, got 'ddim'"):
        ours.load_model(unet(), scheduler="ddim")


def test_names_of_a_scheduler_are_checked_when_it_is_made():
    for wrong, says in (
        ({"solver": "unpc"}, "'unipc'"),
        ({"grid": "karas"}, "'karras'"),
        ({"solver": "paradigms"}, "loop"),
    ):
        with pytest.raises(ArgumentError, match=says):
            ours.scheduler(VP, **wrong)
