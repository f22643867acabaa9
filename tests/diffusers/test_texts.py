"""Texts as conditions: what each network is told beside them, and what is refused."""

import diffusers
import pytest
import torch
from tiny import ATTENTION, CASES, flux, start
from whole import KINDS, cogvideox, near, pixart, stable_diffusion, stable_diffusion_3

import fewstep
import fewstep.diffusers as ours
from fewstep import CFG, sample
from fewstep.errors import ArgumentError

pytest.importorskip("transformers")


def test_one_text_a_sample(tmp_path):
    pipe = stable_diffusion(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    latents = start(2, (4, 8, 8))
    pipe.scheduler = ours.scheduler(pipe, "dpm-solver++", "trailing")
    with torch.no_grad():
        want = pipe(
            ["a cat", "no dog"], num_inference_steps=4, guidance_scale=3.0, height=8, width=8, latents=latents,
            output_type="latent",
        ).images  # fmt: skip
    den = ours.load_model(pipe)
    cond = den.encode_texts(["a cat", "no dog"])
    assert cond["encoder_hidden_states"].shape == (2, 8, 16)
    out = sample(den, start=latents, plan=pipe.scheduler.plan, cond=cond, guides=[CFG(3.0)])
    assert near(out.x, want)
    other = sample(den, start=latents, plan=pipe.scheduler.plan, cond=den.encode_texts("a cat"), guides=[CFG(3.0)])
    assert torch.allclose(other.x[0], out.x[0], atol=1e-4)
    assert not torch.allclose(other.x[1], out.x[1], atol=1e-3)


def test_a_text_to_keep_away_from(tmp_path):
    kind, pipe = KINDS["sd15"], stable_diffusion(tmp_path)
    pipe.scheduler = ours.scheduler(pipe, kind.solver)
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        want = pipe(latents=start(1, kind.shape), output_type="latent", **kind.call, negative_prompt="no dog").images
    den = ours.load_model(pipe)
    away, cond = den.encode_texts("no dog"), den.encode_texts("a cat")
    out = sample(den, start=start(1, kind.shape), plan=pipe.scheduler.plan, cond=cond, guides=[CFG(3.0, away)])
    assert near(out.x, want)


def test_stable_diffusion_3_without_t5(tmp_path):
    """Many leave it away; zeros take its place, and their width is in the network's config."""
    pipe = stable_diffusion_3(tmp_path)
    pipe = diffusers.StableDiffusion3Pipeline(**{**pipe.components, "text_encoder_3": None, "tokenizer_3": None})
    pipe.save_pretrained(tmp_path / "pipe")
    pipe.scheduler = ours.scheduler(pipe, "euler")
    want = KINDS["sd3"].run(pipe)
    den = fewstep.load(tmp_path / "pipe")
    out = sample(
        den, start=start(1, (4, 8, 8)), plan=pipe.scheduler.plan, cond=den.encode_texts("a cat"), guides=[CFG(3.0)]
    )
    assert near(out.x, want)


def test_pixart_is_told_the_size_where_its_network_wants_it(tmp_path):
    torch.manual_seed(0)
    net = diffusers.PixArtTransformer2DModel(
        **{**ATTENTION, "num_attention_heads": 3, "sample_size": 128}, in_channels=4, out_channels=8,
        cross_attention_dim=24, caption_channels=16,
    ).eval()  # fmt: skip
    assert net.use_additional_conditions
    pipe = pixart(tmp_path)
    pipe = diffusers.PixArtAlphaPipeline(**{**pipe.components, "transformer": net})
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ours.scheduler(pipe, "dpm-solver++")
    latents = start(1, (4, 8, 16))
    with torch.no_grad():
        want = pipe(
            "a cat", num_inference_steps=4, guidance_scale=3.0, height=8, width=16, latents=latents,
            output_type="latent", use_resolution_binning=False,
        ).images  # fmt: skip
    den = ours.load_model(pipe, size=(8, 16))
    cond = den.encode_texts("a cat")
    assert cond["resolution"].tolist() == [[8, 16]]
    assert cond["aspect_ratio"].tolist() == [[0.5]]
    assert near(sample(den, start=latents, plan=pipe.scheduler.plan, cond=cond, guides=[CFG(3.0)]).x, want)
    with pytest.raises(ArgumentError, match="resolution"):
        den(latents, 0.5, encoder_hidden_states=cond["encoder_hidden_states"])


def test_a_distilled_flux_says_that_it_wants_its_guidance():
    den = ours.load_model(flux(True), scheduler=CASES["flux"][1], size=8)
    given = {key: value for key, value in CASES["flux"][2].items() if key != "guidance"}
    with pytest.raises(ArgumentError, match="guidance"):
        den(start(shape=(4, 8, 8)), 0.5, **given)


def test_a_video_is_decoded_as_its_pipeline_decodes_it(tmp_path):
    pipe = cogvideox(tmp_path)
    den = ours.load_model(pipe)
    for frames in (1, 2, 3, 4, 5):
        den.shape = (frames, 4, 4, 4)
        latents = start(1, den.shape)
        with torch.no_grad():
            theirs = pipe.decode_latents(latents).transpose(1, 2)
            assert torch.allclose(den.decode(latents), theirs, atol=1e-5)
        assert theirs.shape == (1, *den.picture_shape)


def test_texts_where_there_are_none(tmp_path):
    with pytest.raises(ArgumentError, match="without text encoders"):
        ours.load_model(CASES["sd15"][0](), scheduler=diffusers.DDIMScheduler()).encode_texts("a cat")
    pipe = cogvideox(tmp_path)
    bare = diffusers.CogVideoXPipeline(**{**pipe.components, "text_encoder": None, "tokenizer": None})
    bare = ours.load_model(bare)
    with pytest.raises(ArgumentError, match="no text encoder"):
        bare.encode_texts("a cat")
    with pytest.raises(ArgumentError, match="text or a list of texts"):
        bare.encode_texts([3])
    pipe = diffusers.DDPMPipeline(CASES["unet"][0](), diffusers.DDPMScheduler(clip_sample=False))
    with pytest.raises(ArgumentError, match="takes no texts"):
        ours.load_model(pipe).encode_texts("a cat")
