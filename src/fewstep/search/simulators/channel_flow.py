"""Flow through a channel with obstacles: fluid dynamics, a black box.

A lattice Boltzmann method on nine velocities with one relaxation time τ,

    f_i(x + e_i, t + 1) = f_i − (f_i − f_i^eq)/τ + 3·w_i·ρ·(e_i·F),      ν = (τ − ½)/3,

driven by a force F along the channel, periodic along it, walls above and below; a design is solid where it is more
than 0, and solids send what meets them back.  The threshold has no slope, so no gradient leads through.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.search.particles import count, number

VELOCITIES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))  # (row, column)
BACK = (0, 2, 1, 4, 3, 6, 5, 8, 7)
SHARES = (4 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 9, 1 / 36, 1 / 36, 1 / 36, 1 / 36)


@dataclass(frozen=True)
class ChannelFlow:
    """The flow that a design leaves.

    Args:
        length: columns of the channel, at least the design's width; the design stands at its left end.
        steps: of time, at least 1.
        force: F > 0, small beside ν², in lattice units.
        relaxation: τ > ½.
    """

    length: int = 24
    steps: int = 200
    force: float = 1e-4
    relaxation: float = 0.8

    def __post_init__(self) -> None:
        count("length", self.length)
        count("steps", self.steps)
        number("force", self.force, open_=True)
        number("relaxation", self.relaxation, 0.5, open_=True)

    @property
    def viscosity(self) -> float:
        """ν."""
        return (self.relaxation - 0.5) / 3

    def __call__(self, design: Tensor) -> Tensor:
        """The velocity along the channel, (batch, height, length), of designs (batch, 1, height, width)."""
        if design.ndim != 4 or design.shape[1] != 1 or design.shape[3] > self.length:
            raise ArgumentError(
                f"a design must be (batch, 1, height, width), width at most {self.length}; got {tuple(design.shape)}"
            )
        solid = self._solid(design.detach())
        shares = torch.tensor(SHARES, dtype=torch.float32, device=design.device)
        f = shares[:, None, None, None].expand(9, *solid.shape).clone()
        push = 3 * shares * torch.tensor([float(e[1]) for e in VELOCITIES], device=design.device) * self.force
        for _ in range(self.steps):
            density, up, along = self._moments(f)
            met = f + (self._equilibrium(density, up, along, shares) - f) / self.relaxation
            # What is inside a solid is on its way back, and meets nobody there.
            f = torch.where(solid, f, met + push[:, None, None, None] * density)
            f = torch.stack([torch.roll(f[i], VELOCITIES[i], (1, 2)) for i in range(9)])
            f = torch.where(solid, f[list(BACK)], f)
        return self._moments(f)[2].masked_fill(solid, 0.0)[:, 1:-1]

    def _solid(self, design: Tensor) -> Tensor:
        """Where walls and obstacles stand, (batch, height + 2, length)."""
        count, _, height, width = design.shape
        solid = torch.zeros(count, height + 2, self.length, dtype=torch.bool, device=design.device)
        solid[:, 1:-1, :width] = design[:, 0] > 0
        solid[:, 0], solid[:, -1] = True, True
        return solid

    def _moments(self, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Density and velocity."""
        density = f.sum(0)
        up = f[3] + f[5] + f[7] - f[4] - f[6] - f[8]
        along = f[1] + f[5] + f[8] - f[2] - f[6] - f[7]
        return density, up / density, along / density

    def _equilibrium(self, density: Tensor, up: Tensor, along: Tensor, shares: Tensor) -> Tensor:
        square = 1.5 * (up.square() + along.square())
        parts = []
        for i, (row, column) in enumerate(VELOCITIES):
            towards = 3 * (row * up + column * along)
            parts.append(shares[i] * density * (1 + towards + 0.5 * towards.square() - square))
        return torch.stack(parts)
