"""Inverse design: noises that keep their law, pools that find the deep mode, and simulators against their physics."""

import pytest
import torch

from fewstep import VE, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.search.inverse_design import InverseDesign
from fewstep.search.random_search import RandomSearch
from fewstep.search.simulators import Bead, ChannelFlow
from fewstep.worlds import Gaussian, GaussianMixture

# With so little data variance beside its noise one ddim step is the posterior mean; far more data than noise keeps n.
FLAT = Gaussian(torch.zeros(4), 1e6 * torch.eye(4)).denoiser(VE(1.0))


def pooled(search, n=200):
    """The noises of a pool, read off designs that are the noise itself up to a factor."""
    out = sample(FLAT, n, search=search, steps=1, dtype=torch.float64)
    plain = sample(FLAT, 2000, solver="ddim", steps=1, dtype=torch.float64).x
    return out, out.particles / plain.std()


def test_the_preserving_shake_keeps_the_law_and_the_plain_one_inflates_it():
    still = {"reward": lambda x: torch.zeros(len(x)), "particles": 8, "rounds": 6, "jitter": 0.5}
    last = pooled(InverseDesign(**still))[1][:, -8:]
    assert float(last.var()) == pytest.approx(1.0, abs=0.06)
    plain = pooled(InverseDesign(**still, preserving=False))[1][:, -8:]
    # A particle of the last of six rounds is on average 1 + ½ + … + ⅙ = 2.45 generations deep.
    assert float(plain.var()) == pytest.approx(1 + 2.45 * 0.25, abs=0.12)


def test_the_deeper_of_two_modes_is_found_more_often_than_by_drawing():
    world = GaussianMixture([0.97, 0.03], torch.tensor([[-1.0] * 3, [1.0] * 3]), torch.full((2, 1), 0.05))
    deep = lambda x: -(x - 1).square().sum(1)  # noqa: E731
    den = world.denoiser(VE(20.0))
    ours = sample(den, 100, search=InverseDesign(deep, 6, 7, jitter=0.6), steps=8)
    drawn = sample(den, 100, search=RandomSearch(deep, 48), steps=8, solver="ddim")
    assert ours.stats.evaluations == drawn.stats.evaluations == 48 * 8
    assert ours.stats.rewards == drawn.stats.rewards == 48
    assert float(ours.rewards.mean()) > float(drawn.rewards.mean())
    found = [float((o.rewards > -1.5).double().mean()) for o in (ours, drawn)]
    assert found[0] > found[1] + 0.1


def test_a_run_is_the_same_alone_and_the_answer_is_the_best_of_all():
    search = InverseDesign(lambda x: -x.square().sum(1), 4, 3)
    whole = sample(FLAT, 3, search=search, steps=2, seed=5)
    alone = sample(FLAT, 1, search=search, steps=2, seed=5, first=1)
    assert torch.allclose(whole.x[1:2], alone.x)
    assert torch.equal(whole.rewards, whole.scores.max(1).values)
    assert whole.particles.shape == (3, 16, 4)


def test_a_low_temperature_leaves_one_ancestor():
    search = InverseDesign(lambda x: x[:, 0], 8, 1, temperature=1e-9, jitter=1e-6)
    children = sample(FLAT, 2, search=search, steps=1, dtype=torch.float64).particles[:, 8:]
    assert float(children.std(1).max()) < 1e-2 * float(children.abs().max())


def test_the_bead_keeps_its_energy_without_friction():
    design = 0.2 * torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = []
    for steps in (2000, 4000):
        bead = Bead(0.5, friction=0.0, duration=1.0, steps=steps)
        x, v = bead(design)
        before, after = bead.height(design, torch.full_like(x, 0.5))[0], bead.height(design, x)[0]
        errors.append(float((0.5 * v.square() + 4 * (after - before)).abs().max()))
    assert errors[1] < 0.6 * errors[0] < 0.02


def test_the_bead_is_differentiable():
    design = (0.1 * torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    bead = Bead(steps=60)
    assert torch.autograd.gradcheck(lambda d: bead(d)[0], design, atol=1e-6)


def test_the_empty_channel_is_poiseuille():
    """u(y) = F·y(H − y)/(2ν) between walls half a cell beyond the fluid, up to the scheme's own slip there."""
    flow = ChannelFlow(3, 1200, 1e-4, 0.9)
    u = flow(torch.full((1, 1, 6, 3), -1.0))[0].double().mean(1)
    y = torch.arange(6, dtype=torch.float64) + 0.5
    slip = (u - 1e-4 * y * (6 - y) / (2 * flow.viscosity)) / 1e-4
    assert float(slip.std()) < 0.02
    assert -1 < float(slip.mean()) < 0


def test_obstacles_turn_the_flow():
    block = torch.full((2, 1, 8, 6), -1.0)
    block[0, 0, :4, 2:4], block[1, 0, 4:, 2:4] = 1.0, 1.0
    u = ChannelFlow(12, 200)(block)
    above, below = u[:, :4, 3].sum(1), u[:, 4:, 3].sum(1)
    assert float(above[0]) == 0 < float(below[0])
    assert float(below[1]) == 0 < float(above[1])
    assert torch.allclose(u[0], u[1].flip(0), atol=1e-6)


def test_bad_input_is_refused():
    for bad in ({"particles": 0}, {"rounds": -1}, {"jitter": 0.0}, {"jitter": 2.0}, {"temperature": 0.0}):
        with pytest.raises(ArgumentError):
            InverseDesign(lambda x: x[:, 0], **bad)
    with pytest.raises(NumericalError):
        sample(FLAT, 1, search=InverseDesign(lambda x: x[:, 0] / 0), steps=1)
    for made in (
        lambda: Bead(start=2.0), lambda: Bead(steps=0), lambda: ChannelFlow(relaxation=0.5),
        lambda: ChannelFlow()(torch.zeros(1, 8, 6)), lambda: Bead()(torch.zeros(3)), lambda: ChannelFlow(steps=2.5),
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            made()
