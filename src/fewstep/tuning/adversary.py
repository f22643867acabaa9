"""A small discriminator that tells a plan's ends from the flow's: what an adversarial stage of tuning needs.

Relativistic, with gradient penalties on both sides (Huang et al. 2024, R3GAN): with D of a fake minus D of a real one,

    the discriminator's loss  softplus(Δ) + γ/2·(‖∇D(real)‖² + ‖∇D(fake)‖²),      the plan's loss  softplus(−Δ).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class Adversary:
    """A two-layer perceptron on flattened samples, trained as it is asked.

    Args:
        shape: of one sample.
        width: of its layers.
        penalty: γ.
        rate: of its Adam.
        seed: of its first weights.
    """

    def __init__(self, shape: tuple[int, ...], width: int, penalty: float, rate: float, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(math.prod(shape), width), nn.LeakyReLU(0.2), nn.Linear(width, width),
                nn.LeakyReLU(0.2), nn.Linear(width, 1),
            ).double()  # fmt: skip
        self.penalty = penalty
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=rate, betas=(0.0, 0.99))

    def learn(self, fake: Tensor, real: Tensor) -> float:
        """One step of the discriminator; its loss before it."""
        ends = [x.detach().double().requires_grad_() for x in (fake, real)]
        with torch.enable_grad():
            said = [self.net(x) for x in ends]
            slopes = [torch.autograd.grad(d.sum(), x, create_graph=True)[0] for d, x in zip(said, ends, strict=True)]
            steep = sum(slope.flatten(1).square().sum(1).mean() for slope in slopes)
            loss = softplus(said[0] - said[1]).mean() + self.penalty / 2 * steep
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def fools(self, fake: Tensor, real: Tensor) -> Tensor:
        """The plan's loss, with gradients to the fake ends alone."""
        self.net.requires_grad_(False)
        loss = softplus(self.net(real.detach().double()) - self.net(fake.double())).mean()
        self.net.requires_grad_(True)
        return loss
