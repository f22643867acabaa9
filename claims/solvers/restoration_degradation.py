"""Restoration and degradation: deterministic sampling as a look back and a step forward."""

from claims import Measured, claim
from claims.worlds import flow_error
from fewstep import VP
from fewstep.solvers.restoration_degradation import RestorationDegradation


@claim(
    paper="Restoration-Degradation Beyond Linear Diffusions: A Non-Asymptotic Analysis For DDIM-Type Samplers",
    method="restoration-degradation",
    says="A look back and a step forward with noise that points to the state are one step of the probability flow.",
    figure="an operational reading and polynomial bounds; no experiment",
)
def two_steps_are_the_flow() -> Measured:
    fixed = [flow_error(VP(), RestorationDegradation(4.0), n) for n in (20, 40, 80)]
    few = [flow_error(VP(), RestorationDegradation(4 * 9.0 / n), n) for n in (20, 40, 80)]
    figure = (
        "RMSE to the exact flow at 20, 40 and 80 steps: "
        f"{'/'.join(f'{e:.4f}' for e in fixed)} with a look back of 4 in λ, "
        f"{'/'.join(f'{e:.4f}' for e in few)} with one of about four steps"
    )
    why = "The look back must be long beside the step: with a fixed number of steps it does not converge."
    return Measured(figure, fixed[1] < 0.7 * fixed[0] and fixed[2] < 0.7 * fixed[1], why)
