"""What every metric refuses, and what it leaves alone."""

import pytest
import torch

from fewstep.errors import ArgumentError
from fewstep.metrics import (
    density_coverage,
    frechet_distance,
    gaussian_frechet,
    mmd,
    precision_recall,
    psnr,
    sliced_w2,
    w2,
)

PAIRS = [frechet_distance, sliced_w2, w2, mmd, precision_recall, density_coverage, psnr]
GOOD = torch.linspace(-1, 1, 24).reshape(8, 3) ** 3
EYE = torch.eye(2)


def with_one(value):
    bad = GOOD.clone()
    bad[3, 1] = value
    return bad


@pytest.mark.parametrize("metric", PAIRS)
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (with_one(torch.nan), "finite"),
        (with_one(torch.inf), "finite"),
        (GOOD[:, :2], "same"),
        (GOOD[:0], "at least"),
        (torch.tensor(1.0), "got shape"),
        (GOOD[:, :0], "got shape"),
        (GOOD.to(torch.complex64), "real"),
        (GOOD.tolist(), "tensor"),
    ],
)
def test_bad_samples(metric, bad, says):
    with pytest.raises(ArgumentError, match=says):
        metric(GOOD, bad)
    with pytest.raises(ArgumentError, match=says):
        metric(bad, GOOD)


@pytest.mark.parametrize("metric", PAIRS[:-1])
def test_one_sample_is_too_few(metric):
    with pytest.raises(ArgumentError, match=r"n at least 2, got shape \(1, 3\)"):
        metric(GOOD, GOOD[:1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: w2(GOOD, GOOD[:7]), "same number of samples, got 8 and 7"),
        (lambda: psnr(GOOD, GOOD[:7]), "same shape"),
        (lambda: psnr(GOOD, GOOD, limits=(1, -1)), "limits"),
        (lambda: psnr(GOOD, GOOD, limits=(0, float("inf"))), "limits"),
        (lambda: sliced_w2(GOOD, GOOD, projections=0), "projections"),
        (lambda: sliced_w2(GOOD, GOOD, projections=2.5), "projections"),
        (lambda: sliced_w2(GOOD, GOOD, seed=-1), "seed"),
        (lambda: sliced_w2(GOOD, GOOD, seed=2**64), "seed"),
        (lambda: sliced_w2(GOOD, GOOD, seed=True), "seed"),
        (lambda: mmd(GOOD, GOOD, "gausian"), "did you mean 'gaussian'"),
        (lambda: mmd(GOOD, GOOD, "polynomial", [1.0]), "bandwidths must be None"),
        (lambda: psnr(GOOD, GOOD, limits=2), "limits"),
        (lambda: mmd(GOOD, GOOD, bandwidths=[]), "bandwidths"),
        (lambda: mmd(GOOD, GOOD, bandwidths=1.0), "bandwidths must be a sequence"),
        (lambda: mmd(GOOD, GOOD, bandwidths=[1.0, -1.0]), "bandwidths"),
        (lambda: mmd(GOOD, GOOD, bandwidths=[float("nan")]), "bandwidths"),
        (lambda: mmd(0 * GOOD, 0 * GOOD), "bandwidths must be given"),
        (lambda: precision_recall(GOOD, GOOD, k=0), "k must be"),
        (lambda: precision_recall(GOOD[:3], GOOD), "samples of real, 3, got 3"),
        (lambda: precision_recall(GOOD, GOOD[:3]), "samples of fake, 3, got 3"),
        (lambda: density_coverage(GOOD[:5], GOOD), "samples of real, 5, got 5"),
        (lambda: frechet_distance(GOOD, GOOD, lambda x: x.sum(1)), "features"),
        (lambda: frechet_distance(GOOD, GOOD, lambda x: x[:1]), "features"),
        (lambda: frechet_distance(GOOD, GOOD[:1], lambda x: x), "n at least 2"),
        (lambda: frechet_distance(GOOD, GOOD, lambda x: x / 0), "finite"),
        (lambda: gaussian_frechet(EYE[0], EYE, EYE[0], torch.eye(3)), r"cov_b must have shape \(2, 2\)"),
        (lambda: gaussian_frechet(EYE[0], EYE, torch.zeros(3), EYE), "mean_b"),
        (lambda: gaussian_frechet(EYE[0], -EYE, EYE[0], EYE), "cov_a must be positive"),
        (lambda: gaussian_frechet(EYE[0], EYE, EYE[0], EYE + torch.tensor([[0, 1.0], [0, 0]])), "cov_b must be sym"),
        (lambda: gaussian_frechet(EYE[0] / 0, EYE, EYE[0], EYE), "mean_a must be finite"),
    ],
)
def test_refused(call, says):
    with pytest.raises(ArgumentError, match=says):
        call()


@pytest.mark.parametrize("metric", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_answers_float64_and_leaves_samples_alone(metric, dtype):
    a, b = (10 * GOOD).to(dtype), (10 * GOOD.flip(1) + 1).to(dtype)
    kept = a.clone(), b.clone()
    if dtype.is_floating_point:
        a, b = a.requires_grad_(), b.requires_grad_()
    answer = metric(a, b)
    for value in answer if isinstance(answer, tuple) else (answer,):
        assert value.dtype == torch.float64
        assert value.shape == ((8,) if metric is psnr else ())
        assert not value.requires_grad
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])


def test_samples_of_lower_dtype_are_not_rounded_on_the_way():
    """In float32 a shift of one part in a thousand would be lost beside this distance from the origin."""
    a = 2.0**12 + torch.arange(8.0)[:, None] / 2**8
    assert float(w2(a, a + 2**-10)) == pytest.approx(2**-10, rel=1e-12)
    assert float(frechet_distance(a, a + 2**-10)) == pytest.approx(2**-20, rel=1e-6)
