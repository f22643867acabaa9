"""UniPC: what its paper claims of the corrector and of few evaluations."""

from claims import Measured, claim
from claims.worlds import flow_error
from fewstep import VP

PAPER = "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"


@claim(
    paper=PAPER,
    method="unipc",
    says="At ten evaluations it is better than the multistep solvers before it.",
    figure="CIFAR-10 FID 3.87 at 10 evaluations; DPM-Solver++ 4.01",
)
def unipc_beats_two_m_at_ten() -> Measured:
    fig = {n: (flow_error(VP(), "unipc", n), flow_error(VP(), "dpm-solver++", n)) for n in (5, 8, 10)}
    told = ", ".join(f"{a:.4f} against {b:.4f} at {n}" for n, (a, b) in fig.items())
    figure = f"RMSE to the exact flow, 20 modes in 64 dimensions, UniPC-2 against DPM-Solver++(2M): {told} evaluations"
    why = "At 5 evaluations it is a little behind." if fig[5][0] > fig[5][1] else ""
    return Measured(figure, fig[10][0] < fig[10][1] and fig[8][0] < fig[8][1], why)


@claim(
    paper=PAPER,
    method="unipc",
    says="The corrector may follow any solver, and raises its order by one at no evaluation.",
    figure="lower FID for DDIM, DPM-Solver++ 2M and 3S with it at 5 to 10 evaluations (the paper's table 2)",
)
def the_corrector_raises_the_order_of_any_solver() -> Measured:
    from fewstep import make_plan
    from fewstep.analysis import measured_order
    from fewstep.solvers.predictor_corrector import corrected

    class Lifted:
        stochastic = False

        def __init__(self, name):  # type: ignore[no-untyped-def]
            self.name, self.order = name, {"ddim": 2, "dpm-solver++": 3}[name]

        def __call__(self, path, times, source=None):  # type: ignore[no-untyped-def]
            return corrected(make_plan(path, self.name, times))

    told, holds = [], True
    for name in ("ddim", "dpm-solver++"):
        before, after = measured_order(name, VP()), measured_order(Lifted(name), VP())
        errors = flow_error(VP(), name, 8), flow_error(VP(), Lifted(name), 8)
        told.append(f"{name} {before:.2f} → {after:.2f}, error at 8 evaluations {errors[0]:.4f} → {errors[1]:.4f}")
        holds = holds and after > before + 0.8 and errors[1] < errors[0]
    return Measured(f"orders on an exact mixture: {'; '.join(told)}", holds)
