"""Texts as conditions: a pipeline's own text encoders, their answers under the names that its network gives them.

`encode_prompt` of each pipeline answers for the text and, where it knows guidance, for the text that stands for none.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.import_utils import is_bs4_available, is_ftfy_available
from torch import Tensor

from fewstep.errors import ArgumentError

Conditions = dict[str, Tensor]
Pair = tuple[Conditions, Conditions]


def _pair(names: Sequence[str], given: Sequence[Tensor], none: Sequence[Tensor]) -> Pair:
    return dict(zip(names, given, strict=True)), dict(zip(names, none, strict=True))


def _plain(pipe: Any, texts: list[str], size: tuple[int, int]) -> Pair:
    device = pipe._execution_device
    given, none = pipe.encode_prompt(texts, device, 1, True)[:2]
    return {"encoder_hidden_states": given}, {"encoder_hidden_states": none}


def _cogvideox(pipe: Any, texts: list[str], size: tuple[int, int]) -> Pair:
    words = pipe.transformer.config.max_text_seq_length
    given, none = pipe.encode_prompt(texts, max_sequence_length=words)
    return {"encoder_hidden_states": given}, {"encoder_hidden_states": none}


def _xl(pipe: Any, texts: list[str], size: tuple[int, int]) -> Pair:
    given, none, pooled, pooled_none = pipe.encode_prompt(texts)
    # What a picture is told of itself: its first size, where it was cut, and the size asked for.
    sizes = torch.tensor([*size, 0, 0, *size], dtype=given.dtype, device=given.device).expand(len(texts), 6)
    return _pair(
        ("encoder_hidden_states", "text_embeds", "time_ids"), (given, pooled, sizes), (none, pooled_none, sizes)
    )


def _pixart(pipe: Any, texts: list[str], size: tuple[int, int]) -> Pair:
    # As the pipeline does unless told: a text is cleaned where the libraries for that are installed.
    clean = is_bs4_available() and is_ftfy_available()
    given, mask, none, mask_none = pipe.encode_prompt(texts, clean_caption=clean)
    cond, null = _pair(("encoder_hidden_states", "encoder_attention_mask"), (given, mask), (none, mask_none))
    if pipe.transformer.use_additional_conditions:
        height, width = size
        sizes: dict[str, list[float]] = {"resolution": [height, width], "aspect_ratio": [height / width]}
        for name, value in sizes.items():
            row = torch.tensor(value, dtype=given.dtype, device=given.device)
            cond[name] = null[name] = row.expand(len(texts), len(value))
    return cond, null


def _sd3(pipe: Any, texts: list[str], size: tuple[int, int]) -> Pair:
    given, none, pooled, pooled_none = pipe.encode_prompt(texts, None, None)
    return _pair(("encoder_hidden_states", "pooled_projections"), (given, pooled), (none, pooled_none))


def _flux(pipe: Any, texts: list[str], size: tuple[int, int]) -> Pair:
    names = ("encoder_hidden_states", "pooled_projections")
    return _pair(names, pipe.encode_prompt(texts, None)[:2], pipe.encode_prompt([""] * len(texts), None)[:2])


BY_NETWORK: dict[str, Callable[[Any, list[str], tuple[int, int]], Pair]] = {
    "UNet2DConditionModel": _plain, "PixArtTransformer2DModel": _pixart, "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux, "CogVideoXTransformer3DModel": _cogvideox,
}  # fmt: skip


class Texts:
    """The text encoders of a pipeline.

    Args:
        pipe: the pipeline, or its folder, from which all but the network and the autoencoder is read when first asked.
        net: the network that will be told.
        variant: which of several files the folder holds for the same weights.
    """

    def __init__(self, pipe: Any, net: Any, variant: str | None = None) -> None:
        self._pipe, self._net, self._variant = pipe, net, variant
        network = type(net).__name__
        self._encode = BY_NETWORK.get(network)
        if network == "UNet2DConditionModel" and net.config.addition_embed_type == "text_time":
            self._encode = _xl

    def __call__(self, texts: str | Sequence[str], size: tuple[int, int]) -> Pair:
        """(conditions of the texts, conditions that stand for no text).

        Args:
            texts: one text, or one a sample.
            size: height and width of the picture that is wanted.

        Raises:
            ArgumentError: the model takes no texts, or its pipeline has no text encoder.
        """
        many = [texts] if isinstance(texts, str) else list(texts)
        if not many or not all(isinstance(text, str) for text in many):
            raise ArgumentError(f"texts must be a text or a list of texts, got {texts!r}")
        if self._encode is None:
            raise ArgumentError("this model takes no texts")
        pipe = self._ready()
        if getattr(pipe, "text_encoder", None) is None:
            raise ArgumentError("this pipeline has no text encoder: give the network's conditions as cond instead")
        with torch.no_grad():
            return self._encode(pipe, many, size)

    def _ready(self) -> Any:
        if not isinstance(self._pipe, DiffusionPipeline):
            index = DiffusionPipeline.load_config(self._pipe)
            # What is not needed, and what its makers left away, which diffusers wants to hear too.
            spared = {name for name, kind in index.items() if isinstance(kind, list) and kind[0] is None}
            given: dict[str, Any] = dict.fromkeys({"vae", "safety_checker", "feature_extractor", *spared})
            # Some encode by the network's config; and where it is, the text encoders go.
            given |= {"unet": self._net, "transformer": self._net}
            given = {name: part for name, part in given.items() if name in index}
            self._pipe = DiffusionPipeline.from_pretrained(
                self._pipe, use_safetensors=True, variant=self._variant, **given
            )
            self._pipe.to(self._net.device)
        return self._pipe
