"""Physics objects of deepinv in the place of our operators: stand-ins of its protocol, and its own where it is."""

import importlib
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep import VP
from fewstep.catalog import methods
from fewstep.denoisers import Denoiser
from fewstep.restoration import (
    AverageDownsample,
    Blur,
    Clipping,
    Gaussian,
    Mask,
    Matrix,
    Measurement,
    Operator,
    PhaseRetrieval,
    restore,
)
from fewstep.worlds import GaussianMixture
from fewstep.worlds.masked import masked_denoiser

SHAPE = (1, 4, 4)
WORLD = GaussianMixture([0.4, 0.6], torch.stack([torch.full(SHAPE, v) for v in (-0.4, 0.4)]), torch.full((2, 1), 0.1))
DENOISERS: dict[str, Denoiser] = {"ambient-dps": masked_denoiser(WORLD, VP())}
NAMES = [m.name for m in methods() if m.family == "restoration"]
QUICK = {"repaint": {"repeats": 2, "jump_length": 2}, "daps": {"moves": 3}, "optimal-boundary": {"candidates": 2}}


class LinearPhysics(torch.nn.Module):
    """A, A_adjoint and A_dagger as deepinv's LinearPhysics declares them, without anything else of ours."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def A(self, x, **kwargs):
        return x.flatten(1) @ self.matrix.to(x).mT

    def A_adjoint(self, y, **kwargs):
        return (y @ self.matrix.to(y)).reshape(-1, *SHAPE)

    def A_dagger(self, y, solver="CG", max_iter=None, tol=None, verbose=False, **kwargs):
        return (y @ torch.linalg.pinv(self.matrix.to(y)).mT).reshape(-1, *SHAPE)

    def forward(self, x, **kwargs):
        return self.A(x) + 0.1 * torch.randn_like(self.A(x))


class DecomposablePhysics(LinearPhysics):
    """The same with U, V and the singular values `mask`, as deepinv's DecomposablePhysics has them."""

    def __init__(self, matrix):
        super().__init__(matrix)
        _, values, rows = torch.linalg.svd(matrix, full_matrices=True)
        self.rows, self.mask = rows, torch.nn.functional.pad(values, (0, rows.shape[0] - len(values)))

    def V(self, x):
        return (x @ self.rows.to(x)).reshape(-1, *SHAPE)

    def V_adjoint(self, x):
        return x.flatten(1) @ self.rows.to(x).mT


class Physics(torch.nn.Module):
    """A nonlinear physics: A alone."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def A(self, x, **kwargs):
        return self.operator.A(x)


def restored(operator, truth, name, **options):
    y = Measurement.simulate(operator, truth, Gaussian(0.2), seed=1)
    common = {"evaluations": 6, "samples": 2, "seed": 3, "dtype": torch.float64, **QUICK.get(name, {}), **options}
    return restore(DENOISERS.get(name, WORLD.denoiser(VP())), y, name, **common).x


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ads"])
@settings(max_examples=2, derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**20), rows=st.integers(2, 10))
def test_any_linear_physics_is_as_our_matrix(name, seed, rows):
    """All but ads, which needs an operator of pixels or frequencies to choose from."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, 16, dtype=torch.float64, generator=generator) / 4
    truth = WORLD.sample(2, seed=seed % 97)
    ours = restored(Matrix(matrix, SHAPE), truth, name)
    for physics in (LinearPhysics(matrix), DecomposablePhysics(matrix)):
        assert torch.allclose(restored(physics, truth, name), ours, rtol=1e-5, atol=1e-6), type(physics).__name__


@pytest.mark.parametrize("operator", [PhaseRetrieval(), Clipping()], ids=["phase", "clipping"])
@pytest.mark.parametrize("name", ["dps", "daps", "red-diff", "resample"])
def test_physics_without_an_adjoint_is_not_linear_and_serves_where_any_operator_does(operator: Operator, name):
    truth = WORLD.sample(2, seed=4)
    options = {"daps": {"step_size": 1e-4}}.get(name, {})
    theirs = restored(Physics(operator), truth, name, **options)
    assert theirs.isfinite().all()
    if not Measurement.inverts(operator):
        assert torch.allclose(theirs, restored(operator, truth, name, **options))


@pytest.fixture(scope="module")
def dinv():
    """deepinv itself; what stands in for torchvision while it is imported is taken away again."""
    deep_inverse = importlib.import_module("deep_inverse")
    before = list(sys.meta_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = deep_inverse.deepinv()
        if found is None:
            pytest.skip("deepinv is not installed")
        yield found
    if sys.meta_path != before:
        sys.meta_path[:] = before
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]


@pytest.mark.parametrize("name", ["ddnm", "ddrm", "diffpir", "dds", "dps", "pgdm", "daps", "red-diff", "flowdps"])
@pytest.mark.parametrize("task", ["inpainting", "deblurring", "super-resolution"])
def test_deepinvs_own_physics_is_as_our_operator(dinv, task, name):
    mask, blur, down = Mask.random(8, 8, 0.5), Blur.gaussian(0.8, 3), AverageDownsample(2)
    physics = dinv.physics
    ours, theirs = {
        "inpainting": lambda: (mask, physics.Inpainting((1, 8, 8), mask=mask.mask.float().expand(1, 8, 8).clone())),
        "deblurring": lambda: (blur, physics.BlurFFT((1, 8, 8), filter=blur.kernel.float()[None, None])),
        "super-resolution": lambda: (down, physics.LinearPhysics(A=down.A, A_adjoint=down.A_adjoint)),
    }[task]()
    world = GaussianMixture([1.0], torch.full((1, 1, 8, 8), 0.2), torch.full((1, 1), 0.2))
    seen = Measurement.simulate(ours, world.sample(2, seed=4).float(), Gaussian(0.1), seed=1)
    options = {"evaluations": 5, "seed": 3, **{"daps": {"chain": "exact", "inner": 1}}.get(name, {})}
    drawn = [
        restore(world.denoiser(VP()), Measurement(op, seen.y, seen.noise), name, **options).x for op in (ours, theirs)
    ]
    assert torch.allclose(drawn[1], drawn[0], atol=3e-3 if name == "ddnm" else 1e-3)
