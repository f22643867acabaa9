"""Guides where the guided target, or the guided step, is known in closed form."""

import math

import pytest
import torch

from fewstep import CFG, VP, Flow, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import (
    CADS,
    SAG,
    Ask,
    Autoguidance,
    ClassifierGuidance,
    Composition,
    ContrastiveEnergy,
    DensityControl,
    DensityGuidance,
    ExpertGuidance,
    Factorized,
    FixedComponent,
    FlowChef,
    HiGS,
    MinorityGuidance,
    SelfGuidedMinority,
    Steered,
    SteeredLinear,
    UpsampleGuidance,
    minority_classes,
    minority_score,
    prior_guidance,
)  # fmt: skip
from fewstep.guidance.annealed_mcmc import AnnealedMCMC
from fewstep.guidance.factorized import frequency_bands, grey_and_colour, motion_and_rest, regions
from fewstep.guidance.higs import cosine_transform
from fewstep.guidance.sag import attended_places, blurred
from fewstep.worlds import Gaussian, GaussianMixture

DOUBLE = {"dtype": torch.float64}


def mixture(**more):
    means = torch.tensor([[-1.5, 0.5, 1], [0.5, -1, 0], [2, 1, -1]], dtype=torch.float64)
    return GaussianMixture([0.6, 0.39, 0.01], means, torch.tensor([[0.2], [0.1], [0.4]]), **more)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize("solver", ["dpm-solver++", "ddpm", "heun"])
def test_the_exact_classifier_makes_the_conditional_sampler(path, solver):
    world = mixture(component_labels=[0, 1, 1])
    den = world.denoiser(path)

    def log_prob(x, t):
        return world.log_density(x, path, t, 1) - world.log_density(x, path, t)

    def classifier(x, t):
        return world.component_posterior(x, path, t).log()

    options = dict(solver=solver, steps=8, seed=1, **DOUBLE)
    # On the flow the run begins where α = 0 and the gradient is a limit, met up to e^{−8}.
    close = {"atol": 1e-8 if path == VP() else 2e-3}
    want = sample(den, 16, cond={"label": 1}, **options).x
    assert torch.allclose(
        sample(den, 16, guides=[ClassifierGuidance(log_prob, interval=(0, 1))], **options).x, want, **close
    )
    assert not torch.allclose(sample(den, 16, guides=[ClassifierGuidance(log_prob, 0.9)], **options).x, want, atol=1e-2)
    alone = mixture(component_labels=[0, 1, 2]).denoiser(path)
    rare = sample(alone, 16, cond={"label": 2}, **options).x
    guided = sample(den, 16, guides=[MinorityGuidance(classifier, scale=1.0, interval=(0, 1))], **options).x
    assert torch.allclose(guided, rare, **close)


def test_towards_pure_noise_a_gradient_guide_is_silent_unless_it_is_told_to_speak():
    """A gradient that does not vanish there, as a trained network's, is left out by default and has its own window."""
    den, logits = mixture().denoiser(Flow()), lambda x, t: torch.stack([x.sum(1), -x.sum(1)], 1)
    x, asked = randn(3, 3), []

    def slope(x, t=None):
        asked.append(t)
        return x.sum(1)

    def change(guide, t):
        plan = make_plan(Flow(), "ddim", torch.tensor([t, 0.0], dtype=torch.float64))
        return sample(den, start=x, plan=plan, guides=[guide]).x - sample(den, start=x, plan=plan).x

    kinds = [
        lambda window: ClassifierGuidance(slope, 1.0, window), lambda window: ContrastiveEnergy(slope, interval=window),
        lambda window: ExpertGuidance([lambda x: x], lambda a: a.sum(1), 1.0, window),
        lambda window: MinorityGuidance(lambda x, t: logits(x, t).log_softmax(1), 0, 1.0, window),
    ]  # fmt: skip
    for kind in kinds:
        assert not change(kind(None), 1.0).any()
        assert not change(kind(None), 0.9976).any()
        assert change(kind(None), 0.9974).abs().min() > 0
        assert change(kind((0.2, 0.7)), 0.5).abs().min() > 0
        assert not change(kind((0.2, 0.7)), 0.8).any()
        assert not change(kind((0.2, 0.7)), 0.1).any()
        assert change(kind((0.0, 1.0)), 1.0).abs().min() > 0
        with pytest.raises(ArgumentError, match="interval"):
            kind((0.7, 0.2))
    # σ²/α at λ = −8 is e⁸·σ, and e⁶ where the default ends.
    assert torch.allclose(change(kinds[0]((0.0, 1.0)), 1.0), torch.tensor(math.exp(8), dtype=torch.float64), rtol=1e-3)
    assert float(change(kinds[0](None), 0.9974).max()) < math.exp(6)
    # Two samples of two times: each by its own.
    plan = make_plan(Flow(), "ddim", torch.tensor([[0.5, 0.8], [0.0, 0.0]], dtype=torch.float64)[..., None])
    start = randn(2, 3)
    plain, guided = (sample(den, start=start, plan=plan, guides=g).x for g in ([], [kinds[0]((0.2, 0.7))]))
    guided = guided - plain
    assert torch.allclose(guided[0], torch.tensor(0.5, dtype=torch.float64))
    assert not guided[1].any()


def test_cfg_scale_interval_rescale_and_a_scale_of_time():
    den = mixture(component_labels=[0, 1, 1]).denoiser(VP())
    options = dict(steps=10, seed=1, cond={"label": 0}, grid="uniform", **DOUBLE)
    none = sample(den, 4, **{**options, "cond": {"label": 2}})
    assert torch.allclose(sample(den, 4, guides=[CFG(0.0)], **options).x, none.x, atol=1e-12)
    some = sample(den, 4, guides=[CFG(3.0, interval=(0.25, 0.65))], **options)
    asked = [float(t) for t in some.plan.ask_times]
    assert some.stats.evaluations == len(asked) + sum(0.25 <= t <= 0.65 for t in asked) < 20
    falling = sample(den, 4, guides=[CFG(lambda t: 1 + 2 * (t > 0.5).double())], **options)
    cut = sample(den, 4, guides=[CFG(3.0, interval=(0.5001, 1.0))], **options)
    assert torch.allclose(falling.x, cut.x, atol=1e-12)
    x, t = randn(3, 3), torch.tensor(0.5, dtype=torch.float64)
    one = make_plan(VP(), "ddim", torch.tensor([0.5, 0.0]))
    got = sample(den, start=x, plan=one, guides=[CFG(4.0, rescale=1.0)], cond={"label": 0}).x
    plain = den(x, t, label=0)
    pushed = plain + 3 * (plain - den(x, t, label=2))
    assert torch.allclose(got, pushed * (plain.std(1) / pushed.std(1))[:, None], atol=1e-10)


def test_autoguidance_pushes_away_from_the_weak_model():
    den, weak = (Gaussian(torch.zeros(4), v).denoiser(VP()) for v in (0.3, 0.6))
    x, one = randn(2, 4), make_plan(VP(), "ddim", torch.tensor([0.5, 0.0]))
    out = sample(den, start=x, plan=one, guides=[Autoguidance(weak, 2.5)])
    assert torch.allclose(out.x, den(x, 0.5) + 1.5 * (den(x, 0.5) - weak(x, 0.5)), atol=1e-10)
    assert out.stats.evaluations == 2


def test_density_guidance_in_half_precision_is_that_of_whole_numbers():
    """‖ε̂‖² of a large picture is beyond what float16 can say."""
    x, t = randn(1, 3, 200, 200), torch.tensor(0.5, dtype=torch.float64)
    den = wrap(lambda x, t: 0.1 * x, VP(), "x0", shape=(3, 200, 200))

    def change(dtype):
        ask = Ask(x.to(dtype), t, t, 0, 1, den, lambda slot: x)
        return DensityGuidance(0.001).answer(ask, 0.1 * x.to(dtype), None)[0].double() - 0.1 * x

    assert torch.allclose(change(torch.float16), change(torch.float64), atol=3e-3)
    assert change(torch.float64).abs().max() > 0.05


def test_higs_with_these_numbers_is_the_two_step_solver():
    den = mixture().denoiser(VP())
    times = VP().t_of_lam(torch.linspace(-4, 3, 13, dtype=torch.float64))
    guide = HiGS(0.5, weight=1.0, parallel=1.0, cutoff=None, window=(0.0, 1.0), schedule="constant")
    x = randn(8, 3)
    # The first step that the two share is Euler's; all later ones extrapolate by half.
    history = sample(den, start=x, plan=make_plan(VP(), "ddim", times), guides=[guide])
    two = sample(den, start=x, plan=make_plan(VP(), "dpm-solver++", times))
    assert torch.allclose(history.x, two.x, atol=1e-10)
    assert history.stats.evaluations == two.stats.evaluations


def test_higs_takes_each_step_into_its_mean_once_and_keeps_along_and_across():
    answers = []

    def net(x, t):
        answers.append(torch.sin(3 * x + len(answers)))
        return answers[-1]

    den = wrap(net, VP(), "x0", shape=(2, 4, 4))
    guide = HiGS(2.0, weight=0.75, parallel=0.3, cutoff=0.2, window=(0.1, 0.9))
    times = torch.tensor([0.8, 0.6, 0.3, 0.0], dtype=torch.float64)
    out = sample(den, start=randn(1, 2, 4, 4), plan=make_plan(VP(), "ddim", times), guides=[guide], keep="answers")
    mean = 0.75 * answers[1] + 0.25 * 0.75 * answers[0]
    push, d = answers[2] - mean, answers[2]
    push = push - 0.7 * (push * d).sum() / d.square().sum() * d
    c = cosine_transform(4)
    radius = (torch.arange(4.0)[:, None].square() + torch.arange(4.0).square()).sqrt() / 4
    push = c.T @ (torch.sigmoid(50 * (radius - 0.2)) * (c @ push @ c.T)) @ c
    assert torch.allclose(out.answers[2], d + 2 * math.sqrt(0.2 / 0.8) * push, atol=1e-6)
    assert torch.equal(out.answers[0], answers[0])
    assert torch.allclose(c @ c.T, torch.eye(4, dtype=torch.float64), atol=1e-12)


def flow_divergence(world, x, t):
    """div_λ of the plain flow dx/dλ = α′_λ x̂₀ + σ′_λ ε̂, by the Jacobian of x̂₀: VP has α′ = ασ², σ′ = −σα²."""
    alpha, sigma = VP().alpha(t), VP().sigma(t)
    trace = torch.stack([
        torch.autograd.functional.jacobian(lambda z: world.denoise(z[None], VP(), t)[0], row).diagonal().sum()
        for row in x
    ])  # fmt: skip
    d = x.shape[1]
    return alpha * sigma**2 * trace - alpha**2 * (d - alpha * trace)


@pytest.mark.parametrize("quantile", [0.3, 0.6])
def test_density_guidance_has_the_asked_rate_of_log_density(quantile):
    means = randn(3, 24, seed=5)
    world = GaussianMixture([0.5, 0.3, 0.2], means, torch.tensor([[0.2], [0.1], [0.4]]))
    den, lam, h = world.denoiser(VP()), 0.3, 1e-4
    times = VP().t_of_lam(torch.tensor([lam - h / 2, lam + h / 2], dtype=torch.float64))
    middle = VP().t_of_lam(torch.tensor(lam, dtype=torch.float64))
    x = VP().alpha(middle) * world.sample(6) + VP().sigma(middle) * randn(6, 24, seed=7)
    after = sample(den, start=x, plan=make_plan(VP(), "ddim", times), guides=[DensityGuidance(quantile)]).x
    rate = (world.log_density(after, VP(), times[1]) - world.log_density(x, VP(), times[0])) / h
    push = math.sqrt(2 * 24) * float(torch.special.ndtri(torch.tensor(quantile, dtype=torch.float64)))
    assert torch.allclose(rate, push - flow_divergence(world, x, middle), rtol=0.01, atol=0.02)
    assert abs(push) > 1


def test_prior_guidance_sets_the_length():
    from scipy.stats import chi

    x = prior_guidance(randn(4, 3, 5), 0.9, 2.0)
    assert torch.allclose(x.flatten(1).norm(dim=1), torch.full((4,), 2 * chi.ppf(0.9, 15), dtype=torch.float64))
    with pytest.raises(ArgumentError, match="quantile"):
        prior_guidance(x, 1.0)


def test_blur_guidance_on_white_data_is_the_known_factor():
    den = Gaussian(torch.zeros(1, 8, 8), 0.5).denoiser(VP())
    t = torch.tensor(0.4, dtype=torch.float64)
    x = randn(2, 1, 8, 8)
    got = sample(
        den, start=x, plan=make_plan(VP(), "ddim", torch.tensor([0.4, 0.0])), guides=[SAG(0.7, 1.3, mask=False)]
    )
    alpha, variance = VP().alpha(t), VP().sigma(t) ** 2
    gain = alpha**2 * 0.5 / (alpha**2 * 0.5 + variance)
    x0 = den(x, t)
    assert torch.allclose(got.x, x0 - 0.7 * (1 - gain) * (x0 - blurred(x0, 1.3)), atol=1e-9)
    assert got.stats.evaluations == 2


def test_the_mask_marks_what_gets_more_than_its_share():
    mass = torch.tensor([[0.5, 2.0, 1.0, 0.5]])
    mask = attended_places(mass, (4, 4))[0, 0]
    assert mask.sum() == 4
    assert mask[:2, 2:].all()
    flat = blurred(torch.full((1, 1, 6, 6), 3.0), 2.0)
    assert torch.allclose(flat, torch.full_like(flat, 3.0))
    with pytest.raises(ArgumentError, match="do not tile"):
        attended_places(torch.ones(1, 5), (8, 8))


@pytest.mark.parametrize(
    "components", [frequency_bands(1.0), frequency_bands(2.0, 1.0), grey_and_colour(), motion_and_rest(3)],
    ids=["hybrid", "triple", "colour", "motion"],
)  # fmt: skip
def test_a_hybrid_has_each_component_of_its_own_class(components):
    """With classes of one covariance the guided sample is the plain one moved by f₁μ₁ + f₂μ₂ exactly."""
    count = len(components)
    means = randn(count, 3, 8, 8)
    world = GaussianMixture([1.0] * count, means, torch.full((count, 1), 0.2), component_labels=range(count))
    den, plan = world.denoiser(VP()), make_plan(VP(), "dpm-solver++", steps=8)
    start = randn(2, 3, 8, 8, seed=4)
    zero = Gaussian(torch.zeros(3, 8, 8), 0.2).denoiser(VP())
    guide = Factorized(components, [{"label": k} for k in range(1, count)])
    got = sample(den, start=start, plan=plan, guides=[guide], cond={"label": 0})
    hybrid = sum(f(m[None]) for f, m in zip(components, means, strict=True))
    shift = sample(Gaussian(hybrid[0], 0.2).denoiser(VP()), start=start, plan=plan).x
    assert torch.allclose(got.x, shift, atol=1e-9)
    assert not torch.allclose(got.x, sample(zero, start=start, plan=plan).x, atol=0.1)
    assert got.stats.evaluations == 8 * count


def test_beside_cfg_each_component_has_its_own():
    means = randn(3, 1, 8, 8)
    den = GaussianMixture([1.0] * 3, means, torch.full((3, 1), 0.2), component_labels=range(3)).denoiser(VP())
    low, high = frequency_bands(1.0)
    x, one = randn(2, 1, 8, 8), make_plan(VP(), "ddim", torch.tensor([0.5, 0.0]))
    guides = [CFG(4.0, null={"label": 2}), Factorized([low, high], [{"label": 1}], scale=4.0)]
    out = sample(den, start=x, plan=one, guides=guides, cond={"label": 0})
    first, second, none = (den(x, 0.5, label=k) for k in range(3))
    assert torch.allclose(out.x, none + 4 * low(first - none) + 4 * high(second - none), atol=1e-9)
    assert out.stats.evaluations == 3


def test_a_fixed_component_is_that_of_the_picture_at_the_end():
    mask = torch.zeros(1, 4, 4, dtype=torch.float64)
    mask[:, :2] = 1
    inside, rest = regions(mask)
    assert torch.allclose(inside(randn(1, 1, 4, 4)) + rest(randn(1, 1, 4, 4)), randn(1, 1, 4, 4))
    den, picture = Gaussian(torch.zeros(1, 4, 4), 0.3).denoiser(VP()), randn(1, 4, 4, seed=8)
    out = sample(den, 3, steps=6, guides=[FixedComponent(inside, picture)], **DOUBLE).x
    assert torch.allclose(out[:, :, :2], picture[None, :, :2].expand(3, -1, -1, -1))
    assert out[:, :, 2:].std() > 0.1


def test_upsampled_block_means_are_the_small_run():
    """With w = 1 and any network, DDIM's block means are its run at the small size on the grid λ + log m."""

    def net(x, t):
        return torch.tanh(x.roll(1, -1) + x.mean((-1, -2), keepdim=True) + t.double()[:, None, None, None])

    path, m = VP(), 2
    large, small = (wrap(net, path, "x0", shape=(1, n, n)) for n in (8, 4))
    lam = torch.linspace(-3, 2, 7, dtype=torch.float64)
    x = randn(2, 1, 8, 8)
    pool = torch.nn.functional.avg_pool2d
    plan = make_plan(path, "ddim", path.t_of_lam(lam))
    low_times = path.t_of_lam(lam + math.log(m))
    ratio = path.alpha(low_times) / path.alpha(plan.times)
    got = sample(large, start=x, plan=plan, guides=[UpsampleGuidance(m)])
    want = sample(small, start=ratio[0] * pool(x, m), plan=make_plan(path, "ddim", low_times)).x
    assert torch.allclose(ratio[-1] * pool(got.x, m), want, atol=1e-12)
    assert got.stats.evaluations == 12
    half = sample(large, start=x, plan=plan, guides=[UpsampleGuidance(m, share=0.5)])
    assert 6 < half.stats.evaluations < 12


def test_flowchef_is_the_papers_algorithm_on_the_flow():
    den = mixture().denoiser(Flow(), "flow")
    times, y, size = torch.tensor([0.9, 0.6, 0.3, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.5]), 0.3
    x = randn(4, 3)
    got = sample(
        den, start=x, plan=make_plan(Flow(), "euler", times),
        guides=[FlowChef(lambda x0: (x0 - y).square().sum(1), size, rounds=2)],
    )  # fmt: skip
    for i in range(3):
        t, after = times[i], times[i + 1]
        v = (x - den(x, t)) / t
        for _ in range(2 if i < 2 else 0):
            x = x - size * 2 * (x - t * v - y)
        x = x + (after - t) * v
    assert torch.allclose(got.x, x, atol=1e-10)
    assert got.stats.evaluations == 3


def test_steered_linear_ends_on_the_measurement():
    den, y = Gaussian(torch.zeros(4), 0.3).denoiser(VP()), torch.tensor([[0.7, -0.2]], dtype=torch.float64)

    def back(v):
        return torch.cat([v, 0 * v], 1)

    out = sample(den, 5, steps=6, solver="ddpm", guides=[SteeredLinear(lambda x: x[:, :2], back, y)], **DOUBLE).x
    assert torch.allclose(out[:, :2], y.expand(5, 2), atol=1e-12)
    assert out[:, 2:].std() > 0.1


def test_steered_takes_the_gradient_through_the_denoiser():
    den, y = Gaussian(torch.zeros(3), 0.3).denoiser(VP()), torch.tensor([0.4, 0.1, -0.5], dtype=torch.float64)
    x, t = randn(2, 3), torch.tensor(0.5, dtype=torch.float64)
    guide = Steered([(2.0, lambda x0: (x0 - y).square().sum(1)), (0.5, lambda x0: x0.sum(1))])
    got = sample(den, start=x, plan=make_plan(VP(), "ddim", torch.tensor([0.5, 0.0])), guides=[guide]).x
    alpha, sigma = VP().alpha(t), VP().sigma(t)
    gain = alpha * 0.3 / (alpha**2 * 0.3 + sigma**2)
    x0 = gain * x
    assert torch.allclose(got, x0 - sigma * gain * (2.0 * 2 * (x0 - y) + 0.5), atol=1e-10)


def test_self_guided_minority_goes_uphill_with_the_second_answer_held():
    den = Gaussian(torch.zeros(3), 0.3).denoiser(VP())
    x, plan = randn(2, 3), make_plan(VP(), "ddim", torch.tensor([0.5, 0.0]))
    guide = SelfGuidedMinority(0.4, t_noise=0.7)
    got = sample(den, start=x, plan=plan, guides=[guide], seed=3)
    from fewstep.noise import KeyedNoise

    z = KeyedNoise(3, range(2), (3,), torch.float64, "cpu").guide(0)
    x0 = den(x, 0.5)
    again = den(float(VP().alpha(0.7)) * x0 + float(VP().sigma(0.7)) * z, 0.7)
    push = (x0 - again) / (x0 - again).abs().amax(1, keepdim=True)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert torch.allclose(got.x, x0 + 0.4 * VP().sigma(t) ** 2 * push, atol=1e-9)
    assert got.stats.evaluations == 2
    # A step of ddpm that ends within moves its mean by w·β·ĝ, β = 1 − α²/α′².
    within = make_plan(VP(), "ddpm", torch.tensor([0.5, 0.3]))
    plain, moved = (sample(den, start=x, plan=within, guides=g, seed=3).x for g in ([], [guide]))
    beta = 1 - (VP().alpha(t) / VP().alpha(torch.tensor(0.3, dtype=torch.float64))) ** 2
    assert torch.allclose(moved - plain, 0.4 * beta * push, atol=1e-9)
    later = sample(den, 1, steps=6, guides=[SelfGuidedMinority(0.4, every=3)])
    assert later.stats.evaluations == 8
    assert sample(den, 1, steps=6, guides=[SelfGuidedMinority(0.4, every=1, t_mid=1.0)]).stats.evaluations == 6


def test_the_minority_score_is_high_for_rare_samples():
    means = torch.tensor([[-2.0] * 8, [0.0] * 8, [2.0] * 8], dtype=torch.float64)
    world = GaussianMixture([0.9, 0.09, 0.01], means, torch.full((3, 1), 0.05), component_labels=[0, 1, 2])
    scores = [minority_score(world.denoiser(VP()), world.sample(64, label=k), 0.7).mean() for k in range(3)]
    assert scores[0] < scores[1] < scores[2]
    # One Gaussian N(0, v): ℓ = E(x₀ − g(αx₀ + σε))² by hand.
    den, x = Gaussian(torch.zeros(2000), 0.5).denoiser(VP()), randn(1, 2000)
    alpha, sigma = float(VP().alpha(0.6)), float(VP().sigma(0.6))
    gain = alpha * 0.5 / (alpha**2 * 0.5 + sigma**2)
    want = (1 - gain * alpha) ** 2 * x.square().mean() + (gain * sigma) ** 2
    assert float(minority_score(den, x, 0.6, draws=20)) == pytest.approx(float(want), rel=0.03)
    bins = minority_classes(torch.tensor([3.0, 1.0, 2.0, 9.0, 5.0, 4.0]), 3)
    assert bins.tolist() == [1, 0, 0, 2, 2, 1]


def test_cads_anneals_the_condition():
    told = []

    def net(x, t, emb):
        told.append((float(t[0]), emb))
        return torch.tanh(x + emb.mean())

    den = wrap(net, VP(), "x0", shape=(40,), time="t")
    emb = randn(2, 10, 10)
    grid = torch.linspace(0.999, 0, 11, dtype=torch.float64)
    guide = CADS("emb", scale=0.5, begin=0.35, end=0.75)
    sample(den, start=randn(2, 40), plan=make_plan(VP(), "ddim", grid), guides=[guide], cond={"emb": emb})
    for t, y in told:
        if t <= 0.35:
            assert torch.equal(y, emb)
            continue
        assert torch.allclose(y.mean((1, 2)), emb.mean((1, 2)))
        assert torch.allclose(y.std((1, 2)), emb.std((1, 2)))
        gamma = min(max((0.75 - t) / 0.4, 0.0), 1.0)
        # The correlation with the clean condition, of √γ·y + s√(1 − γ)·n.
        want = math.sqrt(gamma) / math.sqrt(gamma + 0.25 * (1 - gamma))
        got = torch.corrcoef(torch.stack([y.flatten(), emb.flatten()]))[0, 1]
        assert float(got) == pytest.approx(want, abs=0.2)
    assert not torch.equal(told[0][1], told[1][1])


@pytest.mark.parametrize(
    ("guide", "cond", "match"),
    [
        (CADS("label"), {"label": 1}, "floating-point tensor"),
        (CADS("emb"), {"label": 1}, "no such condition"),
        (ClassifierGuidance(lambda x, t: x), {}, "one number a sample"),
        (ClassifierGuidance(lambda x, t: x.detach().sum(1)), {}, "not differentiable"),
        (Steered([(1.0, lambda x0: x0.sum())]), {}, "one number a sample"),
        (SAG(1.0), {}, "blurs pictures"),
        (MinorityGuidance(lambda x, t: x.sum(1)), {}, "classifier must give"),
        (Factorized([lambda x: x, lambda x: x], [{"label": 1}]), {"label": 0}, "sum to the identity"),
        (Autoguidance(Gaussian(torch.zeros(4), 1.0).denoiser(VP())), {}, "weak denoiser"),
        (UpsampleGuidance(2), {}, "multiples of factor"),
        (CFG(2.0), {}, "needs a null for one of the conditions"),
        (CFG(2.0, null={"text": 1}), {"label": 0}, "needs a null for one of the conditions"),
        (Steered([(1.0, lambda x0: x0.detach().sum(1))]), {}, "not differentiable"),
        (Steered([(1.0, lambda x0: (x0 > 0).double().sum(1))]), {}, "not differentiable"),
        (FlowChef(lambda x0: torch.ones(2, requires_grad=True)), {}, "does not depend on its input"),
        (FlowChef(lambda x0: x0.sum()), {}, "one number a sample"),
        (FlowChef(lambda x0: 1.0), {}, "one number a sample"),
        (SelfGuidedMinority(distance=lambda a, b: a.sum()), {}, "distance must give one number a sample"),
        (SelfGuidedMinority(distance=lambda a, b: b.sum(1)), {}, "not differentiable"),
        (AnnealedMCMC(Composition(log_probs=[lambda x, t: x.sum()]), "mala"), {}, "log_probs must give one number"),
        (AnnealedMCMC(Composition(((1.0, Gaussian(torch.zeros(4), 1.0).denoiser(VP())),))), {}, "every expert must be"),
        (SteeredLinear(lambda x: x[:, :2], lambda y: y, torch.zeros(2)), {}, r"backward give \(2, 3\)"),
        (SteeredLinear(lambda x: x[:, :1], lambda y: y.expand(-1, 3), torch.zeros(3)), {}, "y must fit what forward"),
        (FixedComponent(lambda x: x, torch.zeros(4)), {}, "picture must be"),
        (FixedComponent(lambda x: x[:, :1], torch.zeros(3)), {}, "component must give the shape"),
        (Steered([(1.0, lambda x0: x0.sum(1)), (1.0, lambda x0: x0.detach().sum(1))]), {}, "not differentiable"),
        (DensityControl(0.0, variance=torch.ones(2)), {}, "variance must be a number or of shape"),
        (CADS("emb"), {"emb": torch.zeros(2)}, "which one number has not"),
        (
            Composition(((1.0, {"label": 1}),), 1.0, "mixture", [lambda x, t: x.sum()] * 2),
            {"label": 0},
            "log_probs must give one number",
        ),
    ],
    ids=lambda v: type(v).__name__ if hasattr(v, "level") else "",
)
def test_bad_input_at_the_run(guide, cond, match):
    with pytest.raises(ArgumentError, match=match):
        sample(mixture(component_labels=[0, 1, 2]).denoiser(VP()), 2, steps=2, guides=[guide], cond=cond)


def test_cfg_of_a_model_without_a_null_condition():
    bare = wrap(lambda x, t, label: x, VP(), "x0", shape=(3,))
    with pytest.raises(ArgumentError, match=r"CFG needs a null for one of the conditions \['label'\]"):
        sample(bare, 2, steps=2, guides=[CFG(2.0)], cond={"label": 1})
    given = sample(bare, 2, steps=2, guides=[CFG(2.0, null={"label": 0})], cond={"label": 1})
    assert given.stats.evaluations == 4


def test_the_minority_score_takes_a_distance_of_one_number_a_sample():
    den = Gaussian(torch.zeros(3), 0.5).denoiser(VP())
    with pytest.raises(ArgumentError, match="distance must give one number a sample"):
        minority_score(den, randn(4, 3), distance=lambda a, b: (a - b).square().mean())


@pytest.mark.parametrize(
    "make",
    [
        lambda: CFG(interval=(0.5, 0.2)), lambda: CFG(rescale=2.0), lambda: HiGS(weight=0.0),
        lambda: HiGS(window=(0.5, 0.5)), lambda: HiGS(schedule="cubic"), lambda: CADS(begin=0.9, end=0.5),
        lambda: CADS(mixing=2.0), lambda: DensityGuidance(1.0), lambda: SAG(blur=0.0),
        lambda: SelfGuidedMinority(draws=65),
        lambda: SelfGuidedMinority(every=0), lambda: SelfGuidedMinority(t_noise=1.0), lambda: UpsampleGuidance(1),
        lambda: FlowChef(lambda x: x.sum(1), rounds=0), lambda: Factorized([lambda x: x], [{}]),
        lambda: Composition(kind="sum"), lambda: Composition(kind="mixture"), lambda: AnnealedMCMC(kind="gibbs"),
        lambda: AnnealedMCMC(rounds=33), lambda: AnnealedMCMC(kind="mala"), lambda: frequency_bands(1.0, 2.0),
        lambda: minority_classes(torch.ones(3), 4), lambda: CFG(interval=None), lambda: CFG("strong"),
        lambda: CFG(math.nan), lambda: AnnealedMCMC(below=0.0), lambda: AnnealedMCMC(below=1.5),
        lambda: Autoguidance(lambda x, t: x), lambda: Steered([lambda x0: x0.sum(1)]), lambda: Steered([(1.0, 2.0)]),
        lambda: SteeredLinear(torch.neg, torch.neg, 1.0),
        lambda: SteeredLinear(torch.neg, torch.neg, torch.ones(1), 2.0),
        lambda: FixedComponent(torch.neg, 1.0), lambda: Composition([{"label": 1}]), lambda: Composition([(1.0, 2)]),
        lambda: Composition([(0.0, {})], 0.0, "mixture", [torch.neg] * 2), lambda: motion_and_rest(0),
        lambda: prior_guidance(torch.ones(1, 3), 0.5, 0.0),
    ],
)  # fmt: skip
def test_bad_input_at_the_call(make):
    with pytest.raises(ArgumentError):
        make()
