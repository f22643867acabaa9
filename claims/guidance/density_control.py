"""Density guidance: the log-density that was asked for, its form with noise, and the alignment of scores."""

from functools import cache

import torch
from torch import Tensor

from claims import Measured, claim
from claims.guidance.judge import model
from fewstep import VP, make_plan, sample
from fewstep.guidance import DensityControl, DensityNoise, Guide, score_alignment
from fewstep.worlds import GaussianMixture

PAPER = "Devil is in the Details: Density Guidance for Detail-Aware Generation with Flow Models"
SIZE, UNTIL, STEPS, COUNT = 256, 2.0, 600, 8


@cache
def _world() -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    means = 0.5 * torch.randn(5, SIZE, dtype=torch.float64, generator=generator)
    return GaussianMixture([1.0] * 5, means, torch.full((5, 1), 0.2))


def _ended(guides: list[Guide]) -> tuple[Tensor, Tensor]:
    """(The log-densities, the states) at λ = UNTIL."""
    path = VP()
    times = path.t_of_lam(torch.linspace(-4.5, UNTIL, STEPS + 1, dtype=torch.float64))
    noise = torch.randn(COUNT, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = float(path.sigma(times[0])) * noise
    x = sample(_world().denoiser(path), start=start, plan=make_plan(path, "ddim", times), guides=guides, seed=0).x
    return _world().log_density(x, path, times[-1]), x


@claim(
    paper=PAPER,
    method="density-control",
    says="The log-density of samples is controlled exactly along the flow.",
    figure="log p is set by the quantile; no figure of its error",
)
def the_asked_log_density_is_met() -> Measured:
    plain = float(_ended([])[0].mean())
    asked = [plain - 60, plain, plain + 30]
    off = [float(((_ended([DensityControl(a, UNTIL, 0.4, 4)])[0] - a) / a).abs().max()) for a in asked]
    told = ", ".join(f"{a:.0f} nats {100 * e:.2f} %" for a, e in zip(asked, off, strict=True))
    figure = f"a mixture in {SIZE} dimensions, {STEPS} steps of ddim; the largest error of {COUNT} samples: {told}"
    return Measured(figure, max(off) < 0.01)


@claim(
    paper=PAPER,
    method="density-noise",
    says="Noise orthogonal to the score makes different samples of the same log-density.",
    figure="CIFAR-10, 128 steps, φ 0.2 early and 0.3 late: shapes and textures change; no figure",
)
def noise_keeps_the_log_density() -> Measured:
    asked = float(_ended([])[0].mean()) - 30
    control = DensityControl(asked, UNTIL, 0.4, 4)
    _, still = _ended([control])
    rows = {}
    for name, amount, window in (("early", 0.2, (-5.0, -2.0)), ("late", 0.3, (-1.5, 4.5))):
        logs, x = _ended([control, DensityNoise(amount, window, 4)])
        moved = float(((x - still).norm(dim=1) / still.norm(dim=1)).mean())
        rows[name] = (float(((logs - asked) / asked).abs().max()), moved)
    told = "; ".join(f"{k} log-density off by at most {100 * e:.2f} %, moved by {m:.0%}" for k, (e, m) in rows.items())
    figure = f"a mixture in {SIZE} dimensions, {STEPS} steps of ddim, {asked:.0f} nats asked: {told}"
    return Measured(figure, all(e < 0.01 and m > 0.05 for e, m in rows.values()))


@claim(
    paper=PAPER,
    method="density-guidance",
    says="Scores stay aligned along the flow of image models, so that the length of the noise sets the log-density.",
    figure="nearly always for image models",
)
def scores_of_digits_stay_aligned() -> Measured:
    den = model()
    times = den.path.t_of_lam(torch.linspace(-4, 2, 21, dtype=torch.float64))
    noise = torch.randn(10, *den.shape, generator=torch.Generator().manual_seed(0))
    start = float(den.path.sigma(times[0])) * noise
    inner, cosine = score_alignment(den, start, times, {"label": torch.arange(10)})
    share = float((inner > 0).float().mean())
    figure = (
        f"the shipped digits model, 10 digits, 20 steps: aligned in {share:.0%} of the times and samples, cosine at "
        f"the end {float(cosine[-1].mean()):.2f}, the least of all {float(cosine.min()):.2f}"
    )
    return Measured(figure, share > 0.9)
