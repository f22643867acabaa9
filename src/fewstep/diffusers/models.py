"""diffusers' models as denoisers: the network, what its scheduler's config says of it, and its VAE.

The state of a latent model is z = (E(x) − shift)·scale, with the VAE's own factors, or (E(x) − mean)·scale/std.  Videos
are (batch, frames, channels, height, width), as CogVideoX' network takes its latents.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from fewstep.denoisers import Denoiser
from fewstep.diffusers.architectures import CALLS, DITS, call_of, conditions_of, latent_shape
from fewstep.diffusers.folders import folder_of, parts_of, whole
from fewstep.diffusers.plan_scheduler import PlanScheduler
from fewstep.diffusers.single_file import part_of, tensors_of
from fewstep.diffusers.texts import Texts
from fewstep.diffusers.timetable import Timetable
from fewstep.errors import ArgumentError, unknown
from fewstep.plan import Plan
from fewstep.plan.files import loads
from fewstep.plan.hub import FILE as PLAN


class DiffusersModel(Denoiser):
    """A network of diffusers as a denoiser; made by `load_model`.

    Args:
        net: the network.
        vae: its autoencoder, if its state is latent.
        scheduler: the config of its scheduler says path and prediction.
        size: height and width of the state, or frames, height and width.
        revision: the commit that it was loaded from.
        texts: its pipeline's text encoders.

    `plan` is what came with the weights: that of a scheduler of ours, or of a file `plan.json` beside them.
    """

    def __init__(
        self,
        net: nn.Module,
        vae: nn.Module | None,
        scheduler: Any,
        size: int | tuple[int, ...] | None,
        revision: str,
        texts: Texts | None = None,
    ) -> None:
        known = PlanScheduler.from_config(scheduler)._convention
        labels = getattr(net.config, "num_embeds_ada_norm", None) if type(net).__name__ in DITS else None
        null = {} if labels is None else {"class_labels": labels}
        super().__init__(known.path, latent_shape(net, size), known.predicts, null, (-1.0, 1.0))
        self.net, self.vae, self.convention, self.revision, self._texts = net, vae, known, revision, texts
        self.plan: Plan | None = None
        self.dtype = next(net.parameters()).dtype
        self._call, self.takes = call_of(net), conditions_of(net)

    def told(self, t: Tensor) -> Tensor:
        return self.convention.told(t)

    def raw(self, x: Tensor, told: Tensor, **cond: Any) -> Tensor:
        ready = {k: v.to(self.dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in cond.items()}
        while told.ndim > 1 and told.shape[-1] == 1:
            told = told[..., 0]
        if told.ndim > 1:
            raise ArgumentError("a network of diffusers is told one time a sample")
        if ready and not ready.keys() <= self.takes:
            name = min(ready.keys() - self.takes)
            texts = self._texts is not None and "encoder_hidden_states" in self.takes
            makes = "; denoiser.encode_texts('a cat') makes those of a text" if texts else ""
            own = ", ".join(sorted(self.takes))
            raise ArgumentError(f"{type(self.net).__name__} takes no condition {name!r}; its own are {own}{makes}")
        out = self._call(x.to(self.dtype), told.float().expand(len(x)), **ready)
        out = out[:, : x.shape[1]] if out.ndim == 4 and out.shape[1] == 2 * x.shape[1] else out
        if out.shape != x.shape:
            raise ArgumentError(f"the network answered with shape {tuple(out.shape)} to a state of {tuple(x.shape)}")
        return out.to(x.dtype)

    def encode_texts(self, texts: str | Sequence[str]) -> dict[str, Tensor]:
        """The conditions of one text, or of one text a sample, as `cond` takes them.

        What stands for no text becomes the model's `null`, so that CFG needs nothing more.

        Raises:
            ArgumentError: the model takes no texts, or came without text encoders.
        """
        if self._texts is None:
            raise ArgumentError("this model came without text encoders: load its pipeline or its folder")
        height, width = self.picture_shape[-2:]
        cond, none = self._texts(texts, (height, width))
        self.null = {**self.null, **{name: value[:1] for name, value in none.items()}}
        return cond

    def _factors(self) -> tuple[Tensor | float, Tensor | float]:
        """(shift, scale) with z = (E(x) − shift)·scale."""
        if self.vae is None:
            raise ArgumentError(
                f"no VAE came with this network, whose state of {self.shape} is no picture: load its pipeline or folder"
            )
        config: Any = self.vae.config
        scale, mean = config.scaling_factor, getattr(config, "latents_mean", None)
        if mean is None:
            return getattr(config, "shift_factor", None) or 0.0, scale
        shape = (1, -1, 1, 1)
        return torch.tensor(mean).reshape(shape), scale / torch.tensor(config.latents_std).reshape(shape)

    @property
    def _is_picture(self) -> bool:
        """Whether the state is the picture itself, of one channel or three."""
        return self.vae is None and len(self.shape) == 3 and self.shape[0] in (1, 3)

    def _like(self, value: Tensor | float, x: Tensor) -> Tensor | float:
        return value.to(x.device, x.dtype) if isinstance(value, Tensor) else value

    @property
    def latent(self) -> bool:
        return self.vae is not None

    @property
    def picture_shape(self) -> tuple[int, ...]:
        if self.vae is None:
            return self.shape
        config: Any = self.vae.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        sides = tuple(factor * side for side in self.shape[-2:])
        if len(self.shape) == 4:
            # Of an odd number the first stands for one frame; of an even one, as this autoencoder has it, it does not.
            frames, ratio = self.shape[0], config.temporal_compression_ratio
            return (frames - 1) * ratio + 1 if frames % 2 else frames * ratio, config.out_channels, *sides
        return config.out_channels, *sides

    def encode(self, pictures: Tensor) -> Tensor:
        """The latents of pictures in [−1, 1], (batch, channels, height, width): the mean of the VAE's answer.

        Pictures themselves where they are the state.

        Raises:
            ArgumentError: the state is no picture, and no VAE came with the network.
        """
        if self._is_picture:
            return pictures
        shift, scale = (self._like(v, pictures) for v in self._factors())
        vae: Any = self.vae
        # The VAE's weights want gradients as diffusers loads them; an answer has one where its question has.
        with torch.set_grad_enabled(torch.is_grad_enabled() and pictures.requires_grad):
            mode = self._turned(vae.encode(self._turned(pictures.to(vae.dtype))).latent_dist.mode())
            return (mode.to(pictures.dtype) - shift) * scale

    def decode(self, state: Tensor) -> Tensor:
        """The pictures, about [−1, 1], of latents; states that are pictures themselves; errors as of `encode`."""
        if self._is_picture:
            return state
        shift, scale = (self._like(v, state) for v in self._factors())
        vae: Any = self.vae
        with torch.set_grad_enabled(torch.is_grad_enabled() and state.requires_grad):
            return self._turned(vae.decode(self._turned((state / scale + shift).to(vae.dtype))).sample).to(state.dtype)

    @staticmethod
    def _turned(x: Tensor) -> Tensor:
        """Frames and channels exchanged: an autoencoder of videos has the channels first."""
        return x.transpose(1, 2) if x.ndim == 5 else x


def load_model(
    source: Any,
    *,
    scheduler: Any = None,
    size: int | tuple[int, ...] | None = None,
    revision: str = "",
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    variant: str | None = None,
    config: str | FilePath | None = None,
) -> DiffusersModel:
    """A diffusers model as a denoiser.

    Args:
        source: a pipeline or a network, a pipeline's folder, a hub id, or a safetensors file with a whole checkpoint.
        scheduler: a scheduler or its config; what a network that comes alone was trained on.
        size: height and width of the state, or frames, height and width of a video's; the network's own unless given.
        revision: the commit of a hub id, 40 hexadecimal digits: a branch's name would mean another model tomorrow.
        dtype: the dtype of the weights; as they are unless given.
        device: where they go.
        variant: which of several files a folder or hub id holds for the same weights: "fp16" for `….fp16.safetensors`.
        config: of a checkpoint in one file: the folder or the hub id (with its `revision`) of a pipeline of its kind,
            which says what its tensors are, what it was trained on, and encodes texts.

    Raises:
        ArgumentError: a source that is no such model, a class that we do not know, or a hub id without its commit.
        WeightsError: the weights are not whole and finite safetensors.
    """
    net, vae, found, pipe = _parts(source, revision, variant, config)
    if net is None:
        raise ArgumentError("this pipeline has neither a unet nor a transformer")
    if type(net).__name__ not in CALLS:
        raise unknown("diffusers network", type(net).__name__, CALLS)
    scheduler = found if scheduler is None else scheduler
    if scheduler is None:
        raise ArgumentError(
            "a network alone does not say what it was trained on: give scheduler=, its scheduler or config"
        )
    if not isinstance(getattr(scheduler, "config", scheduler), Mapping):
        raise ArgumentError(f"scheduler must be a scheduler of diffusers or its config, got {scheduler!r:.80}")
    if not isinstance(scheduler, Mapping):
        scheduler = {**scheduler.config, "_class_name": type(scheduler).__name__}
    for part in (net, vae):
        if part is not None:
            part.to(device).eval()
            if dtype is not None:
                part.to(dtype)
    texts = None if pipe is None else Texts(pipe, net, variant)
    model = DiffusersModel(net, vae, scheduler, size, revision, texts)
    model.name = f"{source if config is None else config}@{revision}" if revision else ""
    model.plan = _plan_of(scheduler, pipe / PLAN if isinstance(pipe, FilePath) else None, model)
    return model


def _parts(source: Any, revision: str, variant: str | None, config: Any) -> tuple[Any, Any, Any, Any]:
    """(network, autoencoder, scheduler, pipeline or its folder) of a source; None for what it has not."""
    path = FilePath(str(source)) if isinstance(source, (str, FilePath)) else None
    one_file = path is not None and path.is_file()
    if one_file != (config is not None):
        what = "config names the folder or the hub id of a pipeline like it" if one_file else "it takes no config"
        raise ArgumentError(f"{source!r:.80} is {'' if one_file else 'not '}a checkpoint in one file: {what}")
    if isinstance(source, nn.Module):
        return source, None, None, None
    if isinstance(source, DiffusionPipeline):
        net = getattr(source, "unet", None) or getattr(source, "transformer", None)
        return net, getattr(source, "vae", None), getattr(source, "scheduler", None), source
    if path is None:
        raise ArgumentError(f"give a pipeline, a network, a folder, a file or a hub id, got {type(source).__name__}")
    if not one_file:
        folder = folder_of(str(source), revision, variant)
        return *parts_of(folder, lambda part, name: whole(folder / part, name, variant)), folder
    tensors = tensors_of(path)
    folder = folder_of(str(config), revision, variant, weights=False)
    return *parts_of(folder, lambda part, name: part_of(tensors, path, folder, part, name)), folder


def _plan_of(scheduler: Mapping[str, Any], file: FilePath | None, model: DiffusersModel) -> Plan | None:
    """The plan of a scheduler of ours, or that of the file beside the weights.

    Raises:
        ArgumentError: a plan for another path than the model's.
        PlanError: a file that is no plan.
    """
    text = scheduler.get("plan")
    if text is None and (file is None or not file.is_file()):
        return None
    plan = loads(text) if text is not None else Plan.load(str(file))
    Timetable(plan, model.convention)
    return plan
