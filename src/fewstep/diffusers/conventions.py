"""What a diffusers scheduler's config says about its model: the path, the prediction and the shift of its times.

With ᾱ_i = ∏_{j≤i}(1 − β_j) the noise levels of a discretely trained model are α = √ᾱ_i, σ = √(1 − ᾱ_i).  Two configs
change ᾱ: `snr_shift_scale` s (CogVideoX) and the rescaling to zero terminal SNR (Lin et al. 2024, "Common Diffusion
Noise Schedules and Sample Steps are Flawed"),

    ᾱ′ = ᾱ/(s + (1 − s)ᾱ),      √ᾱ′ = (√ᾱ − √ᾱ_N)·√ᾱ_1/(√ᾱ_1 − √ᾱ_N).

Flow models stand on α = 1 − t, σ = t, and a grid u in (0, 1] is moved by their shift s once:

    t = s·u/(1 + (s − 1)u),      s = `shift`, or e^μ ("exponential") or μ ("linear") with a μ that the pipeline gives.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, unknown
from fewstep.paths import VP, Flow, Path

PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
# ᾱ of the last level over that of the one before, after a rescaling to zero: a path's rates are below 1.
LEAST = 1e-8

REFUSED = {
    "thresholding": "dynamic thresholding takes a quantile of each answer, which no table of coefficients holds",
    "invert_sigmas": "its model counts time from noise to data",
    "sigma_data": "its network is preconditioned with sigma_data (EDM), which no prediction type of ours is",
}

UNMATCHED = {
    "EDMEuler": "its network is preconditioned with sigma_data (EDM)",
    "EDMDPMSolver": "its network is preconditioned with sigma_data (EDM)",
    "CosineDPMSolver": "its network is preconditioned with sigma_data",
    "CMStochastic": "a consistency model answers with samples, not with a denoiser's mean",
    "ScoreSde": "its noise levels are not those of any config key that we read",
    "KarrasVe": "its noise levels are not those of any config key that we read",
    "UnCLIP": "its noise levels are not in its config",
    "VQDiffusion": "it is discrete", "Amused": "it is discrete", "SCM": "its network predicts in TrigFlow's own basis",
    "TCD": "a trajectory consistency model is told two times",
    "IPNDM": "its noise levels are not in its config",
}  # fmt: skip


@dataclass(frozen=True)
class Convention:
    """How a pipeline's model was trained.

    Args:
        path: the path.
        predicts: "eps", "x0", "v" or "flow".
        levels: N, the number of training levels; what the network is told runs to N − 1, or to N for a flow.
        shift: the static shift of a flow's times; 1 leaves them.
        dynamic: "" or how μ becomes a shift: "exponential" or "linear".
        terminal: where the last time before 0 is stretched to; 0 leaves it.
        clip: the range ±clip that answers are clipped to; 0 leaves them.
        learned_variance: whether the answer has further channels with a variance, which are dropped.
    """

    path: Path
    predicts: str
    levels: int
    shift: float = 1.0
    dynamic: str = ""
    terminal: float = 0.0
    clip: float = 0.0
    learned_variance: bool = False

    @property
    def flows(self) -> bool:
        """Whether it is a flow model."""
        return isinstance(self.path, Flow)

    def shifted(self, times: Tensor, mu: float | None) -> Tensor:
        """A falling grid that ends at 0, moved by the model's shift.

        Args:
            times: float64 (steps + 1,).
            mu: what the pipeline worked out from the picture's size; needed where the shift is dynamic.
        """
        if not self.flows:
            return times
        shift = self.shift
        if self.dynamic:
            if mu is None:
                raise ArgumentError("this model's shift depends on the size of the picture: set_timesteps needs mu")
            shift = math.exp(mu) if self.dynamic == "exponential" else float(mu)
        moved = shift * times / (1 + (shift - 1) * times)
        if self.terminal and moved[-2] < 1:
            moved = 1 - (1 - moved) * (1 - self.terminal) / (1 - moved[-2])
            moved[-1] = 0.0
        return moved

    def told(self, t: Tensor) -> Tensor:
        """What the network is told at times t."""
        return t * self.levels if self.flows else self.path.model_time(t)

    def time(self, told: Tensor) -> Tensor:
        """The time at which the network is told so; the inverse of `told`."""
        told = told.double()
        low, high = (0, self.levels) if self.flows else (-1, self.levels - 1)
        if bool(((told < low) | (told > high) | told.isnan()).any()):
            raise ArgumentError(f"timesteps of this model lie in [{low}, {high}], got {told.flatten().tolist()[:8]}")
        return told / self.levels if self.flows else (told + 1) / self.levels

    def level(self, t: Tensor) -> Tensor:
        """The noise level as diffusers' `sigmas` have it: t of a flow, σ/α elsewhere."""
        return t if self.flows else self.path.sigma(t) / self.path.alpha(t)

    def time_of_level(self, sigma: Tensor) -> Tensor:
        """The time of a noise level; the inverse of `level`."""
        largest = float(self.level(torch.ones((), dtype=torch.float64)))
        if bool((sigma > largest * 1.001).any()):
            raise ArgumentError(f"this model was trained on noise levels up to {largest:.6g}, got {float(sigma.max())}")
        if self.flows:
            return sigma.clamp(max=1)
        times = self.path.t_of_lam(-sigma.clamp(1e-30, largest).log())
        return torch.where(sigma > 0, times, torch.zeros_like(times))


def marked(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A scheduler's config with what its class's name says: `use_flow_sigmas` where it is a flow's.

    Args:
        config: the config.
        name: the name of the scheduler's class, or "".

    Raises:
        ArgumentError: a class whose models cannot be matched, and why.
    """
    for start, why in UNMATCHED.items():
        if name.startswith(start):
            raise ArgumentError(f"the model of a {name} cannot be matched: {why}")
    flows = name.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction"
    if flows or ("shift" in config and "beta_schedule" not in config):
        return {**config, "use_flow_sigmas": True}
    return dict(config)


def convention(config: Mapping[str, Any]) -> Convention:
    """How the model of a scheduler's config was trained.

    Args:
        config: a diffusers scheduler's config; `use_flow_sigmas` marks a flow.

    Raises:
        ArgumentError: something in it that cannot be matched, and why.
    """
    for key, why in REFUSED.items():
        if config.get(key):
            raise ArgumentError(f"a scheduler with {key}={config[key]!r} cannot be matched: {why}")
    levels = config.get("num_train_timesteps") or 1000
    if not isinstance(levels, int) or isinstance(levels, bool) or levels < 1:
        raise ArgumentError(f"num_train_timesteps must be an integer of at least 1, got {levels!r}")
    flows = bool(config.get("use_flow_sigmas"))
    named = config.get("prediction_type") or ("flow_prediction" if flows else "epsilon")
    if named not in PREDICTS:
        raise unknown("prediction_type", named, PREDICTS)
    if flows:
        return _flow(config, PREDICTS[named], levels)
    path = VP.from_betas(_betas(config, levels))
    if config.get("rescale_betas_zero_snr") and named == "epsilon":
        raise ArgumentError("rescale_betas_zero_snr with prediction_type='epsilon': at α = 0 noise tells no data")
    return Convention(
        path, PREDICTS[named], levels,
        clip=float(config.get("clip_sample_range") or 1.0) if config.get("clip_sample") else 0.0,
        learned_variance=config.get("variance_type") in ("learned", "learned_range"),
    )  # fmt: skip


def _flow(config: Mapping[str, Any], predicts: str, levels: int) -> Convention:
    shift = config.get("flow_shift") or config.get("shift") or 1.0
    kind = config.get("time_shift_type") or "exponential"
    if kind not in ("exponential", "linear"):
        raise unknown("time_shift_type", kind, ["exponential", "linear"])
    if not isinstance(shift, (int, float)) or not 0 < shift < math.inf:
        raise ArgumentError(f"shift must be a positive number, got {shift!r}")
    # A config that keeps the prediction of a noise model beside use_flow_sigmas has never been trained so.
    return Convention(
        Flow(), "flow" if predicts == "eps" else predicts, levels, float(shift),
        kind if config.get("use_dynamic_shifting") else "", float(config.get("shift_terminal") or 0.0),
    )  # fmt: skip


def _betas(config: Mapping[str, Any], levels: int) -> Tensor:
    betas, scale = _plain_betas(config, levels), config.get("snr_shift_scale")
    if not ((betas > 0) & (betas < 1)).all():
        raise ArgumentError("the rates β of this config do not lie in (0, 1)")
    if scale is None and not config.get("rescale_betas_zero_snr"):
        return betas
    bar = (1 - betas).cumprod(0)
    if scale is not None:
        bar = bar / (scale + (1 - scale) * bar)
    if config.get("rescale_betas_zero_snr"):
        root = bar.sqrt()
        bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        bar[-1] = LEAST * bar[-2]
    return 1 - bar / torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])


def _plain_betas(config: Mapping[str, Any], levels: int) -> Tensor:
    given = config.get("trained_betas")
    if given is not None:
        betas = torch.as_tensor(given, dtype=torch.float64).flatten()
        if len(betas) != levels:
            raise ArgumentError(f"trained_betas has {len(betas)} rates for num_train_timesteps={levels}")
        return betas
    name = config.get("beta_schedule")
    if name is None:
        raise ArgumentError("this config names no beta_schedule and is no flow: its noise levels are not known")
    if name not in SCHEDULES:
        raise unknown("beta_schedule", name, SCHEDULES)
    if name == "squaredcos_cap_v2":
        path = VP.from_betas("cosine", levels)
        return torch.tensor(path.betas, dtype=torch.float64)
    first, last = config.get("beta_start"), config.get("beta_end")
    if not all(isinstance(v, (int, float)) and 0 < v < 1 for v in (first, last)):
        raise ArgumentError(f"beta_start and beta_end must lie in (0, 1), got {first!r} and {last!r}")
    assert first is not None
    assert last is not None
    if name == "linear":
        return torch.linspace(first, last, levels, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, levels, dtype=torch.float64) ** 2
    return torch.sigmoid(torch.linspace(-6, 6, levels, dtype=torch.float64)) * (last - first) + first
