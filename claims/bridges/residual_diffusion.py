"""Residual denoising diffusion: few steps, DDIM by another name, and other curves for residual and noise."""

import torch

from claims import Measured, claim
from claims.bridges.restored import restored
from fewstep import VP, make_plan
from fewstep.paths import RDDM, BridgePath
from fewstep.solvers import solver_named

PAPER = "Residual Denoising Diffusion Models"


@claim(
    paper=PAPER,
    method="rddm",
    says="Two to ten steps are enough to restore.",
    figure="5 steps for shadows and low light, 10 for raindrops (PSNR 32.5 dB)",
)
def few_steps_restore() -> Measured:
    wrong = {n: restored(make_plan(RDDM(), "ddim", "uniform", n), RDDM()) for n in (2, 5, 10, 60)}
    figure = "; ".join(f"{n} steps {error:.3f} ({distance:.3f})" for n, (distance, error) in wrong.items())
    why = (
        "By the distance to the clean signal, which PSNR measures, the fewer steps the better: few steps answer with "
        "the mean of what is possible. As samples of what is possible ten are not yet as good as sixty."
    )
    holds = max(wrong[n][1] for n in (2, 5, 10)) <= wrong[60][1]
    return Measured(f"RMSE to x₀ (sliced W2 to the exact posterior): {figure}", holds, why)


@claim(
    paper=PAPER,
    method="rddm",
    says="Its sampling is DDIM's and DDPM's after a change of coefficients.",
    figure="an equality: ᾱ = 1 − √ᾱ_DDIM, β̄ = √(1 − ᾱ_DDIM), and nothing degraded",
)
def ddim_by_a_change_of_coefficients() -> Measured:
    vp = VP()
    path = BridgePath(vp.alpha, lambda t: 1 - vp.alpha(t), vp.sigma)
    times = torch.linspace(0.98, 0.02, 11, dtype=torch.float64)

    def apart(eta: float, peer: str) -> float:
        one, two = make_plan(path, solver_named("random-walk", eta=eta), times), make_plan(vp, peer, times)
        return max(float((a - b).abs().max()) for a, b in zip(one._matrices(), two._matrices(), strict=True))

    ddim, ddpm = apart(0.0, "ddim"), apart(1.0, "ddpm")
    figure = f"largest difference of a coefficient in ten steps: {ddim:.0e} to DDIM (η = 0), {ddpm:.2f} to DDPM (η = 1)"
    why = (
        "With fresh noise its own formula is a random walk's posterior, which is DDPM's only where the mean does not "
        "fall: there the conversion needs another variance too."
    )
    return Measured(figure, ddim < 1e-12, why)


@claim(
    paper=PAPER,
    method="rddm",
    says="Residual and noise may be taken away along other curves than those of training.",
    figure="pictures; no figure",
)
def other_curves_serve() -> Measured:
    curves = {"as trained": (1.0, 1.0), "residual first": (-0.5, 1.0), "noise first": (1.0, 4.0)}
    wrong = {}
    for name, (residual, noise) in curves.items():
        path = RDDM(variance=1.0, residual_power=residual, noise_power=noise)
        wrong[name] = [restored(make_plan(path, "ddim", "uniform", n), path)[0] for n in (10, 20)]
    path = RDDM(residual_power=-0.5)
    little = restored(make_plan(path, "ddim", "uniform", 20), path)[0]
    figure = "; ".join(f"{name} {few:.3f}, {many:.3f}" for name, (few, many) in wrong.items())
    why = (
        f"With noise of variance 1. With the restoration's 0.01, residual first needs many more steps ({little:.3f} at "
        "20), as the signal then comes out of little noise at once. The denoiser is exact for every pair of sums: a "
        "network's errors off its training curve are not measured."
    )
    holds = all(many < 0.75 * few and many < 1.5 * wrong["as trained"][1] for few, many in wrong.values())
    return Measured(f"sliced W2 to the exact posterior with 10 and 20 steps: {figure}", holds, why)
