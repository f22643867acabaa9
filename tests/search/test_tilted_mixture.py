"""One exactly steered step, q*(x_s | x_t) = q(x_s | x_t)·e^{V_s(x_s) − V_t(x_t)}: what it is, and that it can be drawn.

With x₀ drawn from the tilted law of x₀ given x_t, which is a mixture of Gaussians, the step down to s is q* itself:

    x_s = x₀ + κ(x_t − x₀) + σ_s√(1 − κ)·ξ,   κ = σ_s²/σ_t²,   σ = α·(noise level), α = 1.
"""

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fewstep import make_plan, sample
from fewstep.search import SVDD, TiltedMixture
from fewstep.worlds import GaussianMixture

_spec = importlib.util.spec_from_file_location("bench", Path(__file__).with_name("bench.py"))
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)


def stepped(x0, x, t, s):
    """The law of x_s given x_t = x, where that of x₀ given x_t is the mixture x0: one Gaussian a component."""
    kept = (s / t) ** 2
    variances = torch.stack([x0.component_covariance(k)[0] for k in range(len(x0.means))])
    return GaussianMixture(
        x0.weights, x0.means + kept * (x - x0.means), (1 - kept) ** 2 * variances + (10 * s) ** 2 * (1 - kept)
    )


@pytest.mark.parametrize(("x", "t", "s"), [(-3.0, 0.5, 0.2), (0.1, 0.1, 0.09), (1.0, 0.04, 0.01)])
def test_the_steered_step_is_the_steps_law_times_what_is_gained(x, t, s):
    x0 = bench.WORLD.posterior(torch.ones(1, 1), torch.tensor([x]), 10 * t)
    tilted = TiltedMixture(x0, torch.ones(1))
    here = float(bench.value(torch.tensor([[x]]), t))
    assert tilted.evidence == pytest.approx(here, abs=1e-9)
    places = torch.linspace(-15, 15, 4001, dtype=torch.float64)[:, None]
    plain, steered = (stepped(law, x, t, s).log_density(places, bench.PATH, 0.0) for law in (x0, tilted.target))
    assert torch.allclose(steered, plain + bench.value(places, s) - here, atol=1e-7)
    # So that V is a martingale in e^V.
    gained = torch.trapezoid((plain + bench.value(places, s)).exp(), places[:, 0])
    assert float(gained.log()) == pytest.approx(here, abs=1e-4)


def test_steps_of_any_length_drawn_exactly_take_the_tilt_to_the_tilt():
    """Four of them from p_T·e^V, where the ancestral Gaussian asks for hundreds."""
    noise = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(40000, 1, dtype=torch.float64, generator=noise)  # noqa: E731
    means, variances = bench.WORLD.means[:, 0], bench.WORLD.variance[:, 0]
    z = bench.TILT.target.sample(40000, seed=1) + 10 * draw()
    for t, s in pairwise((1.0, 0.3, 0.1, 0.03, 0.0)):
        kept, left = (s / t) ** 2, variances * (10 * t) ** 2 / (variances + (10 * t) ** 2)
        middle = means + variances / (variances + (10 * t) ** 2) * (z - means)
        shares = bench.WORLD.component_posterior(z, bench.PATH, t) * (middle + 0.5 * left).exp()
        pick = torch.multinomial(shares, 1, generator=noise)
        x0 = (middle + left).gather(1, pick) + left[pick].sqrt() * draw()
        z = x0 + kept * (z - x0) + 10 * s * (1 - kept) ** 0.5 * draw()
    assert bench.moments(z) == pytest.approx(bench.EXACT, abs=0.02)


def test_many_candidates_for_a_short_step_are_the_steered_step():
    """SVDD's candidates with e^{V_s} for their reward; they come from one Gaussian, which a short step hardly tells."""
    x, t, s = 0.1, 0.1, 0.097
    start = torch.full((1500, 1), x, dtype=torch.float64)
    search, plan = SVDD(lambda x: bench.value(x, s), candidates=30), make_plan(bench.PATH, "ddpm", [t, s])
    drawn = sample(bench.DENOISER, start=start, search=search, plan=plan, dtype=torch.float64).x
    x0 = bench.WORLD.posterior(torch.ones(1, 1), torch.tensor([x]), 10 * t)
    plain, steered = (stepped(law, x, t, s) for law in (x0, TiltedMixture(x0, torch.ones(1)).target))
    assert float(steered.mean - plain.mean) > 0.06
    assert float(drawn.mean()) == pytest.approx(float(steered.mean), abs=0.03)
    assert float(drawn.var()) == pytest.approx(float(steered.covariance), rel=0.25)
