"""Tiny networks with random weights, made on the spot."""

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel


def unet(seed=0, channels=3):
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8, in_channels=channels, out_channels=channels, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), norm_num_groups=4,
    ).eval()  # fmt: skip


def start(batch=2, shape=(3, 8, 8), seed=1):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def walk(scheduler, net, x, generator=None, timesteps=None):
    """The loop that every pipeline has."""
    for t in scheduler.timesteps if timesteps is None else timesteps:
        # Flow schedulers of diffusers have no scale_model_input.
        answer = net(getattr(scheduler, "scale_model_input", lambda x, t: x)(x, t), t)
        answer = answer if isinstance(answer, torch.Tensor) else answer.sample
        extra = {} if generator is None else {"generator": generator}
        x = scheduler.step(answer, t, x, **extra, return_dict=False)[0]
    return x


def net(x, t):
    """A network without weights that depends on its input and on what it is told."""
    return 0.7 * torch.tanh(x.roll(1, -1)) + 0.2 * x * torch.cos(torch.as_tensor(t, dtype=x.dtype) / 300)


VP = diffusers.DDIMScheduler(clip_sample=False)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16,
    "attention_head_dim": 4, "sample_size": 8,
}  # fmt: skip
ADDED = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 12 + 6 * 4,
}  # fmt: skip
ATTENTION = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8, "patch_size": 2}


def text(width=16, words=5):
    return torch.randn(2, words, width, generator=torch.Generator().manual_seed(2))


def flux(guidance):
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=12, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance,
    )  # fmt: skip


def answer_of_flux(net, x, told, cond):
    pipe = pytest.importorskip("diffusers.pipelines.flux.pipeline_flux").FluxPipeline
    ids = pipe._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32)
    packed = pipe._pack_latents(x, 2, 4, 8, 8)
    out = net(packed, timestep=told / 1000, txt_ids=torch.zeros(5, 3), img_ids=ids, **cond).sample
    return pipe._unpack_latents(out, 64, 64, 8)


def added(net, x, told, cond):
    extra = {k: cond[k] for k in ("text_embeds", "time_ids")}
    return net(x, told, encoder_hidden_states=cond["encoder_hidden_states"], added_cond_kwargs=extra).sample


CASES = {
    "unet": (lambda: unet(channels=4), VP, {}, lambda n, x, t, c: n(x, t).sample),
    "sd15": (
        lambda: diffusers.UNet2DConditionModel(**BLOCKS), VP, {"encoder_hidden_states": text()},
        lambda n, x, t, c: n(x, t, **c).sample,
    ),
    "sdxl": (
        lambda: diffusers.UNet2DConditionModel(**BLOCKS, **ADDED), VP,
        {"encoder_hidden_states": text(), "text_embeds": torch.ones(2, 12),
         "time_ids": torch.arange(12.0).reshape(2, 6)},
        added,
    ),
    "dit": (
        lambda: diffusers.DiTTransformer2DModel(
            **ATTENTION, in_channels=4, out_channels=8, num_embeds_ada_norm=1000, norm_type="ada_norm_zero"
        ), VP, {"class_labels": torch.tensor([3, 5])}, lambda n, x, t, c: n(x, timestep=t, **c).sample[:, :4],
    ),
    "pixart": (
        lambda: diffusers.PixArtTransformer2DModel(
            **ATTENTION, in_channels=4, out_channels=8, cross_attention_dim=16, caption_channels=16,
            use_additional_conditions=False,
        ), VP, {"encoder_hidden_states": text(), "encoder_attention_mask": torch.ones(2, 5)},
        lambda n, x, t, c: n(
            x, timestep=t, added_cond_kwargs={"resolution": None, "aspect_ratio": None}, **c
        ).sample[:, :4],
    ),
    "sd3": (
        lambda: diffusers.SD3Transformer2DModel(
            **ATTENTION, in_channels=4, out_channels=4, joint_attention_dim=16, caption_projection_dim=16,
            pooled_projection_dim=12, pos_embed_max_size=8,
        ), FLOW, {"encoder_hidden_states": text(), "pooled_projections": torch.ones(2, 12)},
        lambda n, x, t, c: n(x, timestep=t, **c).sample,
    ),
    "flux": (
        lambda: flux(True), FLOW,
        {"encoder_hidden_states": text(), "pooled_projections": torch.ones(2, 12),
         "guidance": torch.tensor([3.5, 3.5])},
        answer_of_flux,
    ),
}  # fmt: skip


def vae(**config):
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",), latent_channels=4,
        up_block_types=("UpDecoderBlock2D",), layers_per_block=1, sample_size=8, **config,
    ).eval()  # fmt: skip
