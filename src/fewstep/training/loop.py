"""The training loop: E‖net(α·x₀ + σ·ε, λ, label) − target‖², with checkpoints that survive a kill.

Everything random at step k is drawn from a generator seeded by (seed, k), so that a run that was killed and resumed is
bit for bit the run that was not.
"""

import copy
import io
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.errors import ArgumentError, NumericalError, WeightsError
from fewstep.networks import build
from fewstep.networks.weights import write, write_atomically
from fewstep.paths import change_of_basis, from_json
from fewstep.training.config import TrainingConfig

WARM_UP = 500


def lam_range(config: TrainingConfig) -> tuple[float, float]:
    """The half-log-SNRs that are trained on: those of the path, within ±7."""
    return max(float(from_json(config.path).lam(1.0)), -7.0), 7.0


def _batch(config: TrainingConfig, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(pictures in [−1, 1], labels, half-log-SNRs, noise) of one step."""
    generator = torch.Generator().manual_seed(config.seed * 2**32 + step)
    pick = torch.randint(len(images), (config.batch,), generator=generator)
    x0, label = images[pick].float() / 127.5 - 1, labels[pick].clone()
    if config.flip:
        mirror = torch.rand(config.batch, generator=generator) < 0.5
        x0[mirror] = x0[mirror].flip(-1)
    label[torch.rand(config.batch, generator=generator) < config.dropout] = config.network["classes"]
    low, high = lam_range(config)
    lam = config.lam_mean + config.lam_std * torch.randn(config.batch, generator=generator, dtype=torch.float64)
    anywhere = low + (high - low) * torch.rand(config.batch, generator=generator, dtype=torch.float64)
    lam = torch.where(torch.rand(config.batch, generator=generator) < 0.1, anywhere, lam).clamp(low, high)
    return x0, label, lam, torch.randn(x0.shape, generator=generator)


def loss(config: TrainingConfig, network: nn.Module, images: Tensor, labels: Tensor, step: int) -> Tensor:
    """The mean squared error of the network's prediction on the batch of one step."""
    x0, label, lam, noise = _batch(config, images, labels, step)
    path = from_json(config.path)
    t = path.t_of_lam(lam)[:, None, None, None]
    x = (path.alpha(t) * x0 + path.sigma(t) * noise).float()
    on_x, on_x0 = change_of_basis(path, t, "x0", config.predicts)
    return (network(x, lam.float(), label) - (on_x * x + on_x0 * x0).float()).square().mean()


def train(
    config: TrainingConfig, images: Tensor, labels: Tensor, out: str | Path, classes: list[str], every: int = 200
) -> Path:
    """Train a network and write the running mean of its weights as a model of ours.

    Args:
        config: the run.
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), each in 0 … classes − 1.
        out: a folder; `checkpoint.pt` there is resumed from, `model.safetensors` is the result.
        classes: the names of the classes.
        every: steps between checkpoints and lines of progress.

    Raises:
        ArgumentError: a label is not one of the classes, or the checkpoint is of another run.
        WeightsError: the checkpoint cannot be read.
        NumericalError: the loss is not finite.
    """
    out, top = Path(out), config.network["classes"]
    if len(images) != len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < top:
        raise ArgumentError(
            f"every image needs a label in 0 … {top - 1}; got {len(images)} images, {len(labels)} labels"
        )
    torch.manual_seed(config.seed)
    network = build(config.network)
    mean = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.rate, weight_decay=0.01, betas=(0.9, 0.99))
    first, seconds, curve = 0, 0.0, []
    if (out / "checkpoint.pt").exists():
        saved = _resume(out / "checkpoint.pt", config)
        network.load_state_dict(saved["network"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        first, seconds, curve = saved["step"], saved["seconds"], saved["curve"]
    steps, running, began = config.images // config.batch, 0.0, time.perf_counter()
    for step in range(first, steps):
        for group in optimiser.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = config.rate * min((step + 1) / WARM_UP, 1.0) * cosine
        error = loss(config, network, images, labels, step)
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = min(config.ema, (step + 1) / (step + 10))
        for old, new in zip(mean.parameters(), network.parameters(), strict=True):
            old.lerp_(new.detach(), 1 - decay)
        running += error.item()
        if (step + 1) % every == 0 or step + 1 == steps:
            if not math.isfinite(running):
                raise NumericalError(f"the loss is not finite between steps {step + 1 - every} and {step + 1}")
            now = time.perf_counter()
            seconds, speed, began = seconds + now - began, config.batch * every / (now - began), now
            curve.append([step + 1, round(running / every, 5)])
            print(f"step {step + 1} of {steps}  loss {running / every:.4f}  {speed:.0f} images/s", flush=True)
            running = 0.0
            parts: dict[str, Any] = {"network": network, "mean": mean, "optimiser": optimiser}
            state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
            _checkpoint(
                out, {**state, "config": config.to_json(), "step": step + 1, "seconds": seconds, "curve": curve}
            )
            write(out / "model.safetensors", mean, describe(config, images, classes, step + 1, seconds, curve))
    return out / "model.safetensors"


def describe(
    config: TrainingConfig, images: Tensor, classes: list[str], steps: int, seconds: float, curve: list[Any]
) -> dict[str, Any]:
    """What a model file says of itself beside its network."""
    return {
        "path": config.path, "predicts": config.predicts, "time": "lambda", "time_range": list(lam_range(config)),
        "shape": list(images.shape[1:]),
        "range": [-1, 1], "classes": classes, "null_label": config.network["classes"],
        "training": {
            "images_seen": steps * config.batch, "seconds": round(seconds), "device": "cpu",
            "loss": curve[:: max(1, len(curve) // 40)], "config": config.to_json(),
        },
    }  # fmt: skip


def _resume(file: Path, config: TrainingConfig) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = torch.load(file, weights_only=True)
        before = saved["config"]
    except Exception as error:  # torch names no error of its own for a damaged file
        raise WeightsError(f"the checkpoint {file} cannot be read; remove it to begin anew ({error})") from error
    changed = [k for k, v in config.to_json().items() if before.get(k) != v]
    if changed:
        raise ArgumentError(f"{file} is of a run with another {', '.join(changed)}; train into another folder")
    return saved


def _checkpoint(out: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(out / "checkpoint.pt", buffer.getvalue())
