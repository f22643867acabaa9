"""Experts a range of noise: the adaptation, the transfer against exact posteriors of classes, and who guides when."""

import copy

import pytest
import torch
from torch import nn

from fewstep import VP, make_plan, sample
from fewstep.errors import ArgumentError
from fewstep.guidance import ClassifierGuidance, ExpertGuidance, LowRankAdapted, train_experts
from fewstep.guidance.experts import expert_of, sharpened_divergence
from fewstep.worlds import GaussianMixture

PATH, MEAN, VARIANCE = VP(), 1.2, 0.3


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 5)
    ).double()


def test_an_adapted_network_begins_as_itself_and_adds_a_product_of_low_rank():
    net = small_net().train()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    adapted = LowRankAdapted(net, rank=2, scale=0.25)
    assert torch.equal(adapted(x), copy.deepcopy(net).eval()(x))
    assert net.training
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in adapted.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    by_hand = copy.deepcopy(net).eval()
    with torch.no_grad():
        for name, p in by_hand.named_parameters():
            held = {k.split(":")[1]: v for k, v in adapted.named_parameters() if k.startswith(name.replace(".", "/"))}
            if "free" in held:
                p.copy_(held["free"])
            else:
                assert torch.linalg.matrix_rank(held["b"] @ held["a"]) == 2
                p.add_(0.25 * (held["b"] @ held["a"]).reshape(p.shape))
    assert torch.allclose(adapted(x), by_hand(x), atol=1e-12)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert sum(p.numel() for p in adapted.parameters()) == 2 * (9 + 4) + 2 * (64 + 5) + 4 + 2 * 4 + 5


def teacher():
    """The exact logits of two classes N(±MEAN, VARIANCE) on a line."""
    net = nn.Linear(1, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0], [1.0]]) * MEAN / VARIANCE)
        net.bias.zero_()
    return net


def exact_slope(t):
    """d log-odds/dx of the classes at time t."""
    alpha, sigma = float(PATH.alpha(t)), float(PATH.sigma(t))
    return 2 * alpha * MEAN / (alpha**2 * VARIANCE + sigma**2)


def test_transfer_comes_to_the_exact_posterior_of_each_range():
    world = GaussianMixture([1.0, 1.0], torch.tensor([[-MEAN], [MEAN]]), torch.full((2, 1), VARIANCE))
    x0, net = world.sample(4000, seed=1).float(), teacher()

    def loss(clean, noisy):
        return sharpened_divergence(clean, noisy, temperature=1.0)

    experts = train_experts(net, PATH, x0, 4, loss=loss, steps=320, batch=256, rank=1, rate=0.1)
    line = torch.tensor([[0.0], [1.0]])

    def slope(expert):
        odds = expert(line).diff(dim=1)[:, 0]
        return float((odds[1] - odds[0]).detach())

    # An expert serves a range, so its slope lies between those at the range's ends.
    slopes = [slope(e) for e in experts]
    for n, found in enumerate(slopes):
        assert exact_slope((n + 1) / 4) - 0.15 < found < exact_slope(max(n / 4, 1e-3)) + 0.15
    assert slopes == sorted(slopes, reverse=True)
    (alone,) = train_experts(net, PATH, x0, 1, loss=loss, steps=100, batch=256, rank=1, rate=0.1)
    middles = [exact_slope((n + 0.5) / 4) for n in range(4)]
    missed = [abs(found - want) for found, want in zip(slopes, middles, strict=True)]
    assert all(a < 0.5 * abs(slope(alone) - want) for a, want in zip(missed[2:], middles[2:], strict=True))
    assert slope(net) > 2 * middles[2]


def test_the_divergence_sharpens_the_teacher_alone():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.3, 0.1]])
    p, q = (4 * a).softmax(1), b.softmax(1)
    assert torch.allclose(sharpened_divergence(a, b), (p * (p / q).log()).sum())
    assert float(sharpened_divergence(a, 4 * a)) == pytest.approx(0, abs=1e-7)


def test_the_lower_range_has_the_border():
    t = torch.tensor([0.0, 0.1, 0.25, 0.2501, 0.5, 1.0], dtype=torch.float64)
    assert expert_of(t, 4).tolist() == [0, 0, 0, 1, 1, 3]


def test_each_time_is_guided_by_its_own_expert():
    world = GaussianMixture([0.7, 0.3], torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), torch.full((2, 1), 0.2))
    den = world.denoiser(PATH)
    experts = [lambda x, n=n: -(x - n).square() for n in range(3)]

    def log_prob(x, t):
        n = 0 if t < 0.34 else 1 if t < 0.67 else 2
        return -(x - n).square().sum(1)

    def wanted(answers):
        return answers.sum(1)

    options = {"steps": 9, "grid": "uniform", "seed": 0, "dtype": torch.float64}
    got = sample(den, 4, guides=[ExpertGuidance(experts, wanted, 0.3)], **options).x
    assert torch.allclose(got, sample(den, 4, guides=[ClassifierGuidance(log_prob, 0.3)], **options).x, atol=1e-12)
    one = sample(den, 4, guides=[ExpertGuidance(experts[:1], wanted, 0.3)], **options).x
    assert (one - got).abs().max() > 0.1


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="at least one"):
        ExpertGuidance([], lambda p: p)
    with pytest.raises(ArgumentError, match="neither"):
        LowRankAdapted(nn.SiLU())
    with pytest.raises(ArgumentError, match="rank"):
        LowRankAdapted(nn.Linear(2, 2), rank=0)
    with pytest.raises(ArgumentError, match="count"):
        train_experts(teacher(), PATH, torch.zeros(4, 1), 5, steps=3)
    world = GaussianMixture([1.0], torch.zeros(1, 2), torch.ones(1, 1))
    plan = make_plan(PATH, "ddim", torch.tensor([[0.9, 0.8], [0.0, 0.0]], dtype=torch.float64).reshape(2, 1, 2))
    guide = ExpertGuidance([lambda x: x.sum(1)], lambda p: p)
    start = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="one time a sample"):
        sample(world.denoiser(PATH), start=start, plan=plan, guides=[guide])
