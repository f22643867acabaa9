"""Momentum: stability, divergence under strong guidance, and accuracy between DDIM and the two-step method."""

from functools import cache

import torch

from claims import Measured, claim
from claims.worlds import flow_error
from fewstep import CFG, VP, sample
from fewstep.analysis.stability import momentum_method, stability_boundary
from fewstep.denoisers import Denoiser
from fewstep.solvers import Solver
from fewstep.solvers.generalised_heavy_ball import GeneralisedHeavyBall, printed_weights
from fewstep.solvers.heavy_ball import HeavyBall
from fewstep.worlds import GaussianMixture

PAPER = "Diffusion Sampling with Momentum for Mitigating Divergence Artifacts"


@claim(
    paper=PAPER,
    method="heavy-ball",
    says="Momentum enlarges the region of stability; GHVB less than heavy ball, and the more so the more damping.",
    figure="the paper's figures of stability regions; real axis of PLMS 1 to 4: 2, 1, 0.55, 0.3",
)
def momentum_enlarges_the_stable_interval() -> Measured:
    lines, holds = [], True
    for k in (2, 3, 4):
        plain = printed_weights(k, 1.0).tolist()
        plms, ball = (stability_boundary(*momentum_method(plain, beta)) for beta in (1.0, 0.8))
        ghvb = stability_boundary(*momentum_method(printed_weights(k, 0.8).tolist(), 0.8))
        lines.append(f"k = {k}: PLMS {plms:.2f}, GHVB {ghvb:.2f}, heavy ball {ball:.2f}")
        holds = holds and plms < ghvb < ball
    return Measured("stable for real −z below, damping 0.8: " + "; ".join(lines), holds)


@cache
def _classes() -> Denoiser:
    means = torch.randn(10, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return GaussianMixture([1.0] * 10, 0.7 * means, torch.full((10, 1), 0.05), component_labels=range(10)).denoiser(
        VP()
    )


def _diverged(solver: Solver, steps: int, scale: float) -> float:
    """The share of numbers beyond three deviations of the data, under guidance."""
    labels = [i % 10 for i in range(200)]
    x = sample(
        _classes(), 200, solver=solver, grid="uniform", steps=steps, guides=[CFG(scale)], cond={"label": labels}
    ).x
    return float((x.abs() > 3 * 0.75).double().mean())


@claim(
    paper=PAPER,
    method="ghvb",
    says="Under strong guidance and few steps momentum has fewer diverged values than PLMS4, and less damping fewer.",
    figure="guidance 15 at 10 to 15 steps, PLMS4 against GHVB 3.8 and lower (figures 4 and 9)",
)
def momentum_diverges_less() -> Measured:
    lines, holds = [], True
    for steps in (10, 15):
        rows = [(4, 1.0), (4, 0.8), (4, 0.5), (4, 0.2)]
        share = [_diverged(GeneralisedHeavyBall(k, beta, "printed"), steps, 15.0) for k, beta in rows]
        lines.append(
            f"{steps} steps: "
            + ", ".join(f"{k - 1 + beta:.1f} {s:.1%}" for (k, beta), s in zip(rows, share, strict=True))
        )
        holds = holds and share == sorted(share, reverse=True) and share[-1] < share[0]
    return Measured("numbers beyond 3 deviations, guidance 15, by momentum number: " + "; ".join(lines), holds)


def _artefacts(solver: str | Solver, steps: int, scale: float) -> float:
    """The magnitude score: the mean over samples of all that lies beyond three deviations, in deviations."""
    labels = [i % 10 for i in range(200)]
    x = sample(
        _classes(), 200, solver=solver, grid="uniform", steps=steps, guides=[CFG(scale)], cond={"label": labels}
    ).x
    return float((x.abs() / 0.75 - 3).clamp_min(0).sum(1).mean())


@claim(
    paper=PAPER,
    method="heavy-ball",
    says="Heavy ball makes the divergence artefacts of a sampler of high order smaller under strong guidance.",
    figure="magnitude score (|z|/deviation above 3, pooled and summed) of PLMS4 against PLMS4 with HB, guidance 15",
)
def momentum_makes_artefacts_smaller() -> Measured:
    lines, holds = [], True
    for steps in (8, 10, 12):
        without, with_ball = (_artefacts(s, steps, 15.0) for s in ("ipndm", HeavyBall("ipndm", 0.8, "noise")))
        lines.append(f"{steps} steps: {without:.1f} and {with_ball:.1f}")
        holds = holds and with_ball < without
    figure = (
        "what lies beyond 3 deviations, in deviations a sample, guidance 15, iPNDM without and with heavy ball 0.8: "
    )
    return Measured(figure + "; ".join(lines), holds)


@claim(
    paper=PAPER,
    method="ghvb",
    says="GHVB 1.1 to 1.9 lie between DDIM and the two-step method in accuracy.",
    figure="the paper's figure 11",
)
def accuracy_lies_between() -> Measured:
    betas = (0.1, 0.3, 0.5, 0.8, 0.9, 1.0)
    errors = [flow_error(VP(), "ddim", 20)] + [flow_error(VP(), GeneralisedHeavyBall(2, b), 20) for b in betas]
    figure = ", ".join(f"{name} {e:.4f}" for name, e in zip(("DDIM", *(1 + b for b in betas)), errors, strict=True))
    return Measured(f"RMSE to the exact flow at 20 steps: {figure}", errors == sorted(errors, reverse=True))


@claim(
    paper=PAPER,
    method="heavy-ball",
    says="Heavy ball is a method of first order, and can be worse than the solver that it is put on.",
    figure="a theorem; HB 0.8 on PLMS4 is worse than PLMS4 in some settings",
)
def heavy_ball_is_of_first_order() -> Measured:
    plain = [flow_error(VP(), "dpm-solver++", n) for n in (20, 40)]
    ball = [flow_error(VP(), HeavyBall(), n) for n in (20, 40)]
    figure = f"RMSE at 20 and 40 steps: {plain[0]:.4f} and {plain[1]:.4f} without, {ball[0]:.4f} and {ball[1]:.4f} with"
    return Measured(figure, ball[0] > plain[0] and 1.5 < ball[0] / ball[1] < 2.6)
