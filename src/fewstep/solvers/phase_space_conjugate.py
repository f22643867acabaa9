"""The conjugate integrator of phase space: the exact flow of position and momentum while the answer stands still.

With x̂₀ held, z̃ = z − μ·x̂₀ obeys the linear equation z̃′ = (F + ½GGᵀΣ⁻¹)z̃ in the clock b of `paths.phase_space`, which
keeps Σ.  In the coordinates u = L⁻¹z̃, Σ = LLᵀ with L lower triangular, it is nothing but a turn (Pandey, Rudolph &
Mandt 2024, with B = 0 in the coordinates of the answer x̂₀; DDIM of a pair), so a step from b back to b′ is

    z ← μ′·x̂₀ + L′·R(θ′ − θ)·L⁻¹·(z − μ·x̂₀),      dθ/db = (L₁₁/M − Γ·L₁₀/(L₀₀L₁₁))/(2L₀₀),

R(θ) = ((cos θ, sin θ), (−sin θ, cos θ)).  Unlike a splitting it lands on its path exactly, whatever the step.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError
from fewstep.paths import Path
from fewstep.paths.phase_space import PhaseSpace
from fewstep.plan import Builder, Plan

NODES = 64


@method(
    name="phase-space-conjugate", papers=["Efficient Integrators for Diffusion Generative Models"],
    arxiv="2310.07894", family="solvers",
)  # fmt: skip
@dataclass(frozen=True)
class PhaseSpaceConjugate:
    """The flow of position and momentum, exact while the answer stands still: DDIM in phase space.

    Args:
        friction, momentum_friction, start: of `PhaseSpace`.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    friction: float = 0.01
    momentum_friction: float = 4.01
    start: float = 0.04

    def __post_init__(self) -> None:
        self._space()

    def _space(self) -> PhaseSpace:
        return PhaseSpace(self.friction, self.momentum_friction, self.start)

    @property
    def order(self) -> int:
        """The order in which its distribution converges."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise; it does once, for the momentum at the start."""
        return True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1,).

        Raises:
            ArgumentError: times with a place of their own, which a pair of position and momentum cannot follow.
        """
        if times.ndim != 1:
            raise ArgumentError(f"phase space needs one time for all, got times of shape {tuple(times.shape)}")
        times, space = times.detach(), self._space()
        cleans = float(path.sigma(times[-1])) == 0
        inner = times[:-1] if cleans else times
        b = space.b_of_lam(path.lam(inner))
        kernel, root = space.kernel(b), torch.linalg.cholesky(space.covariance(b))
        sigma = path.sigma(inner)[:, None]
        seen, turn = sigma * kernel.seen, _turns(space, b)
        flow = root[1:] @ turn @ torch.linalg.inv(root[:-1])
        on_answer = kernel.mean[1:] - (flow @ kernel.mean[:-1, :, None])[..., 0]
        # The row that opens the pair stands still.
        builder = Builder(torch.cat([times[:1], times]), ("x", "position", "momentum"))
        opening, moves = range(1), range(1, len(b))
        sources: list[tuple[str | int, Tensor, range]] = [
            ("x", kernel.mean[:1] / kernel.worth[:1, None] / sigma[:1], opening),
            ("noise", kernel.rest[:1], opening),
            ("position", flow[:, :, 0], moves),
            ("momentum", flow[:, :, 1], moves),
            (0, on_answer, moves),
        ]
        for source_name, pair, rows in sources:
            after = seen[:1] if rows is opening else seen[1:]
            for to, value in (("position", pair[:, 0]), ("momentum", pair[:, 1]), ("x", (after * pair).sum(-1))):
                builder.add(to, source_name, value, rows)
        builder.ask("x", steps=range(1, builder.steps))
        if cleans:
            builder.add("x", 0, 1.0, range(builder.steps - 1, builder.steps))
        deviates = "" if float(path.lam(times[0])) > -11 else "a start of pure noise is opened as one of λ = −12"
        return Plan.build(path, builder, source={**asdict(self), **(source or {})}, deviates=deviates)


def _turns(space: PhaseSpace, b: Tensor) -> Tensor:
    """R(θ′ − θ) of every step, (steps, 2, 2), by Gauss and Legendre in log b."""
    x, w = (torch.from_numpy(v)[:, None] for v in leggauss(NODES))
    middle, half = (b[1:] * b[:-1]).log() / 2, (b[1:] / b[:-1]).log() / 2
    at = (middle + half * x).exp()
    root = torch.linalg.cholesky(space.covariance(at))
    first, across, second = root[..., 0, 0], root[..., 1, 0], root[..., 1, 1]
    rate = (second / space.mass - space.friction * across / (first * second)) / (2 * first)
    angle = (w * rate * at).sum(0) * half
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], -2)
