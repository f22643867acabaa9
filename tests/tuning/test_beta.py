"""The Beta grid has the Beta density and keeps its ends; high frequencies are made last, low ones first."""

from functools import cache

import pytest
import torch
from scipy.stats import beta

import fewstep
from fewstep import VE, VP, Flow, make_plan, sample, tune
from fewstep.aliases import from_alias
from fewstep.errors import ArgumentError
from fewstep.grids import Beta, Karras, Uniform
from fewstep.tuning.beta_sampling import SHAPES, BetaSampling
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.spectral_change import spectral_change


@cache
def world(path):
    """Twenty overlapping modes in 64 dimensions; made once a path, as the flow that comes with it takes its time."""
    return mixtures(path, 8, 1)[1][0]


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 2.0)])
def test_times_have_the_density(a, b):
    times = Beta(a, b)(VP(), 400)
    assert torch.allclose(
        torch.from_numpy(beta.cdf(times.numpy(), a, b)), torch.linspace(1, 0, 401).double(), atol=1e-9
    )
    counted = torch.histc(times, 10, 0, 1)[1:-1]
    want = torch.from_numpy(beta.cdf([i / 10 for i in range(1, 10)], a, b)).diff() * 400
    assert float((counted - want).abs().max()) <= 1.5


def test_even_numbers_give_the_uniform_grid_and_ends_are_kept():
    assert torch.allclose(Beta(1, 1)(VP(), 7), Uniform()(VP(), 7))
    for grid in (Beta(), Beta(of="rho")):
        for path in (VP(), VE(), Flow()):
            times = grid(path, 6, 0.9)
            assert (times[0], times[-1], len(times)) == (0.9, 0, 7)
            assert bool((times.diff() < 0).all())


def test_quantiles_of_rho_end_where_karras_does():
    lam = VE().lam(Beta(1.0, 1.0, of="rho")(VE(), 5)[:-1])
    assert torch.allclose((-lam).exp(), torch.linspace(80, 0.002, 5).double())
    assert torch.allclose(lam[-1], VE().lam(Karras()(VE(), 5)[-2]))
    assert len(Beta(of="rho")(VP(), 1)) == 2


def test_bad_arguments_and_names():
    for options, message in (({"a": 0}, "a must be"), ({"of": "s"}, "of must be")):
        with pytest.raises(ArgumentError, match=message):
            Beta(**options)
    assert from_alias("DPM++ 2M Beta") == ("dpm-solver++", "beta")


def pictures(path):
    """Gaussian data with the spectrum 1/|k|² of pictures, as an exact denoiser in Fourier space."""
    k = torch.fft.fftfreq(64, dtype=torch.float64).abs() * 64
    power = 1 / k.clamp_min(1).square()

    def net(x, t):
        a, s = (v.reshape(-1, 1) for v in (path.alpha(t), path.sigma(t)))
        return torch.fft.ifft(torch.fft.fft(x) * a * power / (a**2 * power + s**2)).real

    return fewstep.wrap(net, path, "x0", shape=(64,), time="t")


def test_low_frequencies_are_made_first_and_high_ones_last():
    start = torch.randn(32, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = sample(pictures(VP()), start=start, plan=make_plan(VP(), "ddim", "uniform", 20), keep="answers")
    change = spectral_change(out.answers, 4)
    assert torch.allclose(change.sum(0), torch.ones(4).double())
    centre = (torch.arange(len(change)).double()[:, None] * change).sum(0)
    assert bool((centre.diff() > 0).all())
    assert float(change[:6, 0].sum()) > 10 * float(change[:6, 3].sum())
    assert float(change[-3:, 3].sum()) > 3 * float(change[-3:, 0].sum())


def test_change_is_counted_where_it_is():
    """A wave of |k| = 3 of 16 at one step, one of |k| = 7 at another; of pictures along one axis."""
    x = torch.arange(16).double() * 2 * torch.pi / 16
    states = torch.zeros(4, 1, 16, dtype=torch.float64)
    states[1:, 0] += (3 * x).cos()
    states[3:, 0] += (7 * x).sin()
    for told in (states, states[..., None, :].expand(4, 1, 16, 16)):
        change = spectral_change(told, 4)
        assert float(change[0, 1]) == pytest.approx(1)
        assert float(change[2, 3]) == pytest.approx(1)
        assert float(change[1].nan_to_num().sum()) < 1e-12
    for bad, bands in ((states[:1], 4), (states, 1), (states[..., :2], 4)):
        with pytest.raises(ArgumentError):
            spectral_change(bad, bands)


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_it_gains_over_uniform_steps_at_no_evaluation(path):
    denoiser = world(path)
    about = tune(denoiser, 10, method=BetaSampling(a=0.6, b=0.6), samples=24, settle=False).source["tuned"]
    assert about["after"] < 0.9 * about["before"]
    assert (about["spent"], about["untuned"]) == (0, "ddim, uniform")


def test_shapes_are_tried_and_the_middle_is_taken_where_it_is_better():
    denoiser = mixtures(VP(), 8, 1)[3][0]
    plan = tune(denoiser, 6, method="beta", samples=24, settle=False)
    about = plan.source["tuned"]
    assert about["after"] < 0.95 * about["before"]
    tried = [value for _, value in about["history"]]
    assert about["spent"] == len(tried) * 6 * 24
    assert tried[-1] < 0.99 * tried[len(SHAPES) - 1]  # the two numbers by themselves are better than alike
    known = tune(denoiser, 6, method=BetaSampling(a=0.6, b=0.6), samples=24, settle=False).source["tuned"]
    assert known["after"] > known["before"]
    for options in ({"a": 0.6}, {"a": 0.0, "b": 1.0}):
        with pytest.raises(ArgumentError, match="a"):
            BetaSampling(**options)
