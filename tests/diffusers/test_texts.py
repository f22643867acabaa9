"""Texts and videos: real text encoders and tokenizers, made on the spot, and the pipelines' own answers beside ours."""

import json

import diffusers
import pytest
import torch
from tiny import BLOCKS, CASES, start, vae

import fewstep
import fewstep.diffusers as ours
from fewstep import CFG, sample
from fewstep.errors import ArgumentError

transformers = pytest.importorskip("transformers")
CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def clip(tmp_path, width=16, projection=None):
    """A CLIP text encoder of one layer and a tokenizer that knows letters."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
    tmp_path.mkdir(parents=True, exist_ok=True)
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=8, pad_token="<|endoftext|>"
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=projection or width,
    )  # fmt: skip
    kind = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    torch.manual_seed(3)
    return kind(config).eval(), tokenizer


def stable_diffusion(tmp_path):
    encoder, tokenizer = clip(tmp_path / "clip")
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(scaling_factor=0.2), text_encoder=encoder, tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(**BLOCKS).eval(), scheduler=diffusers.DPMSolverMultistepScheduler(**CONFIG),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_text_in_our_loop_is_the_text_in_theirs(tmp_path):
    pipe = stable_diffusion(tmp_path)
    latents = start(2, (4, 8, 8))
    pipe.scheduler = ours.scheduler(pipe, "dpm-solver++", "trailing")
    with torch.no_grad():
        want = pipe(
            ["a cat", "no dog"], num_inference_steps=4, guidance_scale=3.0, height=8, width=8, latents=latents,
            output_type="latent",
        ).images  # fmt: skip
    pipe.save_pretrained(tmp_path / "pipe")
    for den in (ours.load_model(pipe), fewstep.load(str(tmp_path / "pipe"))):
        cond = den.encode_texts(["a cat", "no dog"])
        assert cond["encoder_hidden_states"].shape == (2, 8, 16)
        out = sample(den, start=latents, plan=pipe.scheduler.plan, cond=cond, guides=[CFG(3.0)])
        assert torch.allclose(out.x, want, atol=1e-4 * float(want.abs().max()))
        assert den.decode(out.x).shape == (2, 3, 8, 8)
    other = sample(den, start=latents, plan=pipe.scheduler.plan, cond=den.encode_texts("a cat"), guides=[CFG(3.0)])
    assert torch.allclose(other.x[0], out.x[0], atol=1e-4)
    assert not torch.allclose(other.x[1], out.x[1], atol=1e-3)


def test_xl_is_told_both_texts_and_its_sizes(tmp_path):
    (one, tokenizer), (two, tokenizer_2) = clip(tmp_path / "1", 8), clip(tmp_path / "2", 8, projection=12)
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=one, text_encoder_2=two, tokenizer=tokenizer, tokenizer_2=tokenizer_2,
        unet=CASES["sdxl"][0]().eval(), scheduler=diffusers.DPMSolverMultistepScheduler(**CONFIG),
        add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    latents = start(1, (4, 8, 8))
    pipe.scheduler = ours.scheduler(pipe, "dpm-solver++", "trailing")
    with torch.no_grad():
        want = pipe(
            "a cat", num_inference_steps=4, guidance_scale=3.0, height=8, width=8, latents=latents, output_type="latent"
        ).images
    den = ours.load_model(pipe)
    cond = den.encode_texts("a cat")
    assert set(cond) == {"encoder_hidden_states", "text_embeds", "time_ids"}
    out = sample(den, start=latents, plan=pipe.scheduler.plan, cond=cond, guides=[CFG(3.0)])
    assert torch.allclose(out.x, want, atol=1e-4 * float(want.abs().max()))


def video():
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, patch_size=2, sample_width=4, sample_height=4,
        sample_frames=5, in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=16, max_text_seq_length=5,
        temporal_compression_ratio=4,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        clip_sample=False, rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing",
    )  # fmt: skip
    pipe = diffusers.CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=autoencoder.eval(), transformer=transformer.eval(), scheduler=scheduler
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_video_in_our_loop_is_the_video_in_theirs():
    pipe = video()
    words = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    pipe.scheduler = ours.scheduler(pipe, "ddim")
    latents = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        want = pipe(
            prompt_embeds=words[:1], negative_prompt_embeds=words[1:], num_inference_steps=5, guidance_scale=3.0,
            height=32, width=32, num_frames=5, latents=latents, output_type="latent",
        ).frames  # fmt: skip
    den = ours.load_model(pipe)
    assert den.shape == (2, 4, 4, 4)
    guides = [CFG(3.0, {"encoder_hidden_states": words[1:]})]
    cond = {"encoder_hidden_states": words[:1]}
    out = sample(den, start=latents, plan=pipe.scheduler.plan, cond=cond, guides=guides)
    assert torch.allclose(out.x, want, atol=1e-4 * float(want.abs().max()))
    with torch.no_grad():
        frames = den.decode(out.x)
        theirs = pipe.decode_latents(out.x).transpose(1, 2)
    assert frames.shape[0] == 1
    assert frames.shape[2:] == den.picture_shape[1:]
    assert torch.allclose(frames, theirs, atol=1e-5)


def test_texts_where_there_are_none():
    with pytest.raises(ArgumentError, match="without text encoders"):
        ours.load_model(CASES["sd15"][0](), scheduler=diffusers.DDIMScheduler()).encode_texts("a cat")
    with pytest.raises(ArgumentError, match="no text encoder"):
        ours.load_model(video()).encode_texts("a cat")
    with pytest.raises(ArgumentError, match="text or a list of texts"):
        ours.load_model(video()).encode_texts([3])
    pipe = diffusers.DDPMPipeline(CASES["unet"][0](), diffusers.DDPMScheduler(clip_sample=False))
    with pytest.raises(ArgumentError, match="takes no texts"):
        ours.load_model(pipe).encode_texts("a cat")
