"""What must never be restored in silence: measurements that cannot be, or can hardly be meant."""

import types

import pytest
import torch

from fewstep import VP
from fewstep.errors import ArgumentError
from fewstep.restoration import AverageDownsample, Gaussian, Mask, Measurement, PhaseRetrieval, restore
from fewstep.worlds import Gaussian as GaussianWorld

DENOISER = GaussianWorld(torch.zeros(1, 4, 4), 0.2).denoiser(VP())
ASKED = []


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Nothing here may reach the network before it is refused."""
    ASKED.clear()
    raw = DENOISER.raw
    monkeypatch.setattr(DENOISER, "raw", lambda *a, **k: (ASKED.append(1), raw(*a, **k))[1])


@pytest.mark.parametrize("method", ["ddrm", "dps", "diffpir", "deq", "code", "mbir", "optimal-boundary"])
@pytest.mark.parametrize(
    ("measurement", "message"),
    [
        (Measurement(AverageDownsample(2), torch.zeros(1, 1, 4, 4)), r"makes \(1, 2, 2\) .* but y is \(1, 4, 4\)"),
        (Measurement(Mask.half(4, 4), torch.zeros(1, 3, 4, 4)), r"makes \(1, 4, 4\) .* but y is \(3, 4, 4\)"),
        (Measurement(PhaseRetrieval(), torch.zeros(1, 1, 4, 4)), r"makes \(1, 6, 6\) .* but y is \(1, 4, 4\)"),
    ],
)
def test_y_of_another_shape_than_the_operator_makes(method, measurement, message):
    with pytest.raises(ArgumentError, match=message):
        restore(DENOISER, measurement, method, evaluations=4)
    assert not ASKED


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_noise_below_0_or_not_finite(sigma):
    with pytest.raises(ArgumentError, match="sigma must be"):
        Gaussian(sigma)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_measured_number_that_is_not_finite(bad):
    y = torch.zeros(2, 1, 4, 4)
    y[1, 0, 2, 0] = bad
    with pytest.raises(ArgumentError, match="1 values are not"):
        Measurement(Mask.half(4, 4), y)


def test_a_wrong_adjoint_is_told_with_its_mismatch():
    mask, y = Mask.half(4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    wrong = types.SimpleNamespace(A=mask.A, A_adjoint=lambda v: 3 * mask.A_adjoint(v), A_dagger=mask.A_dagger)
    with pytest.warns(UserWarning, match="not the adjoint") as caught:
        restore(DENOISER, Measurement(wrong, y), "ddnm", evaluations=2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 4, 4, generator=generator).double()
    made, v = mask.A(x), torch.randn(1, 1, 4, 4, generator=generator).double()
    share = 2 * abs(float((made * v).sum())) / float(made.norm() * v.norm())
    assert f"{share:.1%}" in str(caught[0].message)


def test_an_adjoint_of_another_shape():
    mask = Mask.half(4, 4)
    wrong = types.SimpleNamespace(A=mask.A, A_adjoint=lambda v: mask.A_adjoint(v)[..., :2], A_dagger=mask.A_dagger)
    with pytest.raises(ArgumentError, match="adjoint makes"):
        restore(DENOISER, Measurement(wrong, torch.zeros(1, 1, 4, 4)), "ddnm", evaluations=2)


def test_noise_that_is_larger_than_the_data():
    loud, fine = (Measurement(Mask.half(4, 4), torch.zeros(1, 1, 4, 4), Gaussian(s)) for s in (1.5, 0.9))
    with pytest.warns(UserWarning, match=r"sigma=1\.5, is larger than the data, which lie within ±1"):
        restore(DENOISER, loud, "ddrm", evaluations=2)
    restore(DENOISER, fine, "ddrm", evaluations=2)  # no warning, which would be an error here
