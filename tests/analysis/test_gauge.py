"""Gauge: what may be added to a score without changing the law, and what the flow's Jacobian says of dimension."""

import pytest
import torch
from scipy.special import ive

from fewstep import VE, VP, Flow, make_plan, sample, wrap
from fewstep.analysis import Gauged, asymmetry, gauge_residual, gauge_split, intrinsic_dimension, turned
from fewstep.errors import ArgumentError
from fewstep.worlds import Gaussian, GaussianMixture

MEANS = torch.tensor([[-1.0, 0.0], [0.8, 0.6], [0.5, -0.9]], dtype=torch.float64)
WORLD = GaussianMixture([0.5, 0.3, 0.2], MEANS, torch.full((3, 1), 0.04))
S = torch.tensor([[0.0, 0.8], [-0.8, 0.0]], dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_linear_field_is_a_gradient_and_a_gauge():
    root = draw(4, 4)
    c, m = root @ root.mT + 0.1 * torch.eye(4), draw(4, 4, seed=1)
    k, gauge = gauge_split(m, c)
    assert torch.allclose(k, k.mT, atol=1e-10)
    assert torch.allclose(k + gauge, m)
    x, inverse = draw(8, 4, seed=2), torch.linalg.inv(c)
    assert float(gauge_residual(lambda x: x @ gauge.mT, lambda x: -x @ inverse, x).abs().max()) < 1e-9
    assert float(gauge_residual(lambda x: x @ m.mT, lambda x: -x @ inverse, x).abs().max()) > 0.1
    energy = [float((f @ c @ f.mT).trace()) for f in (m, k, gauge)]
    assert energy[0] == pytest.approx(energy[1] + energy[2])


def test_asymmetry_of_a_gradient_of_a_turn_and_of_both():
    x = draw(3, 2)
    assert float(asymmetry(lambda x: torch.tanh(x), x).max()) < 1e-12
    assert torch.allclose(asymmetry(lambda x: x @ S.mT, x), torch.full((3,), 2.0, dtype=torch.float64))
    assert torch.allclose(
        asymmetry(lambda x: x + x @ S.mT, x), torch.tensor(1.6 / (2 + 2 * 0.64) ** 0.5).double() * 2**0.5
    )


def test_probes_estimate_the_asymmetry():
    x, bend = draw(3, 2), torch.tensor([[0.4, 1.0], [-0.2, 0.3]], dtype=torch.float64)
    field = lambda x: torch.tanh(x @ bend.mT)  # noqa: E731
    assert torch.allclose(asymmetry(field, x, probes=3000), asymmetry(field, x), rtol=0.05)
    assert float(asymmetry(lambda x: torch.tanh(x), x, probes=3).max()) < 1e-8
    with pytest.raises(ArgumentError, match="probes"):
        asymmetry(field, x, probes=-1)


@pytest.mark.parametrize("path", [VP(), VE()], ids=lambda p: p.kind)
def test_a_turned_score_is_a_gauge_and_keeps_the_law_where_another_field_does_not(path):
    den, t = WORLD.denoiser(path), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)

    def score(x):
        return (alpha * den(x, t) - x) / sigma**2

    x = alpha * MEANS + sigma * draw(3, 2)
    field = turned(S)
    assert float(gauge_residual(lambda x: field(x, t, score(x)), score, x).abs().max()) < 1e-9
    start = draw(4000, 2, seed=3) * path.sigma(1.0)
    plan = make_plan(path, "dpm-solver++3m", "logsnr", 120)

    def shares(denoiser):
        ends = sample(denoiser, start=start, plan=plan).x
        return torch.bincount(torch.cdist(ends, MEANS).argmin(1), minlength=3) / len(ends)

    exact = torch.tensor([0.5, 0.3, 0.2])
    assert float((shares(Gauged(den, field)) - exact).abs().max()) < 0.03
    wrong = Gauged(den, lambda x, t, s: x @ S.mT.to(x) / path.sigma(t) ** 2)
    assert float((shares(wrong) - exact).abs().max()) > 0.05


def test_gauges_of_a_density_are_told_by_their_residual_alone():
    """A sheared turn is without divergence and across the score; (1/p)∇⊥ψ is neither, and a gauge all the same."""
    path, t = VP(), 0.4
    x = path.alpha(t) * MEANS + path.sigma(t) * draw(3, 2)

    def score(x):
        return WORLD.score(x, path, t)

    def sheared(x):
        return WORLD.log_density(x, path, t)[:, None] * (score(x) @ S.mT)

    def weak(x):
        """ψ = sin(x₁ + 2x₂), so that ∇⊥ψ = cos(x₁ + 2x₂)·(−2, 1)."""
        wave = (x[:, :1] + 2 * x[:, 1:]).cos() * torch.tensor([[-2.0, 1.0]], dtype=torch.float64)
        return wave / WORLD.log_density(x, path, t)[:, None].exp()

    for field in (sheared, weak):
        assert float(gauge_residual(field, score, x).abs().max()) < 1e-8
    across = [float((field(x) * score(x)).sum(1).abs().max()) for field in (sheared, weak)]
    assert across[0] < 1e-9 < 0.1 < across[1]


def test_a_gauge_keeps_the_volume_of_the_flow_and_a_shear_its_volume_only():
    """|det ∂x_t/∂x₁| = p₁(x₁)/p_t(x_t) for every gauge; a shear stretches them, another field breaks both."""
    path, level = VE(20.0), 0.05
    den, x = WORLD.denoiser(path), 20 * draw(30, 2)
    t = path.t_of_lam(-torch.tensor(level, dtype=torch.float64).log())

    def shear(x, t, score):
        return 0.1 * WORLD.log_density(x, path, t.flatten()[0])[:, None] * (score @ S.mT)

    def far(field):
        """The largest error of the log-volume, and the median ratio of the two singular values."""
        gauged = Gauged(den, field)
        _, values = intrinsic_dimension(gauged, x, level=level, nudge=1e-5)
        lam = torch.linspace(float(path.lam(1.0)), float(path.lam(t)), 97, dtype=torch.float64)
        ends = sample(gauged, start=x, plan=make_plan(path, "dpm-solver++3m", path.t_of_lam(lam).clamp_max(1.0))).x
        exact = WORLD.log_density(x, path, 1.0) - WORLD.log_density(ends, path, float(t))
        return float((values[1].log().sum(1) - exact).abs().median()), float(
            (values[1, :, 0] / values[1, :, 1]).median()
        )

    none, turn, sheared = far(lambda x, t, s: 0 * s), far(turned(S)), far(shear)
    assert max(none[0], turn[0], sheared[0]) < 0.01
    assert none[1] == pytest.approx(turn[1], rel=0.15)
    assert sheared[1] > 1.3 * none[1]
    assert far(lambda x, t, s: x @ S.mT.to(x) / path.sigma(t) ** 2)[0] > 0.5


def test_singular_values_on_gaussian_data_are_the_closed_form():
    spectrum = torch.tensor([1.0, 0.25, 0.0, 0.0], dtype=torch.float64)
    den = Gaussian(torch.zeros(4), torch.diag(spectrum)).denoiser(VE())
    dims, values = intrinsic_dimension(den, draw(2, 4) * VE().sigma(1.0), level=0.01)
    top = float(VE().sigma(1.0)) ** 2
    want = ((0.01**2 + spectrum) / (top + spectrum)).sqrt()
    assert torch.allclose(values[1], want.expand(2, 4), rtol=2e-3)
    assert dims.tolist() == [2, 2]


def sphere(path, inside, outside):
    """The uniform law on the unit sphere of the first `inside` of `outside` dimensions; exact by Bessel functions."""

    def x0(x, t):
        t = t.reshape(-1, 1)
        alpha, sigma = path.alpha(t), path.sigma(t)
        seen = x[:, :inside]
        length = seen.norm(dim=1, keepdim=True)
        k = (alpha * length / sigma**2).numpy()
        ratio = torch.from_numpy(ive(inside / 2, k) / ive(inside / 2 - 1, k))
        return torch.cat([ratio * seen / length, torch.zeros_like(x[:, inside:])], 1)

    return wrap(x0, path, "x0", shape=(outside,), time="t")


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize(("inside", "outside"), [(2, 5), (5, 8)])
def test_the_dimension_of_spheres(path, inside, outside):
    dims, _ = intrinsic_dimension(sphere(path, inside, outside), draw(2, outside) * path.sigma(1.0), steps=48)
    assert dims.tolist() == [inside - 1] * 2


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="antisymmetric"):
        turned(torch.eye(2))
    with pytest.raises(ArgumentError, match="positive definite"):
        gauge_split(torch.eye(2), -torch.eye(2))
    with pytest.raises(ArgumentError, match=r"\(d, d\)"):
        gauge_split(torch.eye(2), torch.eye(3))
    for bad in (0.0, -1.0, 1e9):
        with pytest.raises(ArgumentError, match="level"):
            intrinsic_dimension(WORLD.denoiser(VP()), draw(1, 2), level=bad)
    for start, options, says in ((draw(1, 3), {}, "shape"), (draw(1, 2), {"steps": 2}, "steps"),
                                 (draw(1, 2), {"nudge": 0.0}, "nudge")):  # fmt: skip
        with pytest.raises(ArgumentError, match=says):
            intrinsic_dimension(WORLD.denoiser(VP()), start, **options)
