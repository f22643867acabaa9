"""Whole pipelines with tiny random networks: the same latents with our scheduler as with diffusers' own."""

import diffusers
import pytest
import torch
from tiny import BLOCKS, CASES, start, text, vae

import fewstep.diffusers as ours
from fewstep import CFG, sample

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
MULTISTEP = diffusers.DPMSolverMultistepScheduler(**CONFIG)
LATENTS = {"latents": start(1, (4, 8, 8)), "output_type": "latent"}


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def compare(pipe, solver, call, rtol=1e-4):
    """Run with the pipeline's own scheduler and with ours; both latents, and the scheduler of ours."""
    with torch.no_grad():
        theirs = call(quiet(pipe))
        pipe.scheduler = ours.scheduler(pipe, solver)
        mine = call(pipe)
    assert theirs.std() > 1e-3
    assert torch.allclose(mine, theirs, rtol=0, atol=rtol * float(theirs.abs().max()))
    return mine


def words(batch=1):
    return {"prompt_embeds": text()[:batch], "negative_prompt_embeds": text()[1 : 1 + batch] * 0.5}


def stable_diffusion():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    return diffusers.StableDiffusionPipeline(
        vae=vae(scaling_factor=0.2), text_encoder=None, tokenizer=None,
        unet=diffusers.UNet2DConditionModel(**BLOCKS).eval(), scheduler=MULTISTEP, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def test_stable_diffusion():
    pipe = stable_diffusion()

    def call(pipe):
        return pipe(**words(), num_inference_steps=5, guidance_scale=3.0, height=8, width=8, **LATENTS).images

    compare(pipe, "dpm-solver++", call)


def test_stable_diffusion_from_a_folder_with_guidance_in_our_own_loop(tmp_path):
    pipe = stable_diffusion()
    pipe.scheduler = ours.scheduler(pipe, "unipc", "trailing")
    pipe.save_pretrained(tmp_path)
    again = quiet(diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None))
    with torch.no_grad():
        images = again(**words(), num_inference_steps=4, guidance_scale=3.0, height=8, width=8, **LATENTS).images
    den = ours.load_model(tmp_path)
    cond, null = {"encoder_hidden_states": text()[:1]}, {"encoder_hidden_states": text()[1:] * 0.5}
    with torch.no_grad():
        x = sample(den, start=LATENTS["latents"], plan=again.scheduler.plan, cond=cond, guides=[CFG(3.0, null)]).x
        assert den.decode(x).shape == (1, 3, 8, 8)
    assert torch.allclose(images, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))


def test_image_to_image():
    pipe = stable_diffusion()
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    # diffusers' multistep solver begins in the middle with the history of nobody too.
    picture = start(1).clamp(-1, 1)

    def call(pipe):
        return pipe(
            **words(), image=picture, strength=0.6, num_inference_steps=10, guidance_scale=1.0, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip

    compare(pipe, "dpm-solver++", call)


def test_stable_diffusion_xl():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
        unet=CASES["sdxl"][0]().eval(),
        scheduler=MULTISTEP, add_watermarker=False,
    )  # fmt: skip

    def call(pipe):
        return pipe(
            **words(), pooled_prompt_embeds=torch.ones(1, 12), negative_pooled_prompt_embeds=torch.zeros(1, 12),
            num_inference_steps=5, guidance_scale=3.0, height=8, width=8, **LATENTS,
        ).images  # fmt: skip

    compare(pipe, "dpm-solver++", call)


def test_dit():
    torch.manual_seed(0)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    pipe = diffusers.DiTPipeline(CASES["dit"][0]().eval(), vae(), scheduler)

    def call(pipe):
        generator = torch.Generator().manual_seed(0)
        images = pipe([3], 2.0, generator, num_inference_steps=5, output_type="np").images
        return torch.from_numpy(images)

    compare(pipe, "ddim", call)


def test_pixart():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None, text_encoder=None, vae=vae(), transformer=CASES["pixart"][0]().eval(), scheduler=MULTISTEP
    )
    mask = {"prompt_attention_mask": torch.ones(1, 5), "negative_prompt_attention_mask": torch.ones(1, 5)}

    def call(pipe):
        return pipe(
            **words(), **mask, negative_prompt=None, num_inference_steps=5, height=8, width=8,
            use_resolution_binning=False, **LATENTS,
        ).images  # fmt: skip

    compare(pipe, "dpm-solver++", call)


def test_stable_diffusion_3():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=CASES["sd3"][0]().eval(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.1), text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    pooled = {"pooled_prompt_embeds": torch.ones(1, 12), "negative_pooled_prompt_embeds": torch.zeros(1, 12)}

    def call(pipe):
        # Given n alone, their scheduler shifts the last level twice; a list of levels is the same grid for both.
        return pipe(
            **words(), **pooled, sigmas=[1.0, 0.8, 0.5, 0.2], guidance_scale=3.0, height=8, width=8, **LATENTS
        ).images  # fmt: skip

    compare(pipe, "euler", call)


def test_flux():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    pipe = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae=vae(),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        transformer=CASES["flux"][0]().eval(),
    )  # fmt: skip

    def call(pipe):
        return pipe(
            prompt_embeds=text()[:1], pooled_prompt_embeds=torch.ones(1, 12), num_inference_steps=4, height=8, width=8,
            generator=torch.Generator().manual_seed(0), output_type="latent",
        ).images  # fmt: skip

    compare(pipe, "euler", call)


def test_a_video_pipeline():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, patch_size=2,
        sample_width=4, sample_height=4, sample_frames=5, in_channels=4,
        out_channels=4, time_embed_dim=8, text_embed_dim=16, max_text_seq_length=5, temporal_compression_ratio=4,
    )  # fmt: skip
    video_vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
        clip_sample=False, rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing",
    )  # fmt: skip
    pipe = diffusers.CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=video_vae, transformer=transformer.eval(), scheduler=scheduler
    )

    def call(pipe):
        return pipe(
            **words(), num_inference_steps=5, guidance_scale=3.0, height=32, width=32, num_frames=5,
            generator=torch.Generator().manual_seed(0), output_type="latent",
        ).frames  # fmt: skip

    compare(pipe, "ddim", call)
