"""Integrators in phase space: position and momentum are moved in turns (Pandey, Rudolph & Mandt 2024).

The state is lifted to the pair z = (x, m) of `paths.phase_space`, whose score s = −Σ⁻¹(z − μ·x̂₀) an ordinary denoiser
knows.  Registers hold the pair as what the denoiser sees of it, "x", and what it leaves open, "unseen", which is drawn
from N(0, 1) at the start.  Back over h = b − b′ the probability flow is split into X and P, and the reverse equation
into A, B and O,

    X   x ← x + ½h(Γx − m/M + Γs_x)                    P   m ← m + ½h(x + νm + Mν·s_m)
    A   x ← x + ½h(2Γx − m/M + 2Γs_x)                  B   m ← m + ½h(x + 2νm + 2Mν·s_m)
    O   x ← e^{−hΓ/2}x + √(1 − e^{−λ_s hΓ})ξ,          m ← e^{−hν/2}m + √M·√(1 − e^{−hν})ξ′

Euler–Maruyama, E, moves both at once, by ½h(Γx − m/M + 2Γs_x) and ½h(x + νm + 2Mν·s_m), and draws √(hΓ)ξ, √(hMν)ξ′.
The conjugate integrator, C, is the whole flow while the answer stands still (the paper's with B = 0 in the coordinates
of x̂₀): in u = L⁻¹(z − μ·x̂₀), Σ = LLᵀ with L lower triangular, the flow is nothing but a turn, so

    C   z ← μ′·x̂₀ + L′·R(θ′ − θ)·L⁻¹·(z − μ·x̂₀),      dθ/db = (L₁₁/M − Γ·L₁₀/(L₀₀L₁₁))/(2L₀₀),

R(θ) = ((cos θ, sin θ), (−sin θ, cos θ)): DDIM in phase space, on its path exactly whatever the step.

"Naive" asks anew before each part, at the time where the step begins; "reduced" uses one answer for several parts, and
asks at the new time for the last half of velocity Verlet: 1 evaluation a step for symplectic Euler and OBA, 2 for
velocity Verlet, where naive needs 2 and 3.  An O shares the row before it, and the first has a row of its own; the step
to clean data takes x̂₀.

All but C are explicit: they need steps of at most about 1 of the clock b, which is about 11 at λ = −5 and 1.4 at λ = 0.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.errors import ArgumentError, unknown
from fewstep.paths import Path
from fewstep.paths.phase_space import LEAST, Kernel, PhaseSpace
from fewstep.plan import Builder, Plan
from fewstep.solvers.gauss_legendre import gauss_legendre

# A pair in the making is (2, 5): the factors of these in the position and in the momentum.
SOURCES: tuple[str | int, ...] = ("x", "unseen", 0, "noise", "noise1")
NODES = 64


@dataclass(frozen=True)
class Scheme:
    """What one step does: for each evaluation, the parts (letter, share of the step) that follow it.

    Args:
        rows: the parts after each evaluation.
        late: whether the last evaluation is asked at the time where the step ends.
        opens: whether the step begins with O, before its first evaluation.
    """

    rows: tuple[tuple[tuple[str, float], ...], ...]
    late: bool = False
    opens: bool = False


HALF = (("P", 0.5),)
SCHEMES = {
    "euler-maruyama": Scheme(((("E", 1.0),),)),
    "naive-symplectic-euler": Scheme(((("X", 1.0),), (("P", 1.0),))),
    "symplectic-euler": Scheme(((("X", 1.0), ("P", 1.0)),)),
    "naive-velocity-verlet": Scheme((HALF, (("X", 1.0),), HALF)),
    "velocity-verlet": Scheme(((*HALF, ("X", 1.0)), HALF), late=True),
    "naive-oba": Scheme(((("B", 1.0),), (("A", 1.0),)), opens=True),
    "oba": Scheme(((("B", 1.0), ("A", 1.0)),), opens=True),
    "conjugate": Scheme(((("C", 1.0),),)),
}


@method(
    name="phase-space-euler", papers=["Efficient Integrators for Diffusion Generative Models"], arxiv="2310.07894",
    family="solvers", scheme="symplectic-euler",
    summary="Position and momentum by the reduced symplectic Euler splitting of the flow in phase space, 1 evaluation.",
)  # fmt: skip
@method(
    name="phase-space-oba", papers=["Efficient Integrators for Diffusion Generative Models"], arxiv="2310.07894",
    family="solvers", scheme="oba",
    summary="Position and momentum by the reduced OBA splitting of the reverse equation in phase space, 1 evaluation.",
)  # fmt: skip
@method(
    name="phase-space-conjugate", papers=["Efficient Integrators for Diffusion Generative Models"], arxiv="2310.07894",
    family="solvers", scheme="conjugate",
    summary="The flow of position and momentum, exact while the answer stands still: DDIM in phase space.",
)  # fmt: skip
@dataclass(frozen=True)
class PhaseSpaceIntegrator:
    """An integrator of the phase-space diffusion.

    Args:
        scheme: one of SCHEMES, reduced unless it says naive.
        position_noise: λ_s ≥ 0, how fast O draws noise for the position; 1 keeps its variance.
        friction, momentum_friction, start: of `PhaseSpace`.

    Raises:
        ArgumentError: an unknown scheme, or a parameter out of its range.
    """

    scheme: str = "oba"
    position_noise: float = 1.0
    friction: float = 0.01
    momentum_friction: float = 4.01
    start: float = 0.04

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise unknown("scheme", self.scheme, SCHEMES)
        if not self.position_noise >= 0:
            raise ArgumentError(f"position_noise must be at least 0, got {self.position_noise!r}")
        self._space()

    def _space(self) -> PhaseSpace:
        return PhaseSpace(self.friction, self.momentum_friction, self.start)

    @property
    def order(self) -> int:
        """The order in which its distribution converges."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise; all do, as what the state leaves open is drawn at the start."""
        return True

    def __call__(self, path: Path, times: Tensor, source: dict[str, Any] | None = None) -> Plan:
        """The plan on the grid `times`, float64 (steps + 1,).

        Raises:
            ArgumentError: times with a place of their own, which a pair of position and momentum cannot follow.
        """
        if times.ndim != 1:
            raise ArgumentError(f"phase space needs one time for all, got times of shape {tuple(times.shape)}")
        writer = _Writer(path, times.detach(), self._space(), SCHEMES[self.scheme], self.position_noise)
        source = {**asdict(self), **(source or {})}
        return Plan.build(path, writer.write(), source=source, deviates=self._deviates(float(path.lam(times[0]))))

    def _deviates(self, lam: float) -> str:
        if self.scheme != "conjugate":
            return "position and momentum are integrated numerically, so that x lands near its path and not on it"
        return "" if lam > LEAST + 1 else f"a start of pure noise is opened as one of λ = {LEAST:.0f}"


class _Writer:
    """Writes the rows of a plan: an opening, the evaluations of each step, and one to clean data."""

    def __init__(self, path: Path, times: Tensor, space: PhaseSpace, scheme: Scheme, position_noise: float) -> None:
        self.path, self.times, self.space, self.scheme = path, times, space, scheme
        self.position_noise = position_noise
        self.cleans = float(path.sigma(times[-1])) == 0
        inner = times[:-1] if self.cleans else times
        self.b = space.b_of_lam(path.lam(inner))
        self.kernels, self.sigma, self.h = [space.kernel(v) for v in self.b], path.sigma(inner), -self.b.diff()
        self.frames = torch.stack([kernel.frame for kernel in self.kernels])
        self.frames[..., 0] /= self.sigma[:, None]

    def write(self) -> Builder:
        """The table."""
        steps, per = len(self.h), len(self.scheme.rows)
        # Rows before the last of a step stand at its first time; with a late question the last one stands too.
        ends = [
            i + (row == per - 1 or (self.scheme.late and row == per - 2)) for i in range(steps) for row in range(per)
        ]
        opening = 2 if self.scheme.opens and steps else 1
        inner = self.times[torch.tensor([0] * (1 + opening) + ends)]
        builder = Builder(torch.cat([inner, self.times[-1:]]) if self.cleans else inner, ("x", "unseen"))
        builder.add("unseen", "noise", 1.0, range(1))
        if opening == 2:
            self._put(builder, 1, self._ornstein(0, self._pair(0)), 0)
        for step in range(steps):
            for row in range(per):
                number = step * per + row
                at, before = opening + number, ends[number - 1] if number else 0
                builder.ask("x", steps=range(at, at + 1))
                self._put(builder, at, self._row(step, row, self._pair(before)), ends[number])
        if self.cleans:
            last = range(builder.steps - 1, builder.steps)
            builder.ask("x", steps=last)
            builder.add("x", 0, 1.0, last)
        return builder

    def _pair(self, at: int) -> Tensor:
        """The pair as the registers hold it at time number `at`."""
        return torch.cat([self.frames[at], torch.zeros(2, 3, dtype=torch.float64)], 1)

    def _put(self, builder: Builder, row: int, pair: Tensor, at: int) -> None:
        """The pair as the registers hold it at time number `at`, as row `row` of the table."""
        for to, factors in zip(("x", "unseen"), torch.linalg.solve(self.frames[at], pair), strict=True):
            for source, value in zip(SOURCES, factors, strict=True):
                builder.add(to, source, value, range(row, row + 1))

    def _ornstein(self, step: int, pair: Tensor) -> Tensor:
        """The pair after O of step number `step`."""
        rates = torch.tensor([self.space.friction, self.space.momentum_friction], dtype=torch.float64)
        shrink = torch.exp(-rates * self.h[step] / 2)
        fresh = rates * torch.tensor([self.position_noise, 1.0], dtype=torch.float64)
        spread = torch.tensor([1.0, self.space.mass], dtype=torch.float64)
        drawn = (-torch.expm1(-fresh * self.h[step]) * spread).sqrt()
        pair = shrink[:, None] * pair
        pair[:, 3:] += torch.diag(drawn)
        return pair

    def _row(self, step: int, row: int, pair: Tensor) -> Tensor:
        """The pair after the parts that follow evaluation number `row` of a step."""
        late = self.scheme.late and row == len(self.scheme.rows) - 1
        score = -self.kernels[step + late].inverse @ _off(self.kernels[step + late], pair)
        for letter, share in self.scheme.rows[row]:
            if letter == "C":
                pair = self._conjugate(step, pair)
            else:
                pair = self._part(letter, share * self.h[step], pair, score)
        if row == len(self.scheme.rows) - 1 and self.scheme.opens and step + 1 < len(self.h):
            return self._ornstein(step + 1, pair)
        return pair

    def _conjugate(self, step: int, pair: Tensor) -> Tensor:
        """C over step number `step`."""
        ends = self.b[step : step + 2]
        before, after = torch.linalg.cholesky(self.space.covariance(ends))
        off = torch.linalg.solve_triangular(before, _off(self.kernels[step], pair), upper=False)
        pair = after @ _turn(self.space, ends) @ off
        pair[:, 2] += self.kernels[step + 1].mean
        return pair

    def _part(self, letter: str, h: Tensor, pair: Tensor, score: Tensor) -> Tensor:
        """X, P, A, B or E over h of the clock."""
        space, mass = self.space, self.space.mass
        # Of x and m O has taken a share already, which A and B give back.
        own, told = {"X": (1, 1), "P": (1, 1), "E": (1, 2)}.get(letter, (2, 2))
        position = space.friction * (own * pair[0] + told * score[0]) - pair[1] / mass
        momentum = pair[0] + space.momentum_friction * (own * pair[1] + told * mass * score[1])
        still = torch.zeros_like(position)
        rates = {"X": (position, still), "A": (position, still), "P": (still, momentum), "B": (still, momentum)}
        pair = pair + h / 2 * torch.stack(rates.get(letter, (position, momentum)))
        if letter == "E":
            pair[:, 3:] += torch.diag(
                (h * torch.tensor([space.friction, mass * space.momentum_friction], dtype=torch.float64)).sqrt()
            )
        return pair


def _off(kernel: Kernel, pair: Tensor) -> Tensor:
    """z − μ·x̂₀ as factors of SOURCES."""
    off = pair.clone()
    off[:, 2] -= kernel.mean
    return off


def _turn(space: PhaseSpace, ends: Tensor) -> Tensor:
    """R(θ′ − θ) from b to b′, (2, 2), by Gauss and Legendre in log b."""
    x, w = gauss_legendre(NODES)
    middle, half = ends.log().mean(), (ends[1] / ends[0]).log() / 2
    at = (middle + half * x).exp()
    root = torch.linalg.cholesky(space.covariance(at))
    first, across, second = root[..., 0, 0], root[..., 1, 0], root[..., 1, 1]
    rate = (second / space.mass - space.friction * across / (first * second)) / (2 * first)
    angle = (w * rate * at).sum() * half
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, s]), torch.stack([-s, c])])
