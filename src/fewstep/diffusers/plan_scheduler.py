"""A plan as a diffusers scheduler: `pipe.scheduler = fewstep.diffusers.scheduler(pipe, solver="unipc")`.

The latents that the pipeline holds are register x (or the stage that is asked next); other registers stay in the run's
state, one a thread.  The model's answer becomes x̂₀ = A·x + C·answer by the prediction type of the pipeline's config.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import SchedulerMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fewstep.diffusers.asked_grid import asked_grid
from fewstep.diffusers.conventions import convention, marked
from fewstep.diffusers.run_state import RunState
from fewstep.diffusers.tables import Tables
from fewstep.errors import ArgumentError
from fewstep.plan import Plan


@dataclass
class StepOutput(BaseOutput):
    """The latents for the next evaluation, and x̂₀ of this one for previews."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class PlanScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Any plan of fewstep as the scheduler of a diffusers pipeline; made by `fewstep.diffusers.scheduler`.

    The first keys are ours; the rest are read as diffusers' own schedulers mean them.

    Args:
        solver: a name of the catalogue.
        grid: a grid's name, its times, or None for "trailing" (noise models) or "uniform" (flows).
        steps: the one number of steps that this scheduler takes, or None for any.
        plan: the text of a plan's file, instead of solver, grid and steps.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, num_train_timesteps: int = 1000, solver: str = "dpm-solver++", grid: str | list[float] | None = None,
        steps: int | None = None, plan: str | None = None, prediction_type: str | None = None,
        beta_start: float = 0.0001, beta_end: float = 0.02, beta_schedule: str | None = None,
        trained_betas: list[float] | None = None, rescale_betas_zero_snr: bool = False,
        snr_shift_scale: float | None = None, clip_sample: bool = False, clip_sample_range: float = 1.0,
        thresholding: bool = False, variance_type: str | None = None, use_flow_sigmas: bool = False,
        flow_shift: float | None = None, shift: float | None = None, use_dynamic_shifting: bool = False,
        base_shift: float | None = 0.5, max_shift: float | None = 1.15, base_image_seq_len: int | None = 256,
        max_image_seq_len: int | None = 4096, shift_terminal: float | None = None,
        time_shift_type: str = "exponential", invert_sigmas: bool = False, sigma_data: float | None = None,
    ) -> None:  # fmt: skip
        self._convention = convention(self.config)
        self._tables = Tables(self.config, self._convention)
        self._local = threading.local()

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """The scheduler for a config of ours or of another scheduler class.

        Raises:
            ArgumentError: something in the config that cannot be matched, and why.
        """
        kept: dict[str, Any] = {}
        if isinstance(config, Mapping):
            name = str(config.get("_class_name", ""))
            config = marked(config, name)
            read = cls._get_init_keys(cls)
            kept = {k: v for k, v in config.items() if k not in read and not k.startswith("_")}
            config = {k: v for k, v in config.items() if k in read}
        made = super().from_config(config, return_unused_kwargs, **kwargs)
        ours = made[0] if return_unused_kwargs else made
        # Keys of the old class that mean nothing here stay in the config: pipelines read some of them.
        ours.register_to_config(**{**kept, **{k: v for k, v in ours.config.items() if not k.startswith("_")}})
        return made

    @property
    def _run(self) -> RunState | None:
        return getattr(self._local, "run", None)

    def _running(self) -> RunState:
        if self._run is None:
            raise ArgumentError("call set_timesteps first; every thread has a run of its own")
        return self._run

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlanScheduler":
        twin: PlanScheduler = type(self).from_config(self.config)
        twin._tables = self._tables
        if self._run is not None:
            twin._local.run = self._run.copy()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {"config": dict(self.config)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(type(self).from_config(state["config"]).__dict__)

    def __len__(self) -> int:
        return self._convention.levels

    @property
    def timesteps(self) -> Tensor:
        """What the network is told, one entry an evaluation; all training levels before `set_timesteps`."""
        if self._run is None:
            return torch.arange(self._convention.levels - 1, -1, -1)
        return self._run.timesteps

    @property
    def sigmas(self) -> Tensor:
        """The noise level of every evaluation and at the end: t of a flow, σ/α elsewhere."""
        if self._run is None:
            return self._convention.level(self._convention.time(self.timesteps)).float()
        return self._run.table.sigmas

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ of the training levels, rising in noise."""
        if self._convention.flows:
            raise AttributeError("a flow model has no alphas_cumprod")
        levels = torch.arange(self._convention.levels)
        return (self._convention.path.alpha(self._convention.time(levels)) ** 2).float()

    @property
    def init_noise_sigma(self) -> float:
        """1: the factor of the noise that pipelines start from, as diffusers has it on these paths."""
        return 1.0

    @property
    def order(self) -> int:
        """Evaluations a step of the plan; 1 before `set_timesteps`."""
        return 1 if self._run is None else self._run.table.order

    @property
    def plan(self) -> Plan:
        """The plan of this thread's run."""
        return self._running().table.plan

    @property
    def begin_index(self) -> int | None:
        """The evaluation to begin at, if `set_begin_index` said."""
        return None if self._run is None else self._run.begin

    @property
    def step_index(self) -> int | None:
        """The evaluation that comes next, None before the first."""
        return None if self._run is None else self._run.position

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at this evaluation, as image-to-image does.

        Raises:
            ArgumentError: the run has begun, or the plan cannot begin there.
        """
        run = self._running()
        if run.position is not None:
            raise ArgumentError("the run has begun: call set_timesteps before set_begin_index")
        if begin_index not in run.table.starts:
            raise ArgumentError(f"this plan can begin at the evaluations {run.table.starts}, got {begin_index!r}")
        run.begin = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Begin a run in this thread.

        Args:
            num_inference_steps: the number of grid intervals.
            device: where the pipeline wants the timesteps.
            timesteps: the grid as the network is told its times, falling; 0 noise is appended.
            sigmas: the grid as noise levels, falling; linspace(1, 1/n, n), which flow pipelines pass, stands for n.
            mu: the resolution's shift, where the model has one.

        Raises:
            ArgumentError: none or several of the three, a number out of range, or another grid than the plan's own.
        """
        steps, grid = asked_grid(self._convention, num_inference_steps, timesteps, sigmas, mu)
        table = self._tables.table(steps, grid, mu if self._convention.dynamic else None)
        self._local.run = RunState(table, table.timesteps.to(device or "cpu"))

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The sample itself: the state is what the network sees."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
    ) -> StepOutput | tuple[Tensor, ...]:
        """Hear the network's answer; the latents of the next evaluation.

        Args:
            model_output: the answer, of the sample's shape (twice its channels if it holds a learned variance too).
            timestep: the timestep that the network was told, which must be the next of the run.
            sample: the latents that it was asked at.
            generator: what a stochastic plan draws from, one or one a sample; torch's own unless given.
            return_dict: whether to answer with an object and not with a tuple.
            eta, use_clipped_model_output: what pipelines made for DDIM pass; the plan has its own noise, so only their
                defaults are taken.

        Raises:
            ArgumentError: no run, a run that is over, another timestep's turn, or an answer of another shape; an eta.
            NumericalError: at the end of the run, that an answer held NaN or Inf, and which was the first.
        """
        if eta or use_clipped_model_output:
            raise ArgumentError(
                f"the plan says what noise is drawn (solver='ddpm' draws DDIM's of eta 1); leave eta={eta!r} and "
                f"use_clipped_model_output={use_clipped_model_output!r} out"
            )
        run = self._running()
        entry = run.expect(timestep)
        known = self._convention
        if known.learned_variance and model_output.ndim > 1 and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]
        run.refuse_misfits(model_output, sample, generator)
        half = sample.element_size() < 4
        x, raw = (sample.float(), model_output.float()) if half else (sample, model_output.to(sample.dtype))
        run.sums.append(raw.sum())
        x0 = raw if known.predicts == "x0" else torch.add(x * entry.on_x, raw, alpha=entry.on_raw)
        if known.clip:
            x0 = x0.clamp(-known.clip, known.clip)

        def noise(like: Tensor) -> Tensor:
            return randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)

        out = run.take(entry, x, x0, noise).to(sample.dtype)
        x0 = x0.to(sample.dtype)
        return StepOutput(prev_sample=out, pred_original_sample=x0) if return_dict else (out, x0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """α·x₀ + σ·ε at what the network is told.

        Args:
            original_samples, noise: x₀ and ε, (batch, …).
            timesteps: one for all or one a sample.
        """
        t = self._convention.time(torch.as_tensor(timesteps).cpu())
        shape = (-1, *[1] * (original_samples.ndim - 1)) if t.ndim else ()
        alpha, sigma = (
            f(t).reshape(shape).to(original_samples.device, original_samples.dtype)
            for f in (self._convention.path.alpha, self._convention.path.sigma)
        )
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` under the name and in the order that flow pipelines use."""
        return self.add_noise(sample, noise, timestep)


PlanScheduler.__module__ = "fewstep.diffusers"
