"""ER-SDE-Solvers: what their paper claims of noise and few steps."""

import torch

from claims import Measured, claim
from claims.worlds import twenty_modes
from fewstep import VE, VP, make_plan
from fewstep.analysis import gaussian_w2
from fewstep.solvers.extended_reverse_sde import ExtendedReverseSDE

PAPER = "Elucidating the solution space of extended reverse-time SDE for diffusion models"


def _error(path: VP | VE, solver: object, evaluations: int) -> float:
    """The exact W2 on a Gaussian with the covariance of the twenty modes."""
    spectrum = torch.linalg.eigvalsh(twenty_modes().covariance)
    return float(gaussian_w2(make_plan(path, solver, "karras", evaluations=evaluations), spectrum))  # type: ignore[arg-type]


@claim(
    paper=PAPER,
    method="er-sde",
    says="In few steps the less noise a process draws, the smaller its error: the flow has the least.",
    figure="ImageNet 64 FID at 20 evaluations: ER-SDE 3.45; the ordering is the paper's section on the solution space",
)
def less_noise_errs_less() -> Measured:
    names = ("ode", "sde5", "sde2", "sde", "sde3")
    worst = {n: [_error(VP(), ExtendedReverseSDE(1, name), n) for name in names] for n in (10, 20)}
    figure = "; ".join(
        f"{n} evaluations: " + ", ".join(f"{name} {e:.3f}" for name, e in zip(names, worst[n], strict=True))
        for n in worst
    )
    return Measured(f"exact W2 on Gaussian data, one answer, {figure}", all(e == sorted(e) for e in worst.values()))


@claim(
    paper=PAPER,
    method="er-sde",
    says="It is the best of the stochastic samplers at 20 evaluations.",
    figure="ImageNet 64 FID at 20 evaluations: 3.45",
)
def best_of_the_stochastic_at_twenty() -> Measured:
    ours = {f"er-sde with {k} answers": _error(VP(), ExtendedReverseSDE(k), 20) for k in (1, 2, 3)}
    ddpm = _error(VP(), "ddpm", 20)
    figure = ", ".join(f"{name} {e:.3f}" for name, e in ours.items())
    return Measured(
        f"exact W2 on Gaussian data at 20 evaluations: {figure}, ddpm {ddpm:.3f}", max(ours.values()) < ddpm
    )


@claim(
    paper=PAPER,
    method="er-sde",
    says="Its VP solvers are on a par with its VE solvers.",
    figure="FIDs that differ by little when the grids do",
)
def vp_is_on_a_par_with_ve() -> Measured:
    one, two = (_error(path, ExtendedReverseSDE(3), 20) for path in (VP(), VE()))
    figure = f"exact W2 on Gaussian data at 20 evaluations, both on Karras' grid: VP {one:.4f}, VE {two:.4f}"
    return Measured(figure, abs(one / two - 1) < 0.1, "In units of x/α the two are the same table, to rounding.")
