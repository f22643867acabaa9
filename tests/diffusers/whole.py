"""Whole tiny pipelines: real networks, autoencoders, text encoders and tokenizers, made here with random weights.

Each takes texts (DiT: a class) and is called as its users call it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from tiny import BLOCKS, CASES, FLOW, flux, start, vae

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
MULTISTEP = diffusers.DPMSolverMultistepScheduler(**CONFIG)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = 6


def near(got, want):
    """Equal to 10⁻⁴ of the largest."""
    return torch.allclose(got, want, rtol=0, atol=1e-4 * float(want.abs().max()))


def clip(folder, width=16, projection=None):
    """A CLIP text encoder of two layers and a tokenizer that knows letters; its files are written to a folder first."""
    transformers = pytest.importorskip("transformers")
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8, pad_token="<|endoftext|>"
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=projection or width,
    )  # fmt: skip
    kind = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    torch.manual_seed(3)
    return kind(config).eval(), tokenizer


def t5(width=16):
    """A T5 encoder of one layer and a tokenizer that knows letters."""
    transformers = pytest.importorskip("transformers")
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = [(token, 0.0) for token in special] + [(c, -2.0 - 0.01 * i) for i, c in enumerate(f"▁{LETTERS}")]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    config = transformers.T5Config(
        vocab_size=len(vocabulary), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    torch.manual_seed(4)
    return transformers.T5EncoderModel(config).eval(), tokenizer


def stable_diffusion(folder):
    encoder, tokenizer = clip(folder / "clip")
    torch.manual_seed(0)
    return diffusers.StableDiffusionPipeline(
        vae=vae(scaling_factor=0.2), text_encoder=encoder, tokenizer=tokenizer,
        unet=diffusers.UNet2DConditionModel(**BLOCKS).eval(), scheduler=MULTISTEP,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl(folder):
    (one, tokenizer), (two, tokenizer_2) = clip(folder / "1", 8), clip(folder / "2", 8, projection=12)
    torch.manual_seed(0)
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(), text_encoder=one, text_encoder_2=two, tokenizer=tokenizer, tokenizer_2=tokenizer_2,
        unet=CASES["sdxl"][0]().eval(), scheduler=MULTISTEP, add_watermarker=False,
    )  # fmt: skip


def stable_diffusion_3(folder):
    (one, tokenizer), (two, tokenizer_2) = clip(folder / "1", 4, 4), clip(folder / "2", 8, 8)
    three, tokenizer_3 = t5()
    torch.manual_seed(0)
    return diffusers.StableDiffusion3Pipeline(
        transformer=CASES["sd3"][0]().eval(), scheduler=FLOW, vae=vae(shift_factor=0.1), text_encoder=one,
        tokenizer=tokenizer, text_encoder_2=two, tokenizer_2=tokenizer_2, text_encoder_3=three, tokenizer_3=tokenizer_3,
    )  # fmt: skip


def flux_dev(folder):
    (one, tokenizer), (two, tokenizer_2) = clip(folder / "1", 12), t5()
    torch.manual_seed(0)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return diffusers.FluxPipeline(
        scheduler=scheduler, vae=vae(), text_encoder=one, tokenizer=tokenizer, text_encoder_2=two,
        tokenizer_2=tokenizer_2, transformer=flux(True).eval(),
    )  # fmt: skip


def pixart(folder):
    encoder, tokenizer = t5()
    torch.manual_seed(0)
    return diffusers.PixArtAlphaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae(), transformer=CASES["pixart"][0]().eval(),
        scheduler=MULTISTEP,
    )  # fmt: skip


def dit(folder):
    torch.manual_seed(0)
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    return diffusers.DiTPipeline(CASES["dit"][0]().eval(), vae(), scheduler)


def cogvideox(folder):
    encoder, tokenizer = t5()
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, patch_size=2, sample_width=4, sample_height=4,
        sample_frames=5, in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=16, max_text_seq_length=WORDS,
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
    return diffusers.CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder.eval(),
        transformer=transformer.eval(),
        scheduler=scheduler,
    )


class Overhearing(torch.nn.Module):
    """An autoencoder that keeps what it is to decode."""

    device, dtype, config = torch.device("cpu"), torch.float32, SimpleNamespace(scaling_factor=1.0)

    def decode(self, latents):
        self.heard = latents
        return SimpleNamespace(sample=torch.zeros(1, 3, 8, 8))


@dataclass(frozen=True)
class Whole:
    """A kind of pipeline, and how it is called.

    Args:
        make: make(folder) → the pipeline; the folder takes the tokenizers' files.
        solver: the one of ours that its own scheduler computes.
        call: what it is called with for one sample, beside its latents.
        scale: the guidance in it.
        cond: what our own loop is told beside the texts.
        shape: of one sample's latents.
    """

    make: Callable[..., Any]
    solver: str
    call: dict[str, Any]
    scale: float = 3.0
    cond: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (4, 8, 8)

    @torch.no_grad()
    def run(self, pipe, seed=1):
        """The latents that the pipeline makes of one sample's noise."""
        pipe.set_progress_bar_config(disable=True)
        latents, call = start(1, self.shape, seed), dict(self.call)
        if isinstance(pipe, diffusers.DiTPipeline):
            # This one takes no latents and shows none: its generator draws the same, and its autoencoder overhears.
            twin = diffusers.DiTPipeline(pipe.transformer, Overhearing(), pipe.scheduler)
            twin.set_progress_bar_config(disable=True)
            twin(generator=torch.Generator().manual_seed(seed), output_type="pt", **call)
            return twin.vae.heard
        if isinstance(pipe, diffusers.FluxPipeline):
            packed = pipe(latents=pipe._pack_latents(latents, 1, 4, 8, 8), output_type="latent", **call).images
            return pipe._unpack_latents(packed, 8, 8, 1)
        out = pipe(latents=latents, output_type="latent", **call)
        return out.frames if hasattr(out, "frames") else out.images


SIZE = {"height": 8, "width": 8}
TEXT = {"prompt": "a cat", "guidance_scale": 3.0}
KINDS = {
    "sd15": Whole(stable_diffusion, "dpm-solver++", {**TEXT, **SIZE, "num_inference_steps": 5}),
    "sdxl": Whole(stable_diffusion_xl, "dpm-solver++", {**TEXT, **SIZE, "num_inference_steps": 5}),
    # Given n alone, their scheduler shifts the last level twice; a list of levels is the same grid for both.
    "sd3": Whole(stable_diffusion_3, "euler", {**TEXT, **SIZE, "sigmas": [1.0, 0.8, 0.5, 0.2]}),
    "flux": Whole(
        flux_dev, "euler",
        {**SIZE, "prompt": "a cat", "negative_prompt": "", "true_cfg_scale": 3.0, "guidance_scale": 3.5,
         "num_inference_steps": 4},
        cond={"guidance": torch.tensor([3.5])},
    ),
    "pixart": Whole(
        pixart, "dpm-solver++", {**TEXT, **SIZE, "num_inference_steps": 5, "use_resolution_binning": False}
    ),
    "dit": Whole(dit, "ddim", {"class_labels": [3], "guidance_scale": 3.0, "num_inference_steps": 5},
                 cond={"class_labels": [3]}),
    "cogvideox": Whole(
        cogvideox, "ddim",
        {**TEXT, "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 5, "max_sequence_length": WORDS},
        shape=(2, 4, 4, 4),
    ),
}  # fmt: skip
