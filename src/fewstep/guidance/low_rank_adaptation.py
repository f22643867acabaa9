"""Low-rank adaptation: a network's copy that differs from it by few numbers.

    W′ = W + s·B·A,      A (rank × inputs) drawn, B (outputs × rank) begun at 0

for every linear map and convolution, and free biases and normalisation weights.  The network itself is never changed,
and copies of it share its weights.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.errors import ArgumentError


class LowRankAdapted(nn.Module):
    """A frozen network with trainable low-rank additions; at first it answers as the network does.

    Args:
        network: the network, used in evaluation mode.
        rank: of the additions, at least 1.
        scale: s; 0.5 is the authors' 8 of rank 16.
        seed: what A is drawn from.

    Raises:
        ArgumentError: the network has neither linear maps nor convolutions, or the rank is less than 1.
    """

    def __init__(self, network: nn.Module, rank: int = 16, scale: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if rank < 1:
            raise ArgumentError(f"rank must be at least 1, got {rank}")
        self.scale, self.whole = scale, (network,)  # in a tuple, so that its weights are not counted as ours
        generator = torch.Generator().manual_seed(seed)
        maps = [name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
        if not maps:
            raise ArgumentError(f"{type(network).__name__} has neither linear maps nor convolutions to adapt")
        self.maps = [f"{name}.weight" if name else "weight" for name in maps]
        self.free = [name for name, p in network.named_parameters() if p.ndim == 1]
        for name, value in network.named_parameters():
            if name in self.free:
                self._own(name, "free", value.detach().clone())
            elif name in self.maps:
                out, inputs = len(value), value[0].numel()
                drawn = torch.randn(min(rank, out, inputs), inputs, generator=generator) / math.sqrt(inputs)
                self._own(name, "a", drawn.to(value.device, value.dtype))
                self._own(name, "b", value.new_zeros(out, len(drawn)))

    def _own(self, name: str, part: str, value: Tensor) -> None:
        self.register_parameter(f"{name.replace('.', '/')}:{part}", nn.Parameter(value))

    def _part(self, name: str, part: str) -> Tensor:
        return self.get_parameter(f"{name.replace('.', '/')}:{part}")

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        """What the network answers with the changed weights; x is taken to its dtype."""
        (network,) = self.whole
        weights = {name: self._part(name, "free") for name in self.free}
        for name in self.maps:
            plain = network.get_parameter(name).detach()
            added = self._part(name, "b") @ self._part(name, "a")
            weights[name] = plain + self.scale * added.reshape(plain.shape)
        training = network.training
        network.eval()
        try:
            return functional_call(network, weights, (x.to(next(iter(weights.values())).dtype), *more))
        finally:
            network.train(training)
