"""Latent and masked denoisers as wrappers, and the ones that ship."""

import math

import pytest
import torch

import fewstep
from fewstep import VP
from fewstep.denoisers import Latent, Masked, wrap
from fewstep.guidance import CFG, PAG
from fewstep.worlds import Gaussian

PATH = VP()


def inner():
    """A network that predicts v and is told λ, so that basis and told are its own."""
    return wrap(
        lambda x, time, **cond: x * time[:, None] + cond.get("shift", 0.0), PATH, "v", shape=(3,), time="lambda"
    )


def test_a_latent_denoiser_says_what_its_inner_one_says():
    den = Latent(inner(), lambda x: x[:, :3] / 2, lambda z: torch.cat([2 * z, z], 1), (6,))
    x = torch.randn(4, 3, dtype=torch.float64)
    for t in (0.2, 0.7):
        assert torch.equal(den(x, t), inner()(x, t))
        assert torch.equal(den(x, t, shift=1.0), inner()(x, t, shift=1.0))
    assert den.path == PATH
    assert den.predicts == "v"
    assert (den.shape, den.picture_shape, den.latent) == ((3,), (6,), True)
    out = fewstep.sample(den, 2, steps=3)
    assert torch.equal(out.x, fewstep.sample(inner(), 2, steps=3).x)
    assert torch.allclose(den.encode(den.decode(out.x)), out.x)
    plain = inner()
    assert (plain.latent, plain.picture_shape) == (False, (3,))
    assert plain.decode(x) is x
    assert plain.encode(x) is x


def test_a_masked_denoiser_shows_the_mask_and_no_more():
    told = []

    def net(x, time, mask):
        told.append((x, mask))
        return x + mask

    den = Masked(wrap(net, PATH, "x0", shape=(3,)))
    x, mask = torch.randn(2, 3), torch.tensor([1.0, 0.0, 1.0])
    answer = den(x, 0.5, mask=mask)
    assert torch.equal(told[0][0], x * mask)
    assert torch.equal(told[0][1], mask.expand(2, 3))
    assert torch.equal(answer, x * mask + mask)
    den(x, 0.5)
    assert torch.equal(told[1][0], x)
    assert torch.equal(told[1][1], torch.ones(2, 3))


def test_the_shipped_latent_model_decodes_what_it_encodes():
    den = fewstep.load("cifar10-latent")
    assert (den.shape, den.picture_shape, den.name) == ((8, 8, 8), (3, 32, 32), "cifar10-latent")
    line = torch.linspace(-1, 1, 32)
    picture = torch.stack([line[:, None] * torch.ones(32), torch.sin(3 * line).expand(32, 32), -line.expand(32, 32)])[
        None
    ]
    made = den.decode(den.encode(picture * 0.8))
    assert 10 * math.log10(4 / float((made - 0.8 * picture).square().mean())) > 28


def test_the_shipped_latent_model_has_latents_of_variance_1_and_parts_that_guides_find():
    den = fewstep.load("cifar10-latent")
    cond = {"label": list(range(8))}
    plain, guided, classes = (
        fewstep.sample(den, 8, steps=6, cond=cond, guides=g).x for g in ([], [PAG(1.0)], [CFG(2.0)])
    )
    assert float(plain.var()) == pytest.approx(1.0, abs=0.3)
    assert (plain - guided).abs().max() > 1e-3
    assert (plain - classes).abs().max() > 0.05
    assert den.decode(plain).shape == (8, 3, 32, 32)
    assert float(den.decode(plain).abs().mean()) < 1


def test_the_shipped_ambient_model_fills_in_what_it_is_not_shown():
    """A digit of the mnist model, its lower half hidden: what is guessed is nearer than leaving it black."""
    digits = fewstep.sample(fewstep.load("mnist"), 6, steps=8, cond={"label": [0, 3, 6, 8, 9, 5]}, seed=1).x
    den = fewstep.load("mnist-ambient")
    mask = (torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    with torch.no_grad():
        answer = den(digits * 0.95, 0.05, mask=mask)
    hidden = mask == 0
    assert (answer - digits)[hidden].square().mean() < 0.3 * (-1 - digits)[hidden].square().mean()


def test_gradients_go_through_the_decoder():
    world = Gaussian(torch.zeros(2), torch.eye(2))
    den = Latent(world.denoiser(PATH), lambda x: x / 3, lambda z: 3 * z, (2,))
    z = torch.ones(1, 2, requires_grad=True)
    den.decode(z).sum().backward()
    assert torch.equal(z.grad, torch.full((1, 2), 3.0))
