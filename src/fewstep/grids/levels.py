"""A grid by its own list, in the units in which papers and tools write one.

sigma       σ̄ = σ/α, or σ itself on the straight path, as k-diffusion and ComfyUI have them; the clean end is 0
lam         λ = log α/σ; the clean end is ∞
timestep    k of a network that was trained on N levels: t = (k + 1)/N; the clean end follows by itself
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.errors import ArgumentError, unknown
from fewstep.paths import DiscreteVP, Flow, Path

UNITS = ("sigma", "lam", "timestep")
# N where the path does not say it.
TRAINED = 1000


@dataclass(frozen=True, eq=False)
class Levels:
    """A grid of given levels; `make_plan(path, solver, grid=Levels([14.6, 2.1, 0.4, 0.0]))`.

    Args:
        values: (steps + 1,), or (steps,) timesteps; from noise to data, strictly.
        unit: "sigma", "lam" or "timestep".

    Raises:
        ArgumentError: an unknown unit, or no list of numbers that go from noise to data.
    """

    values: Sequence[float] | Tensor
    unit: str = "sigma"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("unit", self.unit, UNITS)
        self._numbers()

    def _numbers(self) -> Tensor:
        """The list, float64 on the host."""
        try:
            values = torch.as_tensor(self.values, dtype=torch.float64).cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(f"levels must be a list of numbers, got {self.values!r}") from error
        rises = self.unit == "lam"
        right = values.ndim == 1 and len(values) > (self.unit != "timestep") and not bool(values.isnan().any())
        if right:
            steps = values.diff() * (1 if rises else -1)
            # ∞ is the clean end of λ and nothing else.
            ends = values[:-1].isfinite().all() and (values[-1].isfinite() or (rises and values[-1] > 0))
            right = bool((steps > 0).all()) and bool(ends) and (rises or bool(values[-1] >= 0))
        if not right:
            what = "rise strictly, ∞ at most at the end" if rises else "be finite, at least 0 and fall strictly"
            raise ArgumentError(f"levels in {self.unit!r} must {what}, got {values.tolist()}")
        return values

    def times(self, path: Path) -> Tensor:
        """float64 (steps + 1,), falling in [0, 1].

        Raises:
            ArgumentError: a level beyond those of the path.
        """
        values = self._numbers()
        if self.unit == "timestep":
            n = len(path.betas) if isinstance(path, DiscreteVP) else TRAINED
            if values[0] > n - 1:
                raise ArgumentError(f"timesteps of this path go from 0 to {n - 1}, got {float(values[0]):g}")
            return torch.cat([(values + 1) / n, torch.zeros(1, dtype=torch.float64)])
        one = torch.ones((), dtype=torch.float64)
        if self.unit == "sigma":
            top = float(path.sigma(one)) if isinstance(path, Flow) else float(path.sigma(one) / path.alpha(one))
            if values[0] > top * (1 + 1e-6):
                raise ArgumentError(f"sigmas of this path go up to {top:.6g}, got {float(values[0]):.6g}")
            if isinstance(path, Flow):
                return values
            clean, lam = values == 0, -values.clamp(1e-30, top).log()
        else:
            least = float(path.lam(one))
            if values[0] < least - 1e-6:
                raise ArgumentError(f"λ of this path begins at {least:.6g}, got {float(values[0]):.6g}")
            clean, lam = values.isinf(), values.clamp(min=least)
        times = path.t_of_lam(torch.where(clean, 0.0, lam)).clamp(max=1)
        return torch.where(clean, torch.zeros_like(times), times)
