"""Energy-parameterised models: what a network predicts is the gradient of an energy, so that densities are known.

    E(x, t) = ½·‖f(x, t)‖²,      ε̂ = ∇ₓE,      log p_t(x) = −E(x, t)/σ(t) + a constant of t

f is any network from states to states.  It is trained as others are, by the squared error of ε̂, whose gradient goes
through a gradient; a Metropolis correction or a mixture then has the density that it needs (Du et al. 2023).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError


class EnergyParameterised(nn.Module):
    """A network that predicts the noise ("eps") as ∇ₓ½‖f‖²; an answer costs a gradient through f.

    Args:
        network: f(x, time, **cond) → the shape of x, with second derivatives where it is to be trained.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def energy(self, x: Tensor, time: Tensor, **cond: Any) -> Tensor:
        """E, (batch,)."""
        return 0.5 * self.network(x, time, **cond).flatten(1).square().sum(1)

    def forward(self, x: Tensor, time: Tensor, **cond: Any) -> Tensor:
        """ε̂, part of the graph of x and of the weights where gradients are enabled."""
        through = torch.is_grad_enabled()
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(at, time, **cond).sum(), at, create_graph=through)
        return slope


def log_prob_of(denoiser: Denoiser, cond: Mapping[str, Any] | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(x, t) → (batch,) up to a constant of t, as `Composition` takes it, of an energy-parameterised model.

    Args:
        denoiser: wrap(EnergyParameterised(f), path, "eps", …).
        cond: the conditions that it is told, one a sample or one for all.

    Raises:
        ArgumentError: another denoiser; at the call, a time without noise, where the density is not defined.
    """
    net: Any = getattr(denoiser, "net", None)
    if not isinstance(net, EnergyParameterised) or denoiser.predicts != "eps":
        raise ArgumentError(
            f'log_prob_of needs wrap(EnergyParameterised(f), path, "eps", …), got a network {type(net).__name__} that '
            f"predicts {denoiser.predicts!r}"
        )

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        sigma = denoiser.path.sigma(t)
        if not bool((sigma > 0).all()):
            raise ArgumentError("an energy-parameterised model has no density at a time without noise")
        weight = next(net.parameters(), x)
        told = denoiser.told(t).to(weight).reshape(-1).expand(len(x))
        return (-net.energy(x.to(weight), told, **(cond or {})) / sigma.reshape(-1).to(weight)).to(x.dtype)

    return log_prob
