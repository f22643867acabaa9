"""Dynamic thresholding: numpy's quantile, each sample by its own, and nothing where the answer is in range."""

import numpy as np
import pytest
import torch

from fewstep import VP, sample, wrap
from fewstep.denoisers import Latent
from fewstep.errors import ArgumentError
from fewstep.guidance import Ask
from fewstep.guidance.thresholding import Thresholding, upper_quantile


def thresholded(x0, guide, limits=(-1.0, 1.0)):
    den = wrap(lambda x, t: x, VP(), "x0", shape=tuple(x0.shape[1:]), limits=limits)
    t = torch.tensor(0.5, dtype=torch.float64)
    ask = Ask(x0, t, t, 0, 1, den, lambda slot: x0)
    return guide.answer(ask, x0, None)[0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("size", [1, 2, 7, 400])
def test_the_quantile_is_numpys(share, size):
    values = torch.randn(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = np.quantile(values.numpy(), share, axis=1)
    assert upper_quantile(values, share)[:, 0].numpy() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-2.0, 6.0)])
def test_the_published_formula(low, high):
    x0 = 3 * torch.randn(4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = thresholded(x0, Thresholding(0.9), (low, high))
    for one, mine in zip(x0.numpy(), got.numpy(), strict=True):
        scaled = (one - (low + high) / 2) / ((high - low) / 2)
        s = max(np.quantile(np.abs(scaled), 0.9), 1.0)
        assert mine == pytest.approx((low + high) / 2 + (high - low) / 2 * np.clip(scaled, -s, s) / s, rel=1e-12)
    assert float(got.min()) >= low
    assert float(got.max()) <= high


def test_an_answer_in_range_stays_and_outliers_are_clipped():
    x0 = torch.linspace(-1, 1, 400, dtype=torch.float64).reshape(1, 4, 10, 10)
    assert torch.equal(thresholded(x0, Thresholding()), x0)
    x0[0, 0, 0, 0] = 50.0
    got = thresholded(x0, Thresholding())
    assert float(got[0, 0, 0, 0]) == 1.0
    assert torch.equal(got.flatten()[1:], x0.flatten()[1:])


def test_a_row_is_a_row():
    x0 = 3 * torch.randn(5, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = thresholded(x0, Thresholding())
    for i in range(5):
        assert torch.equal(whole[i : i + 1], thresholded(x0[i : i + 1], Thresholding()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    x0 = 3 * torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    got = thresholded(x0.to(dtype), Thresholding(0.9))
    assert got.dtype == dtype
    assert torch.allclose(got.float(), thresholded(x0, Thresholding(0.9)), atol=0.01)


def test_in_a_run_the_end_is_in_range():
    den = wrap(lambda x, t: 4 * torch.tanh(x), VP(), "x0", shape=(2, 6, 6))
    runs = [float(sample(den, 4, steps=4, guides=guides).x.abs().max()) for guides in ([], [Thresholding()])]
    assert runs[0] > 2
    assert runs[1] <= 1 + 1e-6


@pytest.mark.parametrize("quantile", [-0.1, 1.1, float("nan")])
def test_bad_parameters(quantile):
    with pytest.raises(ArgumentError, match="quantile"):
        Thresholding(quantile)


def test_latents_have_no_range_and_are_refused():
    asked = []
    den = wrap(lambda x, t: asked.append(1) or x, VP(), "x0", shape=(1, 4, 4))
    latent = Latent(den, torch.nn.Identity(), torch.nn.Identity(), (3, 8, 8))
    with pytest.raises(ArgumentError, match="model of pixels"):
        sample(latent, 1, steps=2, guides=[Thresholding()])
    assert not asked
