"""Values of the guides that are known beforehand: orders, filters, rates and special cases."""

import math

import pytest
import torch

from fewstep import CFG, VP, make_plan, sample, wrap
from fewstep.guidance import DensityGuidance, Factorized, FlowChef, Guide, HiGS
from fewstep.paths import Flow
from fewstep.worlds import Gaussian, GaussianMixture

# HiGS as an extrapolation and nothing else.
SETTINGS = {"weight": 1.0, "parallel": 1.0, "cutoff": None, "window": (0.0, 1.0), "schedule": "constant"}


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("scale", "order"), [(0.25, 1), (0.5, 2), (0.75, 1)])
def test_higs_of_one_half_is_of_second_order_and_no_other(scale, order):
    den = Gaussian(torch.zeros(1), 0.3).denoiser(VP())
    guide = HiGS(scale, **SETTINGS)
    start, low, high = torch.ones(1, 1, dtype=torch.float64), -2.0, 2.0

    def error(steps):
        times = VP().t_of_lam(torch.linspace(low, high, steps + 1, dtype=torch.float64))
        x = sample(den, start=start, plan=make_plan(VP(), "ddim", times), guides=[guide]).x
        deviations = (0.3 * VP().alpha(times).square() + VP().sigma(times).square()).sqrt()
        return float((x - deviations[-1] / deviations[0]).abs().max())

    assert math.log2(error(64) / error(128)) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.3])
def test_higs_of_half_the_ratio_of_the_steps_is_the_two_step_solver(ratio):
    """w = h_k/(2·h_{k−1}) in λ; on a grid whose steps grow by one factor that is a constant."""
    world = GaussianMixture([0.5, 0.3, 0.2], randn(3, 4), torch.tensor([[0.2], [0.1], [0.4]]))
    steps = ratio ** torch.arange(12, dtype=torch.float64)
    times = VP().t_of_lam(-4 + 7 * torch.cat([torch.zeros(1), steps.cumsum(0)]) / steps.sum())

    def end(solver, *guides):
        plan = make_plan(VP(), solver, times)
        return sample(world.denoiser(VP()), start=randn(8, 4, seed=1), plan=plan, guides=guides).x

    two = end("dpm-solver++")
    assert torch.allclose(end("ddim", HiGS(ratio / 2, **SETTINGS)), two, atol=1e-9)
    assert (end("ddim", HiGS(ratio / 2 + 0.1, **SETTINGS)) - two).abs().max() > 1e-3


class EachItsOwn(Guide):
    """HiGS whose scale is told for every step."""

    level = "answer"

    def __init__(self, scales):
        self.scales = scales

    def init(self, denoiser, batch):
        return HiGS().init(denoiser, batch)

    def answer(self, ask, x0, state):
        return HiGS(self.scales[ask.index], **SETTINGS).answer(ask, x0, state)


def test_higs_of_half_each_ratio_is_the_two_step_solver_on_any_grid():
    """w_k = h_k/(2·h_{k−1}), by which Euler's method becomes that of Adams and Bashforth."""
    world = GaussianMixture([0.5, 0.3, 0.2], randn(3, 4), torch.tensor([[0.2], [0.1], [0.4]]))
    h = 0.2 + torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    times = VP().t_of_lam(-4 + 7 * torch.cat([torch.zeros(1), h.cumsum(0)]) / h.sum())
    scales = [0.0, *(h[1:] / (2 * h[:-1])).tolist()]
    assert max(scales) > 3 * min(scales[1:])
    start, plan = randn(8, 4, seed=1), make_plan(VP(), "ddim", times)
    two = sample(world.denoiser(VP()), start=start, plan=make_plan(VP(), "dpm-solver++", times)).x
    assert torch.allclose(
        sample(world.denoiser(VP()), start=start, plan=plan, guides=[EachItsOwn(scales)]).x, two, atol=1e-9
    )
    same = [0.0] + [0.5] * 11
    off = sample(world.denoiser(VP()), start=start, plan=plan, guides=[EachItsOwn(same)]).x - two
    assert off.abs().max() > 1e-2


@pytest.mark.parametrize(("schedule", "share"), [("constant", 1.0), ("sqrt", 0.5), ("linear", 0.25)])
def test_higs_shapes_its_scale_over_the_window(schedule, share):
    """A quarter into (t₀, t₁], by the change of an answer; at t₀ and beyond t₁ there is none."""
    seen = []

    def net(x, t):
        seen.append(torch.sin(2 * x + len(seen)))
        return seen[-1]

    den = wrap(net, VP(), "x0", shape=(6,))
    guide = HiGS(1.7, 1.0, 1.0, None, (0.2, 0.6), schedule)
    times = torch.tensor([0.9, 0.7, 0.6, 0.3, 0.2, 0.1], dtype=torch.float64)
    out = sample(den, start=randn(1, 6), plan=make_plan(VP(), "ddim", times), guides=[guide], keep="answers")
    for k, factor in enumerate((0.0, 0.0, 1.7, 1.7 * share, 0.0)):
        push = seen[k] - seen[k - 1] if k else 0 * seen[k]
        assert torch.allclose(out.answers[k], seen[k] + factor * push, atol=1e-9)


def test_higs_moves_the_mean_of_a_channel_by_next_to_nothing():
    """At most 0.08·w of what the correction without its filter moves it by."""
    seen = []

    def net(x, t):
        seen.append(torch.tanh(x + 0.5 * len(seen)))
        return seen[-1]

    den = wrap(net, VP(), "x0", shape=(3, 32, 32))
    guide = HiGS(2.0, parallel=1.0, window=(0.0, 1.0), schedule="constant")
    plan = make_plan(VP(), "ddim", torch.tensor([0.8, 0.5, 0.0], dtype=torch.float64))
    out = sample(den, start=randn(2, 3, 32, 32), plan=plan, guides=[guide], keep="answers")
    moved, free = ((v).mean((-1, -2)) for v in (out.answers[1] - seen[1], 2.0 * (seen[1] - 0.75 * seen[0])))
    assert torch.allclose(moved, 0.0759 * free, rtol=2e-3)
    assert free.abs().min() > 0.1


def test_higs_keeps_these_shares_of_the_lowest_frequencies_of_32_pixels():
    wave = torch.cos(
        math.pi / 32 * (torch.arange(32, dtype=torch.float64) + 0.5)[:, None] * torch.tensor([0, 1, 2, 31])
    )
    for k, share in enumerate((0.0759, 0.2814, 0.6514, 1.0)):
        picture = wave[:, k].expand(1, 1, 32, 32)
        assert torch.allclose(HiGS()._filter(picture), share * picture, atol=1e-4)


def divergence(world, x, t):
    """div_λ of the plain flow of VP, dx/dλ = ασ²x̂₀ − σα²ε̂, by the Jacobian of x̂₀."""
    alpha, sigma = VP().alpha(t), VP().sigma(t)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: world.denoise(z[None], VP(), t)[0]))(x)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    return alpha * sigma**2 * trace - alpha**2 * (x.shape[1] - alpha * trace)


@pytest.mark.parametrize("quantile", [0.3, 0.7])
def test_density_guidance_hits_the_log_density_asked_for_within_a_hundredth(quantile):
    """From the start's log-density, the asked rate and the divergence along the run: where the run ends."""
    world = GaussianMixture([0.5, 0.3, 0.2], randn(3, 80, seed=5), torch.tensor([[0.2], [0.1], [0.4]]))
    lams = torch.linspace(-2, 2, 97, dtype=torch.float64)
    times = VP().t_of_lam(lams)
    start = VP().alpha(times[0]) * world.sample(2, seed=2) + VP().sigma(times[0]) * randn(2, 80, seed=7)
    out = sample(
        world.denoiser(VP()), start=start, plan=make_plan(VP(), "dpm-solver++", times),
        guides=[DensityGuidance(quantile)], keep="trajectory",
    )  # fmt: skip
    rates = torch.stack([divergence(world, x, t) for x, t in zip(out.trajectory, times, strict=True)])
    push = math.sqrt(2 * 80) * float(torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64)))
    asked = world.log_density(start, VP(), times[0]) + 4 * push - torch.trapezoid(rates, lams, dim=0)
    got = world.log_density(out.x, VP(), times[-1])
    assert abs(4 * push) > 25
    assert (got - asked).abs().max() < 0.01 * abs(4 * push)


def test_density_guidance_of_a_picture_of_cifar10():
    """Where ‖ε̂‖² = D = 3,072, q = 0.7 makes ε̂ larger by the factor 1.0134; ten units of λ are worth 411 nats."""
    den, t = Gaussian(torch.zeros(3072), 0.25).denoiser(VP()), torch.tensor(0.5, dtype=torch.float64)
    x = randn(1, 3072)
    plan = make_plan(VP(), "ddim", torch.tensor([0.5, 0.0]))

    def noise(guides, x):
        return (x - VP().alpha(t) * sample(den, start=x, plan=plan, guides=guides).x) / VP().sigma(t)

    x = x * (3072**0.5 / noise([], x).norm())
    assert torch.allclose(noise([DensityGuidance(0.7)], x), 1.01338 * noise([], x), rtol=1e-5)
    assert 10 * (2 * 3072) ** 0.5 * float(torch.special.ndtri(torch.tensor(0.7))) == pytest.approx(411, abs=0.5)


def test_factorized_into_multiples_of_the_identity_is_cfg():
    world = GaussianMixture([1.0] * 2, randn(2, 1, 4, 4), torch.tensor([[0.2], [0.5]]), component_labels=[0, 1])
    den, options = world.denoiser(VP()), {"steps": 6, "seed": 1, "dtype": torch.float64, "cond": {"label": 0}}
    parts = Factorized([lambda x: 7.5 * x, lambda x: -6.5 * x], [{"label": 1}])
    cfg = sample(den, 3, guides=[CFG(7.5, null={"label": 1})], **options)
    assert torch.allclose(sample(den, 3, guides=[parts], **options).x, cfg.x, atol=1e-9)


def test_factorized_by_a_projector_has_each_part_of_its_own_law():
    """With classes of independent numbers each half is that of its own class's run, spread and all."""
    world = GaussianMixture([1.0] * 2, randn(2, 1, 4, 4), torch.tensor([[0.2], [0.9]]), component_labels=[0, 1])
    den, options = world.denoiser(VP()), {"steps": 6, "seed": 1, "dtype": torch.float64}
    top = torch.zeros(4, 4, dtype=torch.float64)
    top[:2] = 1
    guide = Factorized([lambda x: x * top, lambda x: x * (1 - top)], [{"label": 1}])
    first, second = (sample(den, 3, cond={"label": k}, **options).x for k in (0, 1))
    got = sample(den, 3, cond={"label": 0}, guides=[guide], **options).x
    assert torch.allclose(got, first * top + second * (1 - top), atol=1e-9)


def test_flowchef_as_an_edit_of_the_answer():
    """One step of euler from t to t′ turns −s·g at the state into −s·g·t/(t − t′) at the answer."""
    den, size = Gaussian(torch.zeros(3), 0.4).denoiser(Flow(), "flow"), 0.3
    x, (t, after) = randn(2, 3), (0.8, 0.5)
    plan = make_plan(Flow(), "euler", torch.tensor([t, after], dtype=torch.float64))
    got = sample(den, start=x, plan=plan, guides=[FlowChef(lambda x0: x0.square().sum(1), size, last=True)]).x
    believed = den(x, t)
    edited = believed - size * 2 * believed * t / (t - after)
    assert torch.allclose(got, x + (after - t) * (x - edited) / t, atol=1e-9)


@pytest.mark.parametrize("block", [1, 4], ids=["inpainting", "pixels of four times the side"])
def test_flowchefs_published_size_closes_a_twelfth_of_the_gap(block):
    """Of 64×64 colour pictures: 500 times the mean square's gradient closes 1000/12288 of what was seen, each step."""
    den, x, (t, after) = Gaussian(torch.zeros(3, 64, 64), 0.4).denoiser(Flow(), "flow"), randn(1, 3, 64, 64), (0.8, 0.5)
    y, mask = randn(1, 3, 64 // block, 64 // block, seed=1), torch.ones(64 // block, dtype=torch.float64)
    mask[: 32 if block == 1 else 0] = 0

    def seen(x0):
        return torch.nn.functional.avg_pool2d(x0, block) * mask

    guide = FlowChef(lambda x0: (seen(x0) - y * mask).square().flatten(1).mean(1), 500.0, last=True)
    plan = make_plan(Flow(), "euler", torch.tensor([t, after], dtype=torch.float64))
    plain, steered = (sample(den, start=x, plan=plan, guides=g).x for g in ([], [guide]))
    gap = y * mask - seen(den(x, t))
    assert torch.allclose(seen(steered - plain), 1000 / 12288 * gap, atol=1e-9)
    assert round(1000 / 12288, 4) == 0.0814
    if block == 1:
        assert torch.equal(steered[..., :32], plain[..., :32])
