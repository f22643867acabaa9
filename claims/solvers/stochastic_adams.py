"""SA-Solver: what its paper claims of noise in a sampler whose network errs."""

from claims import Measured, claim

PAPER = "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models"


@claim(
    paper=PAPER,
    method="sa-solver",
    says="Where the network errs, some fresh noise beats none, given enough evaluations.",
    figure="its ablation of τ on CIFAR-10 and ImageNet: the best τ is above 0 and grows with the evaluations",
)
def noise_mends_an_erring_network() -> Measured:
    import torch

    from claims.worlds import twenty_modes
    from fewstep import VP, sample, wrap
    from fewstep.metrics import sliced_w2
    from fewstep.solvers.stochastic_adams import StochasticAdams

    world, path = twenty_modes(), VP()
    exact, believed = world.sample(2000, seed=9), world.denoiser(VP(), "eps")

    def erring(x, t):  # type: ignore[no-untyped-def]
        """ε̂ with an error of a tenth of its size that waves with the state, as a smooth network's does."""
        eps = believed.raw(x, t[:1])
        return eps + 0.1 * torch.sin(3 * x + 5 * t[:1])

    net, wrong = wrap(erring, path, "eps", shape=(64,), time="t"), {}
    for steps in (10, 40):
        for tau in (0.0, 0.5, 1.0):
            x = sample(net, 2000, solver=StochasticAdams(3, 4, tau), grid="logsnr", steps=steps, seed=0).x
            wrong[steps, tau] = float(sliced_w2(x.double(), exact))
    told = ", ".join(f"{value:.3f} (τ = {tau:g}, {steps} steps)" for (steps, tau), value in wrong.items())
    best = {steps: min((0.0, 0.5, 1.0), key=lambda tau: wrong[steps, tau]) for steps in (10, 40)}
    figure = f"sliced W2, 20 modes in 64 dimensions, ε̂ wrong by a tenth: {told}"
    return Measured(figure, best[40] > 0 and best[40] >= best[10])


@claim(
    paper=PAPER,
    method="sa-solver",
    says="It is better than the other stochastic samplers at the same evaluations.",
    figure="CIFAR-10 FID at 20 evaluations and more, below DDIM with η = 1 and EDM's stochastic sampler (its figure 2)",
)
def stochastic_adams_beats_ancestral() -> Measured:
    import torch

    from fewstep import VP, make_plan
    from fewstep.analysis import gaussian_w2

    spectrum = torch.logspace(-3, 0, 32, dtype=torch.float64)
    found = {}
    for name in ("sa-solver", "ddpm"):
        for steps in (10, 20, 40):
            found[name, steps] = float(gaussian_w2(make_plan(VP(), name, "logsnr", steps), spectrum))
    told = ", ".join(f"{found['sa-solver', n]:.4f} against {found['ddpm', n]:.4f} at {n}" for n in (10, 20, 40))
    figure = f"exact W2 to Gaussian data in 32 dimensions, against ancestral sampling: {told} steps"
    return Measured(figure, all(found["sa-solver", n] < found["ddpm", n] for n in (10, 20, 40)))
