"""The peak signal-to-noise ratio by hand."""

import math

import pytest
import torch

from fewstep.metrics import psnr


def test_by_hand():
    a = torch.zeros(3, 1, 2, 2)
    b = a.clone()
    b[0] += 0.2
    b[1, 0, 0, 0] = -1
    # Mean squared errors 0.04, 0.25 and 0, against a range of 2.
    expected = [20.0, 10 * math.log10(16), math.inf]
    assert psnr(a, b).tolist() == pytest.approx(expected, rel=1e-6)
    assert psnr(b, a).tolist() == pytest.approx(expected, rel=1e-6)


def test_limits_and_bytes():
    a = torch.tensor([[10, 200, 0], [1, 2, 3]], dtype=torch.uint8)
    b = torch.tensor([[13, 196, 0], [1, 2, 6]], dtype=torch.uint8)
    expected = [10 * math.log10(255**2 / (25 / 3)), 10 * math.log10(255**2 / 3)]
    assert psnr(a, b, limits=(0, 255)).tolist() == pytest.approx(expected, rel=1e-14)
    assert psnr(a, b, limits=(0, 255)).dtype == torch.float64
