"""Restoration and degradation: DDIM as its limit, a step by hand, order, and a forward equation that is not linear."""

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan
from fewstep.analysis import convergence_errors, measured_order
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.solvers.restoration_degradation import RestorationDegradation, restore_degrade

PATHS = [VP(), VE(), Flow(), Cosine()]
INF = float("inf")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("grid", ["uniform", "logsnr"])
def test_looking_back_to_the_data_is_ddim(path, grid):
    plan, ddim = make_plan(path, RestorationDegradation(INF), grid, 5), make_plan(path, "ddim", grid, 5)
    for mine, other in zip(plan._matrices(), ddim._matrices(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-12)
    assert not plan.deviates


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_a_step_by_hand(path):
    times = path.t_of_lam(torch.tensor([-1.0, -0.6], dtype=torch.float64))
    (a, b), (s, r) = path.alpha(times).tolist(), path.sigma(times).tolist()
    u = path.t_of_lam(torch.tensor(0.5, dtype=torch.float64))
    c, w = float(path.alpha(u)), float(path.sigma(u))
    x, x0 = 0.8, -0.3
    kernel, back = a / c, (s**2 - (a / c * w) ** 2) ** 0.5
    restored = kernel * w**2 / s**2 * x + c * back**2 / s**2 * x0
    noise = (x - kernel * restored) / back
    want = b / c * restored + (r**2 - (b / c * w) ** 2) ** 0.5 * noise
    plan = RestorationDegradation(1.5)(path, times)
    m, f, _ = (float(v[0, 0, 0]) for v in plan._matrices())
    assert m * x + f * x0 == pytest.approx(want, rel=1e-11)
    assert "less noise" in plan.deviates
    # The mean is the path's; the noise is not.
    assert m * a + f == pytest.approx(b, rel=1e-11)
    assert m * s < 0.999 * r


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("look_back", [4.0, INF])
def test_a_fixed_length_converges_at_order_one(path, look_back):
    assert measured_order(RestorationDegradation(look_back), path) == pytest.approx(1, abs=0.2)


def test_the_error_falls_with_the_look_back_towards_ddims():
    errors = [convergence_errors(RestorationDegradation(ell), VP(), (40,))[0] for ell in (0.25, 0.5, 1.0, 2.0, INF)]
    assert errors == sorted(errors, reverse=True)


def test_a_fixed_number_of_steps_does_not_converge():
    """ℓ = 4h: half the steps, twice the length, the same error."""
    coarse = convergence_errors(RestorationDegradation(4 * 4.5 / 80), VP(), (80,))[0]
    fine = convergence_errors(RestorationDegradation(4 * 4.5 / 320), VP(), (320,))[0]
    assert fine == pytest.approx(coarse, rel=0.3)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("look_back", [0.7, 4.0])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_finite_at_both_ends_and_saved_bit_for_bit(path, look_back, steps, tmp_path):
    plan = make_plan(path, RestorationDegradation(look_back), "uniform", steps)
    assert [(kind, float(value)) for kind, _, value in list(plan)[-1].writes[0]] == [("B", 1.0)]
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan


def test_a_place_that_stands_still_is_unchanged():
    times = torch.tensor([[0.9, 0.9], [0.8, 0.9], [0.8, 0.8], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)[..., None]
    m, b, _ = make_plan(VP(), "restoration-degradation", times)._matrices()
    for i, place in ((0, 1), (1, 0), (3, 0)):
        assert (float(m[i, place].squeeze()), float(b[i, place].squeeze())) == (1.0, 0.0)
    assert float(m[1, 1].squeeze()) == pytest.approx(float(m[0, 0].squeeze()), rel=1e-14)


def densities(x, times):
    """p_t of dx = −x³dt + √2 dW from two bumps, by the Fokker–Planck equation as a chain on the nodes x."""
    h = float(x[1] - x[0])
    # Rates between neighbours that keep the law exp(−x⁴/4) exactly.
    potential = x**4 / 4
    up = torch.exp(-(potential[1:] - potential[:-1]) / 2) / h**2
    down = torch.exp((potential[1:] - potential[:-1]) / 2) / h**2
    rates = torch.diag(up, -1) + torch.diag(down, 1)
    rates -= torch.diag(rates.sum(0))
    start = torch.exp(-((x - 0.9) ** 2) / 0.08) + 0.4 * torch.exp(-((x + 0.7) ** 2) / 0.08)
    start /= start.sum()
    step = torch.linalg.matrix_exp(rates * float(times[1] - times[0]))
    laws = [torch.linalg.matrix_exp(rates * float(times[0])) @ start]
    for _ in times[1:]:
        laws.append(step @ laws[-1])
    return torch.stack(laws[: len(times)])


def test_a_forward_equation_that_is_not_linear():
    """The two-step rule follows the probability flow: quantiles stay, ever better as ℓ, k and k/ℓ go to 0."""
    x = torch.linspace(-2.6, 2.6, 261, dtype=torch.float64)
    times = torch.linspace(0.05, 0.25, 401, dtype=torch.float64)
    laws = densities(x, times)
    score = torch.gradient(laws.log(), spacing=(x,), dim=1)[0]
    share = torch.tensor([0.1, 0.25, 0.45, 0.7, 0.9], dtype=torch.float64)

    def interpolate(values, at):
        i = torch.searchsorted(x, at).clamp(1, len(x) - 1)
        w = (at - x[i - 1]) / (x[i] - x[i - 1])
        return values[i - 1] * (1 - w) + values[i] * w

    def quantiles(law):
        total = law.cumsum(0) - law / 2
        i = torch.searchsorted(total, share)
        w = (share - total[i - 1]) / (total[i] - total[i - 1])
        return x[i - 1] + w * (x[i] - x[i - 1])

    def error(stride, look_back):
        y, dt = quantiles(laws[-1]), float(times[1] - times[0])
        for i in range(len(times) - 1, 0, -stride):
            y = restore_degrade(y, -(y**3), 2**0.5, interpolate(score[i], y), look_back, stride * dt)
        return float((y - quantiles(laws[0])).abs().max())

    errors = [error(40, 0.08), error(8, 0.04), error(1, 0.02)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02
    # A look back as long as the step is the reverse equation's mean, which collapses the law.
    assert error(1, 1.001 * 0.0005) > 5 * errors[2]


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="look_back must be more"):
        RestorationDegradation(0.0)
    with pytest.raises(ArgumentError, match="step < look_back"):
        restore_degrade(torch.zeros(1), torch.zeros(1), 1.0, torch.zeros(1), 0.1, 0.2)
