"""A field as a gradient and a gauge: exact where the basis holds both, and near where it is random."""

import pytest
import torch

from fewstep import VP
from fewstep.analysis.conservative_part import field_split
from fewstep.analysis.gauge import gauge_split
from fewstep.errors import ArgumentError
from fewstep.worlds import GaussianMixture

MEANS = torch.tensor([[-1.0, 0.0], [0.8, 0.6], [0.5, -0.9]], dtype=torch.float64)
WORLD = GaussianMixture([0.5, 0.3, 0.2], MEANS, torch.full((3, 1), 0.04))
PATH, T = VP(), 0.3
S = torch.tensor([[0.0, 0.8], [-0.8, 0.0]], dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen(n, seed=0):
    return PATH.alpha(T) * WORLD.sample(n, seed=seed) + PATH.sigma(T) * draw(n, 2, seed=seed + 1)


def score(x):
    return WORLD.score(x, PATH, T)


def test_linear_fields_are_split_as_the_closed_form_says():
    root = draw(3, 3)
    c, m = root @ root.mT + 0.2 * torch.eye(3), draw(3, 3, seed=1)
    x = draw(200_000, 3, seed=2) @ torch.linalg.cholesky(c).mT
    split = field_split(lambda x: x @ m.mT, x, waves=0)
    k, gauge = gauge_split(m, c)
    at = draw(5, 3, seed=3)
    assert torch.allclose(split.gradient(at), at @ k.mT, atol=0.03)
    assert torch.allclose(split.gauge(at), at @ gauge.mT, atol=0.03)


def test_a_turned_score_on_a_mixture_is_told_from_the_score():
    turned = lambda x: score(x) @ (torch.eye(2) + S).mT  # noqa: E731
    split = field_split(turned, seen(4000), waves=150, scale=1.5)
    x = seen(4000, seed=7)
    size = float(score(x).square().sum(1).mean())
    assert float((split.gradient(x) - score(x)).square().sum(1).mean()) < 0.03 * size
    assert float((split.gauge(x) - score(x) @ S.mT).square().sum(1).mean()) < 0.03 * size
    parts = [float(f(x).square().sum(1).mean()) for f in (turned, split.gradient, split.gauge)]
    assert parts[0] == pytest.approx(parts[1] + parts[2], rel=0.05)


def test_a_gradient_has_no_gauge_and_pure_rotation_has_no_gradient():
    x = seen(4000)
    assert float(field_split(score, x, 150, 1.5).gauge(x).square().mean()) < 0.01 * float(score(x).square().mean())
    spun = field_split(lambda x: x @ S.mT, draw(20_000, 2), waves=0)
    at = draw(10, 2, seed=5)
    assert float(spun.gradient(at).abs().max()) < 0.05


def test_bad_arguments():
    for options, match in (({"waves": -1}, "waves"), ({"scale": 0.0}, "scale"), ({"waves": 200}, "terms")):
        with pytest.raises(ArgumentError, match=match):
            field_split(score, seen(20), **options)
    with pytest.raises(ArgumentError, match="shape of x"):
        field_split(lambda x: x[:, :1], seen(500), waves=2)
