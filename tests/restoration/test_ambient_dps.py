"""Ambient DPS with the exact denoiser of masked data, and the loss that learns one from masked data alone."""

import pytest
import torch

from fewstep import VP, Flow, sample
from fewstep.errors import ArgumentError
from fewstep.restoration import Gaussian as Noise
from fewstep.restoration import Mask, Measurement, restore
from fewstep.restoration.ambient_dps import KeptMask
from fewstep.worlds import Gaussian, GaussianMixture
from fewstep.worlds.masked import masked_denoiser

PATH, RHO = VP(), 0.8
WORLD = Gaussian(torch.zeros(2), torch.tensor([[1.0, RHO], [RHO, 1.0]]))
DENOISER = masked_denoiser(WORLD, PATH)
MODES = GaussianMixture.full(
    [0.3, 0.7], torch.tensor([[1.0, 0.5, -1.0], [-0.6, 0.0, 1.0]]),
    torch.stack([torch.eye(3) * 0.2 + 0.1, torch.eye(3) * 0.4 - 0.1]),
)  # fmt: skip


def measured(sigma=0.05):
    return Measurement(Mask(torch.tensor([1, 0])), torch.tensor([[1.5, 0.0]], dtype=torch.float64), Noise(sigma))


def test_seeing_all_it_is_the_worlds_own_denoiser():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    den = masked_denoiser(MODES, PATH)
    for t in (0.1, 0.5, 0.9):
        assert torch.allclose(den(x, t), MODES.denoise(x, PATH, t), atol=1e-10)


def test_what_is_hidden_is_as_if_it_were_all_noise():
    """On the flow path a number at t = 1 says nothing, and a world takes a time for each number."""
    path, den = Flow(), masked_denoiser(MODES, Flow())
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.float64)
    times = torch.where(mask.bool(), 0.4, 1.0).double()
    assert torch.allclose(den(x, 0.4, mask=mask), MODES.denoise(x, path, times), atol=1e-9)
    other = torch.where(mask.bool(), x, 55.0)
    assert torch.equal(den(other, 0.4, mask=mask), den(x, 0.4, mask=mask))


def test_with_all_seen_it_is_dps():
    common = {"evaluations": 50, "samples": 4, "scale": 0.2, "dtype": torch.float64}
    ours = restore(DENOISER, measured(), "ambient-dps", **common)
    dps = restore(WORLD.denoiser(PATH), measured(), "dps", solver="ddim", **common)
    assert torch.allclose(ours.x, dps.x, atol=1e-9)


def test_what_the_mask_hides_has_the_variance_of_its_conditional_mean():
    """ρ² = 0.64 of the hidden number's variance of 1, and the visible one keeps its own."""
    mask = torch.tensor([1.0, 0.0])
    common = {"evaluations": 200, "scale": 0.0, "samples": 4000, "dtype": torch.float64}
    x = restore(DENOISER, measured(), "ambient-dps", mask=mask, **common).x
    assert float(x[:, 0].var()) == pytest.approx(1.0, abs=0.08)
    assert float(x[:, 1].var()) == pytest.approx(RHO**2, abs=0.06)
    assert torch.allclose(x[:, 1], RHO * x[:, 0], atol=0.02)


def test_it_finds_the_measured_number_and_the_mean_of_the_hidden_one():
    mask = torch.tensor([1.0, 0.0])
    x = restore(DENOISER, measured(), "ambient-dps", mask=mask, evaluations=300, scale=0.05, samples=50).x
    assert float(x[:, 0].mean()) == pytest.approx(1.5, abs=0.05)
    assert float(x[:, 1].mean()) == pytest.approx(RHO * 1.5, abs=0.06)


def test_the_mask_is_drawn_once_and_for_each_sample():
    seen = []
    den = masked_denoiser(GaussianMixture([1.0], torch.zeros(1, 2, 4, 4), torch.full((1, 1), 0.3)), PATH)
    raw = den._inner.raw
    den._inner.raw = lambda x, told, mask, **cond: seen.append(mask) or raw(x, told, mask=mask, **cond)
    sample(den, 40, solver="ddim", steps=3, guides=[KeptMask(0.25)])
    assert all(torch.equal(one, seen[0]) for one in seen)
    assert torch.equal(seen[0][:, 0], seen[0][:, 1])  # the channels of a place
    assert float(seen[0].mean()) == pytest.approx(0.25, abs=0.06)
    assert len({tuple(one.flatten().tolist()) for one in seen[0]}) > 30
    alone = []
    den._inner.raw = lambda x, told, mask, **cond: alone.append(mask) or raw(x, told, mask=mask, **cond)
    sample(den, 1, first=7, solver="ddim", steps=1, guides=[KeptMask(0.25)])
    assert torch.equal(alone[0][0], seen[0][7])


def test_bad_arguments_are_refused():
    with pytest.raises(ArgumentError, match="needs a model that takes a mask"):
        restore(WORLD.denoiser(PATH), measured(), "ambient-dps", evaluations=2)
    for options, message in (({"seen": 0.0}, "seen must lie"), ({"scale": -1.0}, "scale must be")):
        with pytest.raises(ArgumentError, match=message):
            restore(DENOISER, measured(), "ambient-dps", **options)


@pytest.mark.parametrize(
    ("mask", "message"),
    [(torch.full((2,), 0.5), "zeros and ones"), ([1, 0], "zeros and ones"), (torch.ones(3), r"samples of \(2,\), got")],
)
def test_a_mask_that_is_none_is_refused(mask, message):
    with pytest.raises(ArgumentError, match=message):
        restore(DENOISER, measured(), "ambient-dps", mask=mask, evaluations=2)
