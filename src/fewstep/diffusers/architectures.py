"""How each network class of diffusers is called, as net(x, told, **cond) → its answer.

Conditions have the names that the class itself gives them.  SDXL's `text_embeds` and `time_ids`, PixArt's `resolution`
and `aspect_ratio` go into its `added_cond_kwargs`; Flux' latents are packed in patches of 2×2.
"""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError, unknown

Call = Callable[..., Tensor]


def _unet(net: nn.Module) -> Call:
    return lambda x, told, **cond: net(x, told, return_dict=False, **cond)[0]


def _text_unet(net: Any) -> Call:
    adds = ("text_embeds", "time_ids") if net.config.addition_embed_type == "text_time" else ()

    def call(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        _need(cond, ("encoder_hidden_states", *adds))
        added = {name: cond.pop(name) for name in adds}
        return net(x, told, added_cond_kwargs=added or None, return_dict=False, **cond)[0]

    return call


def _dit(net: nn.Module) -> Call:
    def call(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        _need(cond, ("class_labels",))
        return net(x, timestep=told, return_dict=False, **cond)[0]

    return call


def _pixart(net: Any) -> Call:
    sizes = ("resolution", "aspect_ratio") if net.use_additional_conditions else ()

    def call(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        _need(cond, ("encoder_hidden_states", *sizes))
        added = {name: cond.pop(name, None) for name in ("resolution", "aspect_ratio")}
        return net(x, timestep=told, added_cond_kwargs=added, return_dict=False, **cond)[0]

    return call


def _sd3(net: nn.Module) -> Call:
    def call(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        _need(cond, ("encoder_hidden_states", "pooled_projections"))
        return net(hidden_states=x, timestep=told, return_dict=False, **cond)[0]

    return call


def _flux(net: Any) -> Call:
    # A network that was distilled from guidance is told how strong it is to be: 3.5 is what its pipeline says.
    strength = ("guidance",) if net.config.guidance_embeds else ()

    def call(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        _need(cond, ("encoder_hidden_states", "pooled_projections", *strength))
        batch, channels, height, width = x.shape
        patches = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        where = torch.zeros(height // 2, width // 2, 3, device=x.device, dtype=x.dtype)
        where[..., 1] = torch.arange(height // 2, device=x.device)[:, None]
        where[..., 2] = torch.arange(width // 2, device=x.device)
        words = torch.zeros(cond["encoder_hidden_states"].shape[1], 3, device=x.device, dtype=x.dtype)
        out = net(
            hidden_states=patches.reshape(batch, -1, 4 * channels), timestep=told / 1000, txt_ids=words,
            img_ids=where.reshape(-1, 3), return_dict=False, **cond,
        )[0]  # fmt: skip
        out = out.reshape(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return out.reshape(x.shape)

    return call


def _cogvideox(net: Any) -> Call:
    # The larger models turn their queries by place; the pipeline's own table for the size wanted is a condition.
    places = ("image_rotary_emb",) if net.config.use_rotary_positional_embeddings else ()

    def call(x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        _need(cond, ("encoder_hidden_states", *places))
        return net(hidden_states=x, timestep=told, return_dict=False, **cond)[0]

    return call


def _need(cond: dict[str, Any], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in cond]
    if missing:
        raise ArgumentError(f"this network needs the conditions {missing}; it was given {sorted(cond)}")


CALLS: dict[str, Callable[[Any], Call]] = {
    "UNet2DModel": _unet, "UNet2DConditionModel": _text_unet, "DiTTransformer2DModel": _dit, "Transformer2DModel": _dit,
    "PixArtTransformer2DModel": _pixart, "SD3Transformer2DModel": _sd3, "FluxTransformer2DModel": _flux,
    "CogVideoXTransformer3DModel": _cogvideox,
}  # fmt: skip


# The class DiT has now, and the one in which its published pipelines are saved.
DITS = ("DiTTransformer2DModel", "Transformer2DModel")


def call_of(net: nn.Module) -> Call:
    """net(x, told, **cond) → the answer, for a network of a class that we know.

    Raises:
        ArgumentError: another class.
    """
    name = type(net).__name__
    if name not in CALLS:
        raise unknown("diffusers network", name, CALLS)
    return CALLS[name](net)


def conditions_of(net: nn.Module) -> frozenset[str]:
    """The conditions that a network of a class that we know may be given."""
    ours = {"self", "sample", "hidden_states", "timestep", "img_ids", "txt_ids", "added_cond_kwargs", "return_dict"}
    taken = set(signature(type(net).forward).parameters)
    added = {
        "PixArtTransformer2DModel": {"resolution", "aspect_ratio"},
        "UNet2DConditionModel": {"text_embeds", "time_ids"},
    }
    return frozenset(taken - ours | added.get(type(net).__name__, set()))


def latent_shape(net: nn.Module, size: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape (channels, height, width) of one sample, or (frames, channels, height, width) of a video.

    Args:
        net: the network.
        size: height and width of the state, or frames, height and width; the network's own unless given.

    Raises:
        ArgumentError: no size is known, or the network's answer is not what its input is.
    """
    config: Any = net.config
    if type(net).__name__ == "CogVideoXTransformer3DModel":
        frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
        size = (frames, config.sample_height, config.sample_width) if size is None else size
        if isinstance(size, int) or len(size) != 3:
            raise ArgumentError(f"a video model's size is (frames, height, width) of its latents, got {size}")
        return size[0], config.in_channels, *size[1:]
    packed = 4 if type(net).__name__ == "FluxTransformer2DModel" else 1
    size = getattr(config, "sample_size", None) if size is None else size
    if size is None:
        raise ArgumentError(f"a {type(net).__name__} has no size of its own: give size=(height, width) of its latents")
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    if packed > 1 and (height % 2 or width % 2):
        raise ArgumentError(f"Flux' latents have an even height and width, got {height}×{width}")
    inputs, outputs = config.in_channels, getattr(config, "out_channels", None) or config.in_channels
    if outputs not in (inputs, 2 * inputs):
        raise ArgumentError(
            f"this network takes {inputs} channels and answers with {outputs}: it wants more than the state "
            "(an inpainting or upscaling model), which no condition of ours gives"
        )
    return inputs // packed, height, width
