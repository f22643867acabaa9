"""DDIM and DPM-Solver++(2M): what their papers claim of few steps."""

from collections.abc import Callable

from claims import Measured, claim
from claims.worlds import flow_error
from fewstep import VP, load, sample


@claim(
    paper="Denoising Diffusion Implicit Models",
    method="ddim",
    says="With few steps the deterministic process beats ancestral sampling by far.",
    figure="CIFAR-10 FID at 10 steps: 13.36 (η = 0) against 41.07 (η = 1)",
)
def ddim_beats_ancestral() -> Measured:
    from claims.worlds import twenty_modes
    from fewstep.metrics import sliced_w2
    from fewstep.solvers import solver_named

    world = twenty_modes()
    exact, wrong = world.sample(4000, seed=9), {}
    for eta in (0.0, 1.0):
        x = sample(world.denoiser(VP()), 4000, solver=solver_named("ddim", eta=eta), grid="uniform", steps=10).x
        wrong[eta] = float(sliced_w2(x.double(), exact))
    figure = f"sliced W2 at 10 steps, 20 modes in 64 dimensions: {wrong[0.0]:.3f} (η = 0), {wrong[1.0]:.3f} (η = 1)"
    return Measured(figure, wrong[0.0] < wrong[1.0])


@claim(
    paper="DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    method="dpm-solver++",
    says="15 to 20 steps are enough where DDIM needs 100 to 250.",
    figure="ImageNet 256 guided FID at 15 steps beside DDIM at more than 100 (the paper's figure 3)",
)
def two_m_at_twenty_beats_ddim_at_a_hundred() -> Measured:
    fast, fewer, slow = (flow_error(VP(), *one) for one in (("dpm-solver++", 20), ("dpm-solver++", 15), ("ddim", 100)))
    figure = (
        f"RMSE to the exact flow, 20 modes in 64 dimensions: {fewer:.4f} with 15 steps, {fast:.4f} with 20, "
        f"{slow:.4f} with DDIM's 100"
    )
    return Measured(figure, fast < slow, "At 15 steps it is still a little behind." if fewer > slow else "")


@claim(
    paper="DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    method="dpm-solver++",
    says="Few steps keep what guided samples are asked for.",
    figure="none; the abstract says high-quality samples within 15 to 20 steps",
)
def guided_digits_read_as_asked() -> Measured:
    import torch

    from fewstep import CFG
    from fewstep.networks.features import load_features

    labels = [i % 10 for i in range(100)]
    x = sample(load("mnist"), 100, steps=15, guides=[CFG(2.0)], cond={"label": labels}, seed=0).x
    right = float((load_features("mnist").classify(x).argmax(1) == torch.tensor(labels)).float().mean())
    return Measured(f"{right:.0%} of 100 MNIST digits read as asked at 15 steps with CFG(2)", right > 0.95)


@claim(
    paper="DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    method="dpm-solver++",
    says="Under strong guidance solvers of high order in noise form become worse than DDIM; in data form they do not.",
    figure="ImageNet 256, guidance 8: DPM-Solver-3 behind DDIM, DPM-Solver++(2M) ahead of it (the paper's figure 1)",
)
def data_form_stays_stable_under_guidance() -> Measured:
    error = _guided_errors(8.0)
    figures, holds = [], True
    for n in (12, 15, 21):
        ddim, noise, data = (error(name, n) for name in ("ddim", "dpm-solver-3", "dpm-solver++"))
        figures.append(f"{data:.4f}, {ddim:.4f}, {noise:.4f} at {n}")
        holds = holds and data < ddim < noise
    told = "RMSE to the guided flow, scale 8, 20 modes in 64 dimensions, of 2M, DDIM and DPM-Solver-3: "
    return Measured(f"{told}{'; '.join(figures)} evaluations", holds)


def _guided_errors(scale: float) -> Callable[[str, int], float]:
    """The error of a solver at a number of evaluations to the flow of a guided denoiser, itself one network here."""
    import torch

    from claims.worlds import rmse, twenty_modes
    from fewstep import make_plan, wrap
    from fewstep.analysis import exact_flow
    from fewstep.worlds import GaussianMixture

    one, path = twenty_modes(), VP()
    classes = GaussianMixture(one.weights, one.means, one.variance, one.basis, one.spread, torch.arange(20) % 5)
    den = classes.denoiser(path)

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t, label = t.reshape(-1, 1), torch.arange(len(x)) % 5
        free = den(x, t, label=torch.full_like(label, 5))
        return free + scale * (den(x, t, label=label) - free)

    guided = wrap(net, path, "x0", shape=(64,), time="t")
    noise = torch.randn(30, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = float(path.sigma(1.0)) * noise
    exact = exact_flow(guided, start, 1.0, 0.0, tolerance=1e-5)
    return lambda name, n: rmse(guided, make_plan(path, name, "logsnr", evaluations=n), start, exact)
