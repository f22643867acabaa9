"""Contrastive energy prediction: exact guidance by an energy E of the clean sample, learnt at every level of noise.

    target     p*(x₀) ∝ q(x₀)·e^{−β·E(x₀)},      f(x, t) = −E_t(x) = log E[e^{−β·E(x₀)} | x_t = x]
    guide      x̂₀′ = x̂₀ + s·(σ²/α)·∇ₓ f(x, t)

and f is found, up to a constant of each t, by classifying which of K noisy samples of one time deserves how much:

    contrastive    −Σᵢ softmaxᵢ(−β·Eᵢ)·log softmaxᵢ f(x_tⁱ, t)         the exact f, as K grows
    mse            mean (f + β·E)²                                       f = −β·E[E | x_t]: another function
    exponential    mean (e^f − K·softmaxᵢ(−β·Eᵢ))²                     the exact f, but the heaviest samples decide

With s = 1 and the exact f the samples follow p* exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.guidance.base import Ask, Guide
from fewstep.guidance.classifier_guidance import ClassifierGuidance
from fewstep.guidance.gradient import Interval, checked_interval

LOSSES = ("contrastive", "mse", "exponential")
# The authors' bound of the exponential regression's output, beyond which it cannot be trained.
HIGHEST = 4.0


@method(
    name="contrastive-energy",
    papers=[
        "Contrastive Energy Prediction for Exact Energy-Guided Diffusion Sampling in Offline Reinforcement Learning"
    ],
    family="guidance",
    arxiv="2304.12824",
)
@dataclass(frozen=True)
class ContrastiveEnergy(Guide):
    """Energy guidance by a learnt intermediate energy (Lu et al. 2023); one evaluation a step, none differentiated.

    Args:
        value: value(x, t, **told) → (batch,), f = −E_t up to a constant; `train_energy` finds one.
        scale: s; 1 is exact, 0 leaves the answer as it is.
        told: the names of the run's conditions that `value` is told too, such as the state of a policy.
        interval: (low, high), the times of guidance, as in `ClassifierGuidance`.

    Raises:
        ArgumentError: an interval that is not 0 ≤ low < high ≤ 1; at the run, a condition that it does not have.
    """

    level: ClassVar[str] = "answer"
    value: Callable[..., Tensor]
    scale: float = 1.0
    told: tuple[str, ...] = ()
    interval: Interval = None

    def __post_init__(self) -> None:
        checked_interval(self.interval)

    def answer(self, ask: Ask, x0: Tensor, state: Any) -> tuple[Tensor, Any]:
        for name in self.told:
            if name not in ask.cond:
                raise unknown("condition of the run", name, sorted(ask.cond))
        told = {name: ask.cond[name] for name in self.told}
        return ClassifierGuidance(lambda x, t: self.value(x, t, **told), self.scale, self.interval).answer(
            ask, x0, state
        )


def energy_loss(values: Tensor, logs: Tensor, kind: str = "contrastive") -> Tensor:
    """The loss of predicted values of noisy samples, a number: the mean over groups.

    Args:
        values: f(x_t), (groups, K); a group shares its time, and its condition if there is one.
        logs: −β·E(x₀) of the same samples, (groups, K).
        kind: "contrastive", "mse" or "exponential".

    Raises:
        ArgumentError: an unknown kind, shapes that differ, or groups of fewer than two, which tell nothing.
    """
    if kind not in LOSSES:
        raise unknown("loss of an energy", kind, LOSSES)
    if values.ndim != 2 or values.shape != logs.shape or values.shape[1] < 2:
        raise ArgumentError(
            f"values and logs must both be (groups, K) with K at least 2, got {tuple(values.shape)} and "
            f"{tuple(logs.shape)}"
        )
    if kind == "mse":
        return (values - logs).square().mean()
    share = logs.softmax(1)
    if kind == "contrastive":
        return -(share * values.log_softmax(1)).sum(1).mean()
    return (values.clamp(max=HIGHEST).exp() - share * share.shape[1]).square().mean()
