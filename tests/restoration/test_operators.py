"""Operators: exact adjoints and pseudo-inverses, singular values that are theirs, and what each does to a picture."""

import math

import pytest
import torch

from fewstep.errors import ArgumentError
from fewstep.restoration import (
    AverageDownsample,
    BicubicDownsample,
    Blur,
    Clipping,
    FourierMask,
    Grey,
    Mask,
    Matrix,
    MultiCoil,
    NonlinearBlur,
    PhaseRetrieval,
    Quantisation,
    RandomProjection,
    Tomography,
)  # fmt: skip
from fewstep.restoration.operators import SpectralOperator
from fewstep.restoration.operators.conjugate_gradients import solve_by_cg
from fewstep.restoration.operators.matrix import dense_matrix


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPE = (3, 8, 12)
FREQUENCIES = (normal(8, 12, seed=3) > 0).double()
MAPS = torch.complex(normal(3, 8, 12, seed=4), normal(3, 8, 12, seed=5))
LINEAR = {
    "box": (Mask.box(8, 12, 2, 3, 4), SHAPE),
    "random": (Mask.random(8, 12, 0.3), SHAPE),
    "half": (Mask.half(8, 12), SHAPE),
    "gaussian": (Blur.gaussian(1.1, 7), SHAPE),
    "motion": (Blur.motion(5, 30.0), SHAPE),
    "average": (AverageDownsample(4), SHAPE),
    "bicubic": (BicubicDownsample(2), SHAPE),
    "grey": (Grey(), SHAPE),
    "projection": (RandomProjection(SHAPE, 20), SHAPE),
    "fourier": (FourierMask(FREQUENCIES), SHAPE),
    "fourier-pairs": (FourierMask(FREQUENCIES, pairs=True), (2, 8, 12)),
    "coils": (MultiCoil(FREQUENCIES, MAPS), (2, 8, 12)),
    "tomography": (Tomography(8, 5), (1, 8, 8)),
    "matrix": (Matrix(normal(7, 24), (2, 12)), (2, 12)),
}


@pytest.fixture(params=LINEAR)
def linear(request):
    return LINEAR[request.param]


def test_the_adjoint_is_exact(linear):
    operator, shape = linear
    x = normal(2, *shape)
    made = operator.A(x)
    y = normal(*made.shape, seed=1)
    back = operator.A_adjoint(y)
    assert back.shape == x.shape
    assert math.isclose(float((made * y).sum()), float((x * back).sum()), rel_tol=1e-10)


def test_the_pseudo_inverse_is_moore_and_penroses(linear):
    operator, shape = linear
    a = dense_matrix(operator, shape)
    y = operator.A(normal(2, *shape)) + 0.1 * normal(*operator.A(normal(2, *shape)).shape, seed=7)
    want = (torch.linalg.pinv(a, rtol=1e-6) @ y.flatten(1).mT).mT
    assert torch.allclose(operator.A_dagger(y).flatten(1), want, atol=2e-5 * float(want.abs().max()))


def test_functions_of_singular_values_are_those_of_the_matrix(linear):
    operator, shape = linear
    if not isinstance(operator, SpectralOperator):
        return
    gram = dense_matrix(operator, shape)
    gram = gram.mT @ gram
    e, v = torch.linalg.eigh(gram)
    d = e.clamp_min(0).sqrt()
    x = normal(2, *shape)
    want = (v @ torch.diag(1 / (d**2 + 0.3) + d) @ v.mT @ x.flatten(1).mT).mT
    got = operator.spectral(lambda d: 1 / (d**2 + 0.3) + d, x)
    assert torch.allclose(got.flatten(1), want, atol=1e-7)


def test_float32_stays_float32(linear):
    operator, shape = linear
    y = operator.A(normal(1, *shape).float())
    assert y.dtype == operator.A_adjoint(y).dtype == operator.A_dagger(y).dtype == torch.float32


def test_masks_see_what_their_names_say():
    assert int(Mask.box(8, 12, 2, 3, 4).mask.sum()) == 96 - 16
    assert not Mask.box(8, 12, 2, 3, 4).mask[2, 3]
    assert int(Mask.random(8, 12, 0.25, seed=1).mask.sum()) == 24
    assert Mask.half(4, 5).mask.sum(1).tolist() == [3] * 4
    hidden = torch.full((1, 4, 5), float("nan"))
    assert torch.equal(Mask.half(4, 5).restrict(hidden).isnan(), Mask.half(4, 5).mask[None])


def test_blur_is_the_convolution_with_its_kernel():
    kernel = normal(3, 5)
    x = normal(1, 1, 7, 9)
    padded = torch.nn.functional.pad(x, (2, 2, 1, 1), mode="circular")
    want = torch.nn.functional.conv2d(padded, kernel.flip(0, 1)[None, None])
    assert torch.allclose(Blur(kernel).A(x), want)
    assert torch.allclose(Blur.motion(3).kernel[2], torch.tensor([0.1, 0.8, 1.2, 0.8, 0.1]).double() / 3, atol=0.2)
    for made in (Blur.gaussian(2.0), Blur.motion(5, 20.0)):
        assert math.isclose(float(made.kernel.sum()), 1.0)
    line = Blur.gaussian(2.0).kernel.sum(0)
    place = torch.arange(len(line)) - len(line) // 2
    assert abs(float((line * place**2).sum()) - 4) < 0.15
    tall, wide = Blur.motion(5, 90.0).kernel, Blur.motion(5, 0.0).kernel
    assert torch.allclose(tall, wide.mT, atol=1e-12)


def test_downsampling_keeps_a_constant_and_bicubic_a_ramp():
    flat = torch.full((1, 1, 8, 12), 0.7, dtype=torch.float64)
    for operator in (AverageDownsample(4), BicubicDownsample(4)):
        assert torch.allclose(operator.A(flat), torch.full((1, 1, 2, 3), 0.7, dtype=torch.float64))
    ramp = torch.arange(48, dtype=torch.float64).expand(1, 1, 8, 48)
    seen = BicubicDownsample(2).A(ramp)[0, 0, 0]
    assert torch.allclose(seen[3:-3], 2 * torch.arange(24).double()[3:-3] + 0.5)


def test_tomography_integrates_along_lines():
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 2, 6] = 1.0  # two right of the middle, two above it
    seen = Tomography(9, torch.tensor([0.0, 90.0, 45.0])).A(x)[0, 0] * 9
    bins = torch.arange(seen.shape[1]) - (seen.shape[1] - 1) / 2
    assert torch.allclose(seen.sum(1), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(seen @ bins.double(), torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64))


def test_what_phase_retrieval_cannot_tell_apart():
    x = normal(1, 1, 8, 8)
    operator = PhaseRetrieval(2.0)
    assert operator.A(x).shape == (1, 1, 12, 12)
    assert torch.allclose(operator.A(x), operator.A(-x))
    assert torch.allclose(operator.A(x), operator.A(x.flip(-1, -2)))
    assert math.isclose(float(operator.A(x).norm()), float(x.norm()), rel_tol=1e-12)


def test_light_is_measured_with_its_sign():
    x = normal(1, 3, 8, 8)
    light = PhaseRetrieval(2.0, light=True)
    assert torch.allclose(light.A(x), PhaseRetrieval(2.0).A((x + 1) / 2))
    assert not torch.allclose(light.A(x), light.A(-x), atol=0.1)
    assert torch.allclose(light.A(x), light.A(x.flip(-1, -2)))


def test_pointwise_operators():
    x = torch.tensor([[-2.0, -0.3, 0.2, 0.8]], requires_grad=True)
    assert torch.allclose(Clipping().A(x), torch.tensor([[-1.0, -0.6, 0.4, 1.0]]))
    seen = Quantisation(3).A(x)
    assert seen.tolist() == [[-1.0, 0.0, 0.0, 1.0]]
    (slope,) = torch.autograd.grad(seen.sum(), x)
    assert slope.tolist() == [[1.0] * 4]
    for operator in (Clipping(), Quantisation(5)):
        y = operator.A(x.detach())
        assert torch.allclose(operator.A(operator.A_dagger(y)), y)
        with pytest.raises(ArgumentError, match="not linear"):
            operator.A_adjoint(y)


def test_blur_of_light_is_blur_where_the_film_is_linear():
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blur = Blur.gaussian(1.0)
    assert torch.allclose(NonlinearBlur(blur, 1.0).A(x), blur.A(x), atol=1e-5)
    assert bool((NonlinearBlur(blur).A(x) >= blur.A(x) - 1e-5).all())  # light spreads further than shade


def test_conjugate_gradients_go_row_by_row():
    a = normal(6, 6)
    m = a @ a.mT + torch.eye(6, dtype=torch.float64)
    b = torch.stack([1e6 * normal(6), normal(6, seed=2), torch.zeros(6, dtype=torch.float64)])
    x = solve_by_cg(lambda v: v @ m, b, torch.zeros_like(b), 6, 1e-12)
    assert torch.allclose(x, torch.linalg.solve(m, b.mT).mT, rtol=1e-6)
    alone = solve_by_cg(lambda v: v @ m, b[1:2], torch.zeros(1, 6, dtype=torch.float64), 3)
    assert torch.allclose(solve_by_cg(lambda v: v @ m, b, torch.zeros_like(b), 3)[1:2], alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask(torch.full((2, 2), 0.5)), "zeros and ones"),
        (lambda: Mask(torch.zeros(2, 2)), "at least one 1"),
        (lambda: Mask.box(8, 8, 6, 0, 4), "not within"),
        (lambda: Mask.random(8, 8, 0.0), "seen"),
        (lambda: Blur(torch.ones(2, 3)), "odd sides"),
        (lambda: Blur(torch.ones(9, 9)).A(torch.zeros(1, 1, 8, 8)), "larger than the picture"),
        (lambda: Blur.gaussian(0.0), "std"),
        (lambda: AverageDownsample(1), "factor"),
        (lambda: AverageDownsample(3).A(torch.zeros(1, 1, 8, 8)), "does not divide"),
        (lambda: BicubicDownsample(3).A(torch.zeros(1, 1, 8, 8)), "does not divide"),
        (lambda: Grey(3).A(torch.zeros(1, 1, 8, 8)), "3 channels"),
        (lambda: RandomProjection((4,), 5), "measurements"),
        (lambda: FourierMask(torch.ones(4)), "zeros and ones"),
        (lambda: FourierMask(torch.ones(4, 4), pairs=True).A(torch.zeros(1, 3, 4, 4)), "2 channels"),
        (lambda: MultiCoil(torch.ones(4, 4), torch.zeros(2, 4, 4)), "complex"),
        (lambda: Tomography(8, 0), "angles"),
        (lambda: Matrix(torch.zeros(2, 3), (4,)), "matrix"),
        (lambda: PhaseRetrieval(-1.0), "oversample"),
        (lambda: Clipping(0.0), "gain"),
        (lambda: Quantisation(1), "levels"),
        (lambda: NonlinearBlur(Blur(-torch.ones(1, 1))), "negative"),
        (lambda: dense_matrix(Grey(), (3, 64, 64)), "at most 3072"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_what_an_operator_holds_is_moved_and_made_once():
    x = torch.randn(1, 1, 8, 8)
    for operator in (Blur.gaussian(1.0), Mask.half(8, 8), BicubicDownsample(2), RandomProjection((1, 8, 8), 5)):
        first = operator.A(x)
        kept = {key: id(tensor) for key, tensor in operator._beside.items()}
        assert torch.equal(operator.A(x), first)
        assert {key: id(tensor) for key, tensor in operator._beside.items()} == kept
        assert operator.A(x.double()).dtype == torch.float64
        assert len(operator._beside) == 2 * len(kept)
