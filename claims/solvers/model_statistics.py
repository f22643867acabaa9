"""DPM-Solver-v3: what its paper claims of a parameterisation made for the model."""

from claims import Measured, claim

PAPER = "DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics"


@claim(
    paper=PAPER,
    method="dpm-solver-v3",
    says="With the model's own statistics few steps come closer than with ++ or UniPC at the same evaluations.",
    figure="CIFAR-10 (EDM) FID at 5, 6, 8, 10: 12.21, 8.56, 3.50, 2.51; UniPC 23.52, 11.10, 3.86, 2.85",
)
def its_own_statistics_help_at_few_steps() -> Measured:
    from claims.worlds import flow_error, twenty_modes
    from fewstep import VP
    from fewstep.solvers.empirical_statistics import estimate_statistics
    from fewstep.solvers.model_statistics import StatisticsMultistep

    world, path = twenty_modes(), VP()
    known = estimate_statistics(world.denoiser(path), world.sample(512, seed=3), (-5.1, 4.7), 60, elementwise=False)
    solvers = {"v3": StatisticsMultistep(2, 3, known), "UniPC-2": "unipc", "++(2M)": "dpm-solver++"}
    wrong = {(name, n): flow_error(path, s, n) for name, s in solvers.items() for n in (5, 6, 8, 10)}
    told = "; ".join(f"{name} " + ", ".join(f"{wrong[name, n]:.4f}" for n in (5, 6, 8, 10)) for name in solvers)
    figure = f"RMSE to the exact flow at 5, 6, 8, 10 evaluations, 20 modes in 64 dimensions: {told}"
    others = {n: min(wrong["UniPC-2", n], wrong["++(2M)", n]) for n in (5, 6, 8, 10)}
    why = "At 10 UniPC-2 is level with it." if wrong["v3", 10] > others[10] else ""
    return Measured(figure, all(wrong["v3", n] < others[n] for n in (5, 6, 8)), why)


@claim(
    paper=PAPER,
    method="dpm-solver-v3",
    says="Its parameterisation makes the first-order error least, below both the data and the noise form's.",
    figure="a theorem, and the curves of the statistics (its figure 2)",
)
def the_first_order_error_is_least() -> Measured:
    from claims.worlds import flow_error, twenty_modes
    from fewstep import VP
    from fewstep.solvers.empirical_statistics import estimate_statistics
    from fewstep.solvers.model_statistics import StatisticsMultistep

    world, path = twenty_modes(), VP()
    known = estimate_statistics(world.denoiser(path), world.sample(512, seed=3), (-5.1, 4.7), 60, elementwise=False)
    wrong = {
        n: (flow_error(path, StatisticsMultistep(1, 0, known), n), flow_error(path, "ddim", n)) for n in (10, 20, 40)
    }
    told = ", ".join(f"{a:.4f} against {b:.4f} at {n}" for n, (a, b) in wrong.items())
    figure = f"RMSE to the exact flow at order 1, 20 modes in 64 dimensions, against DDIM (both forms' order 1): {told}"
    return Measured(figure, all(a < b for a, b in wrong.values()))
