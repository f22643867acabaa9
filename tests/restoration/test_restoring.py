"""`restore` and `Measurement`: rows, seeds, any operator, and everything that must be refused or warned of."""

import math
import types

import pytest
import torch

from fewstep import VP, sample
from fewstep.catalog import methods
from fewstep.errors import ArgumentError, NumericalError
from fewstep.planning import make_plan
from fewstep.restoration import (  # fmt: skip
    Blur,
    Gaussian,
    Mask,
    Matrix,
    Measurement,
    PhaseRetrieval,
    Poisson,
    Tomography,
    restore,
    restorer_named,
)
from fewstep.restoration.operators.matrix import dense_matrix
from fewstep.restoration.restoring import budget_of
from fewstep.worlds import Gaussian as GaussianWorld
from fewstep.worlds import GaussianMixture
from fewstep.worlds.masked import masked_denoiser

WORLD = GaussianMixture(
    [0.5, 0.5], torch.stack([torch.full((1, 4, 4), v) for v in (-0.4, 0.4)]), torch.full((2, 1), 0.05)
)
DENOISER = WORLD.denoiser(VP())
TRUTH = WORLD.sample(2, seed=3)
NAMES = [m.name for m in methods() if m.family == "restoration"]
QUICK = {"repaint": {"repeats": 2, "jump_length": 2}, "daps": {"moves": 3, "step_size": 1e-4}, "ads": {"count": 2}}


MODELS = {"ambient-dps": masked_denoiser(WORLD, VP())}


def measured(noise=0.1):
    return Measurement.simulate(Mask.half(4, 4), TRUTH, Gaussian(noise))


def model(name):
    return MODELS.get(name, DENOISER)


def couples(name):
    return getattr(type(restorer_named(name, measured(), **QUICK.get(name, {}))), "couples", False)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_a_row(name):
    measurement = measured()
    options = {"evaluations": 8, "samples": 3, "seed": 5, "dtype": torch.float64, **QUICK.get(name, {})}
    whole = restore(model(name), measurement, name, **options)
    assert whole.x.shape == (6, 1, 4, 4)
    assert whole.mean.shape == whole.std.shape == (2, 1, 4, 4)
    assert torch.allclose(whole.mean[1], whole.x[3:].mean(0))
    assert torch.allclose(whole.std[1], whole.x[3:].std(0))
    assert whole.stats.evaluations <= 8
    assert whole.x.isfinite().all()
    if couples(name):  # its samples are one belief
        return
    second = Measurement(measurement.operator, measurement.y[1:], measurement.noise)
    alone = restore(model(name), second, name, first=4, **{**options, "samples": 1})
    assert torch.allclose(alone.x[0], whole.x[4], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["pgdm", "dps", "dps-likelihood", "noise-refined", "dmps"])
def test_a_scale_of_0_is_the_model_alone(name):
    from fewstep import sample

    zero = {"noise-refined": {"weight": 0.0}}.get(name, {"scale": 0.0})
    got = restore(DENOISER, measured(), name, evaluations=6, grid="uniform", solver="ddim", dtype=torch.float64, **zero)
    want = sample(DENOISER, 2, solver="ddim", grid="uniform", steps=6, dtype=torch.float64)
    assert torch.allclose(got.x, want.x, atol=1e-10)


@pytest.mark.parametrize("name", ["ddnm", "replacement", "mcg", "repaint", "lanpaint"])
def test_what_is_measured_without_noise_comes_out_as_it_was(name):
    measurement = measured(0.0)
    x = restore(DENOISER, measurement, name, evaluations=20, **QUICK.get(name, {})).x
    assert torch.allclose(measurement.operator.A(x.double()), measurement.y, atol=1e-5)


@pytest.mark.parametrize("operator", [Blur.gaussian(0.6, 3), Tomography(4, 3)], ids=["blur", "tomography"])
def test_pull_is_the_same_by_singular_values_and_by_conjugate_gradients(operator, monkeypatch):
    measurement = Measurement.simulate(operator, TRUTH, Gaussian(0.2))
    residual = measurement.residual(torch.zeros_like(TRUTH))
    a = measurement.matrix(TRUTH.shape[1:])
    kept = residual.flatten(1)[:, measuring_rows(operator)]
    want = a.mT @ torch.linalg.solve(0.7 * a @ a.mT + 0.04 * torch.eye(len(a)), kept.mT)
    assert torch.allclose(measurement.pull(residual, 0.7).flatten(1), want.mT, atol=1e-8)
    monkeypatch.setattr(Measurement, "has_spectrum", lambda self, shape: False)
    assert torch.allclose(measurement.pull(residual, 0.7).flatten(1), want.mT, atol=1e-5)


def measuring_rows(operator):
    from fewstep.restoration.operators.matrix import dense_matrix

    return dense_matrix(operator, TRUTH.shape[1:]).abs().amax(1) > 0


def test_any_object_with_the_three_names_is_an_operator():
    mask = Mask.half(4, 4)
    stranger = types.SimpleNamespace(A=mask.A, A_adjoint=mask.A_adjoint, A_dagger=mask.A_dagger)
    ours, theirs = (
        restore(DENOISER, Measurement(op, measured().y, Gaussian(0.1)), "ddrm", samples=2, dtype=torch.float64).x
        for op in (mask, stranger)
    )
    assert torch.allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("name", ["ddrm", "ddnm+", "ddnm", "dds", "lanpaint", "flowdps", "code", "red-diff"])
def test_what_is_spent_unless_told(name):
    assert restore(DENOISER, measured(), name).stats.evaluations == budget_of(name)


def test_channels_that_are_measured_alike_are_decomposed_once():
    """By the singular values of one channel, which are those of the whole picture three times."""
    operator = Tomography(8, 5)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    measurement = Measurement.simulate(operator, x, Gaussian(0.1))
    gram = dense_matrix(operator, (3, 8, 8))
    e, v = torch.linalg.eigh(gram.mT @ gram)
    want = (v @ torch.diag(1 / (e.clamp_min(0) + 0.3)) @ v.mT @ x.flatten(1).mT).mT
    assert torch.allclose(measurement.spectral(lambda d: 1 / (d**2 + 0.3), x).flatten(1), want, atol=1e-9)
    assert measurement.has_spectrum((3, 48, 48))
    assert not measurement.has_spectrum((3, 64, 64))


def test_ddrms_least_takes_what_is_hardly_measured_as_not_measured():
    """As an operator that has 0 there."""
    axes = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    world = GaussianWorld(torch.zeros(3), torch.eye(3) * 0.3)
    full, cut = (Matrix(torch.diag(torch.tensor(d).double()) @ axes, (3,)) for d in ([1.0, 0.4, 0.02], [1.0, 0.4, 0.0]))
    y = full.A(torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64))
    common = {"evaluations": 12, "samples": 3, "dtype": torch.float64}
    rough, exact, all_of_it = (
        restore(world.denoiser(VP()), Measurement(op, y, Gaussian(0.1)), "ddrm", **common, **options).x
        for op, options in ((full, {"least": 0.03}), (cut, {}), (full, {}))
    )
    assert torch.allclose(rough, exact, atol=1e-9)
    assert not torch.allclose(rough, all_of_it, atol=1e-2)


def test_ddrm_takes_a_grid_and_no_solver():
    out = restore(DENOISER, measured(), "ddrm", evaluations=6, grid="karras")
    want = make_plan(DENOISER.path, "ddim", "karras", 6).times
    assert torch.equal(out.plan.times, want)
    assert out.stats.evaluations == 6
    with pytest.raises(ArgumentError, match=r"takes no solver$"):
        restore(DENOISER, measured(), "ddrm", solver="ddim")
    with pytest.raises(ArgumentError, match="no solver and no grid"):
        restore(DENOISER, measured(), "daps", grid="karras")


def test_noise_has_the_variance_that_it_says():
    clean = torch.full((1, 200_000), 0.2, dtype=torch.float64)
    for noise in (Gaussian(0.3), Poisson(40.0)):
        y = noise.add(clean, torch.Generator().manual_seed(0))
        assert math.isclose(float(y.mean()), 0.2, abs_tol=5e-3)
        said = noise.variance(clean)
        said = said if isinstance(said, float) else float(said[0, 0])
        assert math.isclose(float(y.var()), said, rel_tol=0.03)


def test_hidden_pixels_may_hold_anything():
    y = measured().y.clone()
    y[..., 2:] = float("nan")
    assert torch.equal(Measurement(Mask.half(4, 4), y).y, measured().y)


def test_a_wrong_adjoint_is_measured_and_said():
    mask = Mask.half(4, 4)
    wrong = types.SimpleNamespace(A=mask.A, A_adjoint=lambda y: 2 * mask.A_adjoint(y), A_dagger=mask.A_dagger)
    with pytest.warns(UserWarning, match="not the adjoint"):
        restore(DENOISER, Measurement(wrong, measured().y), "ddnm", evaluations=2)


def test_noise_larger_than_the_data_is_said():
    with pytest.warns(UserWarning, match="larger than the data"):
        restore(DENOISER, measured(5.0), "pgdm", evaluations=2)


def test_samples_far_from_all_data_are_an_error_though_they_are_finite():
    """Data of variance 4 with σ_y = 0.05, in float64."""
    measurement = Measurement(
        Mask(torch.tensor([1, 0])), torch.tensor([[1.5, 0.0]], dtype=torch.float64), Gaussian(0.05)
    )
    world = GaussianWorld(torch.zeros(2), 4 * torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    with pytest.raises(NumericalError, match=r"samples \[0\] \(1 of 1\) diverged, to .* within ±1"):
        restore(
            world.denoiser(VP.from_betas("linear")), measurement, "dps-likelihood", evaluations=200, dtype=torch.float64
        )


def test_a_run_that_diverges_ends_in_an_error():
    world = GaussianWorld(torch.zeros(2), 4.0)
    stiff = Measurement(Mask(torch.tensor([1, 0])), torch.tensor([[1.5, 0.0]]), Gaussian(0.005))
    with pytest.raises(NumericalError):
        restore(world.denoiser(VP()), stiff, "dps-likelihood", evaluations=300)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Measurement(3, TRUTH), "operator must have A"),
        (lambda: Measurement(Mask.half(4, 4), torch.zeros(3).long()), "y must be a real tensor"),
        (lambda: Measurement(Blur.gaussian(0.6, 3), TRUTH * float("nan")), "finite where it was measured"),
        (lambda: Measurement(Mask.half(4, 4), TRUTH, 0.1), "noise must be"),
        (lambda: Gaussian(-0.1), "sigma must be at least 0"),
        (lambda: Poisson(0.0), "rate must be more than 0"),
        (lambda: restore(DENOISER, Measurement(Mask.half(4, 6), torch.zeros(1, 1, 4, 6)), "ddnm"), "does not take"),
        (lambda: restore(DENOISER, measured(), "dpss"), "did you mean"),
        (lambda: restore(DENOISER, measured(), "dps", scal=3), "scal"),
        (lambda: restore(DENOISER, measured(), samples=0), "samples must be"),
        (lambda: restore(DENOISER, measured(), evaluations=0), "evaluations must be"),
        (lambda: restore(3, measured()), "denoiser must be"),
        (lambda: restore(DENOISER, 3), "measurement must be"),
        (lambda: restore(DENOISER, measured(), "ddrm", solver="ddim"), "loop of its own"),
        (lambda: restore(DENOISER, measured(), "repaint", solver="ddim", evaluations=20), "no other solver"),
        (lambda: restorer_named("ddnm", Measurement(PhaseRetrieval(), TRUTH)), "linear operator"),
        (lambda: restorer_named("dps-likelihood", measured(0.0)), "needs noise"),
        (lambda: restorer_named("daps", measured(0.0)), "needs noise"),
        (lambda: restorer_named("daps", measured(), chain="gibbs"), "chain"),
        (lambda: restorer_named("daps", measured(), chain="exact", deviation=-0.1), "deviation"),
        (lambda: restorer_named("ddrm", measured(), least=0.0), "least"),
        (lambda: budget_of("dpss"), "did you mean"),
        (lambda: restorer_named("pgdm", measured(), scale=-1.0), "scale"),
        (lambda: restorer_named("ddrm", measured(), temperature=1.5), "temperature"),
        (lambda: restorer_named("flowdps", measured(), adjoint=True), "needs the length"),
        (lambda: restorer_named("ddnm", measured(), eta=1.5), "eta"),
        (lambda: restorer_named("diffpir", measured(), redrawn=2.0), "redrawn"),
        (lambda: restorer_named("red-diff", measured(), weighting="cubic"), "weighting"),
        (lambda: restorer_named("lanpaint", measured(), inner=-1), "inner"),
        (lambda: restorer_named("pgdm", Measurement(Mask.half(4, 4), TRUTH, Poisson(9.0))), "Gaussian noise"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize("name", ["dps", "pgdm", "dps-likelihood", "diffpir", "ambient-dps"])
def test_the_derivative_of_a_guided_run_is_that_of_its_samples(name):
    """Along a random direction of the start, by differences; the first step counts too."""
    measurement = Measurement.simulate(Mask.half(4, 4), TRUTH[:1], Gaussian(0.1))
    guides = restorer_named(name, measurement).guides()
    generator = torch.Generator().manual_seed(5)
    start, along, weight = torch.randn(3, 1, 1, 4, 4, dtype=torch.float64, generator=generator)
    plan = make_plan(VP(), "ddim", torch.tensor([0.7, 0.4, 0.2], dtype=torch.float64))

    def value(x, grad=False):
        return (sample(model(name), start=x, plan=plan, guides=guides, seed=2, grad=grad).x * weight).sum()

    leaf, h = start.clone().requires_grad_(), 1e-5
    (slope,) = torch.autograd.grad(value(leaf, True), leaf)
    want = float(value(start + h * along) - value(start - h * along)) / (2 * h)
    assert abs(want) > 0.01
    assert float((slope * along).sum()) == pytest.approx(want, rel=1e-4)
