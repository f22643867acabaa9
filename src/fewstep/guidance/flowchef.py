"""FlowChef: steering by a loss on x̂₀ whose gradient skips the network.

    g = ∇L(x̂₀) at x̂₀,  x̂₀ ← x̂₀ − s·g,  N times;      x ← x + the sum of −s·g, carried to the step's end

On the flow path the velocity stays, so x̂₀ = x − t·v moves as x does and the step carries the change along unchanged; on
others ε̂ stays, so x moves by α·δx̂₀ and reaches the step's end α′·δx̂₀ further.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.guidance.base import Ask, Guide, coefficient
from fewstep.guidance.gradient import gradient
from fewstep.paths import Flow


@method(
    name="flowchef",
    papers=["Steering Rectified Flow Models in the Vector Field for Controlled Image Generation"],
    family="guidance",
    arxiv="2412.00100",
)
@dataclass(frozen=True)
class FlowChef(Guide):
    """FlowChef (Patel et al. 2025): no gradient through the network and no further evaluation.

    Args:
        loss: loss(x̂₀) → (batch,), differentiable: ‖A·x̂₀ − y‖² for an inverse problem, −log p(c | x̂₀) for a class,
            ‖(x̂₀ − x_ref)·mask‖² for an edit.  Losses that are sums ask for another step size than means.
        size: s, the step size; 0 leaves the state as it is.
        rounds: N, gradient steps a sampling step, at least 1.
        last: whether the last step is steered too; the paper leaves it out.

    Raises:
        ArgumentError: fewer than one round; at the run, a loss of another shape or without a gradient.
    """

    level: ClassVar[str] = "state"
    loss: Callable[[Tensor], Tensor]
    size: float = 0.05
    rounds: int = 1
    last: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ArgumentError(f"rounds must be at least 1, got {self.rounds}")

    def needs_order(self) -> bool:
        return self.size != 0 and not self.last

    def move(self, ask: Ask, x: Tensor, state: Any) -> tuple[Tensor, Any, bool]:
        # A step that asked nothing, such as a jump up, has no new answer to steer by.
        if self.size == 0 or ask.x0 is None or (ask.index == ask.of - 1 and not self.last):
            return x, state, False
        believed = ask.x0
        for _ in range(self.rounds):
            believed = believed - self.size * gradient(self.loss, believed, "loss", ask.differentiated)
        change = believed - ask.x0
        carried = 1.0 if isinstance(ask.path, Flow) else coefficient(ask.path.alpha(torch.as_tensor(ask.t)), x)
        return x + carried * change, state, False
