"""DEIS: what its paper claims of extrapolating the noise in time."""

from functools import partial

import torch
from torch import Tensor

from claims import Measured, claim
from claims.worlds import flow_error
from fewstep import VP
from fewstep.paths import Path
from fewstep.solvers import solver_named

PAPER = "Fast Sampling of Diffusion Models with Exponential Integrator"


def quadratic(path: Path, steps: int, start: float = 1.0) -> Tensor:
    """The paper's grid: even in the root of time."""
    return torch.linspace(start**0.5, 0, steps + 1, dtype=torch.float64) ** 2


@claim(
    paper=PAPER,
    method="deis",
    says="At ten evaluations each further answer in the extrapolation helps, and in time it helps more than in σ/α.",
    figure="CIFAR-10 FID of tAB3 at 5, 10, 15 and 20 evaluations: 15.37, 4.17, 3.37 and 2.86",
)
def extrapolating_in_time_helps() -> Measured:
    at_ten = partial(flow_error, VP(), evaluations=10, grid=quadratic)
    ddim = at_ten("ddim")
    time = [at_ten(solver_named("deis", answers=n)) for n in (2, 3, 4)]
    rho = [at_ten(solver_named("deis-rho", answers=n)) for n in (2, 3, 4)]
    figure = (
        f"RMSE to the exact flow at 10 evaluations, 20 modes in 64 dimensions: DDIM {ddim:.4f}; "
        f"tAB1 to 3 {', '.join(f'{e:.4f}' for e in time)}; ρAB1 to 3 {', '.join(f'{e:.4f}' for e in rho)}"
    )
    falls = all(a > b for a, b in zip([ddim, *time], time, strict=False))
    return Measured(figure, falls and all(t < r for t, r in zip(time, rho, strict=True)))


@claim(
    paper=PAPER,
    method="ralston3",
    says="With more evaluations Runge–Kutta in σ/α overtakes the multistep methods.",
    figure="none that we could check",
)
def runge_kutta_overtakes() -> Measured:
    errors = {
        n: [flow_error(VP(), name, n, quadratic, 48) for name in ("deis", "ralston3", "rk4")] for n in (20, 40, 80)
    }
    told = "; ".join(f"{', '.join(f'{e:.5f}' for e in row)} at {n}" for n, row in errors.items())
    figure = f"RMSE to the exact flow, 20 modes in 64 dimensions, of tAB2, Ralston 3 and RK4: {told} evaluations"
    holds = min(errors[80][1:]) < errors[80][0]
    why = "" if holds else "With this grid three or four evaluations a step are not won back by 80 evaluations."
    return Measured(figure, holds, why)
