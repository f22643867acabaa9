"""A run of training: steps, lines of progress, and checkpoints that survive a kill.

    θ ← θ − rate(k)·optimiser(∇ loss(θ, k)),      θ̄ ← θ̄ + (1 − min(ema, (k + 1)/(k + 10)))·(θ − θ̄)

    k    the step, 0 … images/batch − 1; gradients are clipped to norm 1
    θ̄    the running mean of the weights, which is what ships; θ itself where the task has no mean (ema 0)

Everything random at step k is drawn from a generator seeded by (seed, k), so that a run that was killed and resumed is
bit for bit the run that was not.
"""

import copy
import io
import math
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fewstep.atomic import write_atomically
from fewstep.errors import ArgumentError, NumericalError, WeightsError
from fewstep.networks import build
from fewstep.networks.weights import write
from fewstep.training.config import AnyConfig
from fewstep.training.stopping import stop_signals

CHECKPOINT, MODEL = "checkpoint.pt", "model.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 60.0


class Task(Protocol):
    """What a run learns: the data, the loss at a step, and how the weights follow it."""

    @property
    def config(self) -> AnyConfig:
        """The run."""

    @property
    def images(self) -> Tensor:
        """uint8 (images, channels, height, width), or latents in floating point."""

    @property
    def labels(self) -> Tensor:
        """int64 (images,)."""

    @property
    def ema(self) -> float:
        """The decay of the running mean of the weights; 0 for none."""

    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """What turns gradients into steps."""

    def rate(self, step: int) -> float:
        """The learning rate of a step."""

    def loss(self, network: nn.Module, step: int, device: str) -> Tensor:
        """The loss on the batch of a step; a function of (weights, step) and, of one that remembers, its memory."""

    def describe(self) -> dict[str, Any]:
        """What the model file says of itself beside its network, its classes and its training."""

    def ships(self, network: nn.Module) -> nn.Module:
        """What the model file holds: the network, or one that holds it."""

    def judge(self, network: nn.Module, device: str) -> dict[str, Any]:
        """What is measured of the finished network."""


@runtime_checkable
class Remembering(Protocol):
    """A task whose loss also follows from the losses of earlier steps."""

    @property
    def memory(self) -> dict[str, Tensor]:
        """What it remembers of them: tensors that `loss` changes in place, and that a checkpoint keeps."""


class Trainer:
    """The state of a run: network, running mean, optimiser, step; what a checkpoint holds.

    Args:
        task: what is learnt.
        out: the folder of the checkpoint and the model.
        classes: the names of the classes.
        device: where the network runs.

    Raises:
        ArgumentError: the data does not fit the network, or the checkpoint is of another run.
        WeightsError: the checkpoint cannot be read.
    """

    def __init__(self, task: Task, out: Path, classes: list[str], device: str) -> None:
        torch.manual_seed(task.config.seed)
        self.task, self.out, self.classes, self.device = task, out, classes, device
        self.network = build(task.config.network).to(device)
        self._check_data()
        self.mean = copy.deepcopy(self.network).requires_grad_(False) if task.ema else self.network
        self.optimiser = task.optimiser(self.network)
        self.steps = task.config.images // task.config.batch
        self.step, self.running, self.seconds = 0, 0.0, 0.0
        self.curve: list[Any] = []
        if (out / CHECKPOINT).exists():
            self._resume()

    def _check_data(self) -> None:
        images, labels, network = self.task.images, self.task.labels, self.task.config.network
        count, channels = network.get("classes", len(self.classes)), network["channels"]
        if not 0 < len(images) == len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < count:
            raise ArgumentError(
                f"every image needs a label in 0 … {count - 1}; got {len(images)} images, {len(labels)} labels"
            )
        if images.shape[1] != channels:
            raise ArgumentError(f"the network takes pictures of {channels} channels, the data has {images.shape[1]}")
        if len(self.classes) != count:
            raise ArgumentError(f"the network has {count} classes, the data {len(self.classes)}: {self.classes}")

    def advance(self) -> None:
        """One step of the optimiser and of the running mean."""
        task, step = self.task, self.step
        for group in self.optimiser.param_groups:
            group["lr"] = task.rate(step)
        error = task.loss(self.network, step, self.device)
        self.optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        if self.mean is not self.network:
            decay = min(task.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.mean.parameters()), list(self.network.parameters()), 1 - decay)
        self.running += error.item()
        self.step += 1

    @property
    def memory(self) -> dict[str, Tensor]:
        """What the task remembers of earlier steps; nothing where it does not."""
        return self.task.memory if isinstance(self.task, Remembering) else {}

    @property
    def reported(self) -> int:
        """The last step that a line of progress told of."""
        return self.curve[-1][0] if self.curve else 0

    def report(self) -> str:
        """Note the mean loss over the steps since the last report, and say it."""
        self.check_finite()
        loss = self.running / (self.step - self.reported)
        self.curve.append([self.step, round(loss, 5)])
        self.running = 0.0
        return f"step {self.step} of {self.steps}  loss {loss:.4f}"

    def check_finite(self) -> None:
        """Refuse to go on with NaN or Inf.

        Raises:
            NumericalError: a loss since the last report was not finite, or a weight is not.
        """
        weights = (tensor for tensor in self.network.state_dict().values() if tensor.is_floating_point())
        if not math.isfinite(self.running) or not all(tensor.isfinite().all() for tensor in weights):
            raise NumericalError(f"the loss or a weight is not finite between steps {self.reported} and {self.step}")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and never one that NaN has spoilt."""
        self.check_finite()
        parts: dict[str, Any] = {"network": self.network, "mean": self.mean, "optimiser": self.optimiser}
        buffer = io.BytesIO()
        torch.save(
            {name: part.state_dict() for name, part in parts.items()}
            | {name: getattr(self, name) for name in ("step", "running", "seconds", "curve")}
            | {"config": self.task.config.to_json(), "memory": self.memory},
            buffer,
        )
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / CHECKPOINT, buffer.getvalue())

    def _resume(self) -> None:
        file = self.out / CHECKPOINT
        try:
            saved: dict[str, Any] = torch.load(file, weights_only=True, map_location=self.device)
            before = saved["config"]
        except Exception as error:  # torch names no error of its own for a damaged file
            raise WeightsError(f"the checkpoint {file} cannot be read; remove it to begin anew ({error})") from error
        changed = [k for k, v in self.task.config.to_json().items() if k not in before or before[k] != v]
        if changed:
            raise ArgumentError(f"{file} is of a run with another {', '.join(changed)}; train into another folder")
        for name in ("network", "mean", "optimiser"):
            getattr(self, name).load_state_dict(saved[name])
        for name in ("step", "running", "seconds", "curve"):
            setattr(self, name, saved[name])
        for name, tensor in self.memory.items():
            tensor.copy_(saved["memory"][name])

    def write_model(self, measured: dict[str, Any]) -> Path:
        """Write what ships, with what it says of itself and what was `measured` of it; the file."""
        config, curve = self.task.config, self.curve
        training = {
            "images_seen": self.step * config.batch, "seconds": round(self.seconds), "device": self.device,
            "loss": curve[:: max(1, len(curve) // 40)], **measured, "config": config.to_json(),
        }  # fmt: skip
        shape, range_ = list(self.task.images.shape[1:]), [-1, 1]
        told = {**self.task.describe(), "shape": shape, "range": range_, "classes": self.classes, "training": training}
        write(self.out / MODEL, self.task.ships(self.mean), told)
        return self.out / MODEL

    def run(self, every: int) -> Path:
        """Take the steps that are left, then measure the model and write it.

        Args:
            every: steps between lines of progress, at least 1.

        Raises:
            NumericalError: the loss is not finite.
            KeyboardInterrupt: the process was asked to stop; the checkpoint is written.
        """
        with stop_signals() as stopped:
            while self.step < self.steps and not stopped:
                began, first = time.perf_counter(), self.step
                line = self._steps(every, began + SECONDS_BETWEEN_CHECKPOINTS, stopped)
                spent = time.perf_counter() - began
                self.seconds += spent
                self.save()
                if line:
                    speed = self.task.config.batch * (self.step - first) / spent
                    print(f"{line}  {speed:.0f} images/s", flush=True)
                    self.write_model({})
        if self.step < self.steps:
            raise KeyboardInterrupt(f"stopped at step {self.step}; start again with {self.out} to resume")
        return self.write_model(self.task.judge(self.mean, self.device))

    def _steps(self, every: int, until: float, stopped: list[int]) -> str:
        """At least one step, up to the next report, the time `until` or a request to stop; the report or nothing."""
        while True:
            self.advance()
            if self.step % every == 0 or self.step == self.steps:
                return self.report()
            if stopped or time.perf_counter() >= until:
                return ""


def train(task: Task, out: str | Path, classes: list[str], every: int = 200, device: str = "cpu") -> Path:
    """Learn a task and write what ships, with what was measured of it, as a model of ours; its file.

    A checkpoint is written every minute, at the end, and when the process is asked to stop (SIGTERM, Ctrl-C).

    Args:
        task: the config, the pictures and the loss.
        out: a folder; `checkpoint.pt` there is resumed from, `model.safetensors` is the result.
        classes: the names of the classes.
        every: steps between lines of progress.
        device: "cpu", "cuda", "mps".

    Raises:
        ArgumentError: the data does not fit the network, or the checkpoint is of another run.
        WeightsError: the checkpoint cannot be read.
        NumericalError: the loss is not finite.
        KeyboardInterrupt: the process was asked to stop; the checkpoint is written.
    """
    return Trainer(task, Path(out), classes, device).run(every)
