"""Paths against independent formulas, over the whole range and at its ends."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from fewstep.errors import ArgumentError, PlanError
from fewstep.paths import PREDICTIONS, VE, VP, BridgePath, Cosine, Flow, change_of_basis, from_json

BRIDGE = BridgePath(lambda t: 1 - t, lambda t: t * t, lambda t: 2 * t)
PATHS = [VP(), VE(), Flow(), Cosine(), VP.from_betas("linear"), VP.from_betas("cosine", 50), BRIDGE]
IDS = [f"{p.kind}{i}" for i, p in enumerate(PATHS)]
# Below 1e-30 the reference's own integrator gives up; 0 itself stays.
times = st.floats(0, 1).map(lambda t: t if t > 1e-30 else 0.0)


def reference(path, t):
    """(α, σ) written a second time, from the definitions."""
    if path.kind in ("vp", "vp-discrete"):
        if path.kind == "vp":
            log_alpha = -0.5 * quad(lambda s: 0.1 + 19.9 * s, 0, t)[0]
        else:
            logs = np.concatenate([[0], np.cumsum(np.log1p(-np.array(path.betas)))])
            log_alpha = 0.5 * np.interp(t * len(path.betas), np.arange(len(logs)), logs)
        return math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha))
    if path.kind == "cosine":
        return math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    return {"ve": (1, 80 * t), "flow": (1 - t, t), "bridge": (1 - t, 2 * t)}[path.kind]


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@given(t=times)
@settings(max_examples=60, deadline=None)
def test_alpha_sigma_lambda(path, t):
    alpha, sigma = reference(path, t)
    assert float(path.alpha(t)) == pytest.approx(alpha, rel=1e-9, abs=1e-15)
    assert float(path.sigma(t)) == pytest.approx(sigma, rel=1e-7, abs=1e-15)
    if alpha > 1e-12 and sigma > 1e-7:
        assert float(path.lam(t)) == pytest.approx(math.log(alpha / sigma), abs=1e-6)
        assert float(path.t_of_lam(path.lam(t))) == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
def test_ends(path):
    assert float(path.alpha(0.0)) == 1
    assert float(path.sigma(0.0)) == 0
    assert float(path.lam(0.0)) == math.inf
    assert float(path.t_of_lam(math.inf)) == pytest.approx(0, abs=1e-15)
    assert float(path.t_of_lam(path.lam(1.0))) == pytest.approx(1, abs=1e-12)
    if path.kind in ("flow", "cosine", "bridge"):
        assert float(path.lam(1.0)) == -math.inf


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@given(t=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_derivatives_drift_and_diffusion(path, t):
    step = 1e-6
    if path.kind == "vp-discrete":  # stay inside one segment, where the slope is one number
        n = len(path.betas)
        t = (math.floor(t * n) + 0.5) / n
    rise = [float(f(t + step) - f(t - step)) / (2 * step) for f in (path.alpha, path.sigma)]
    assert float(path.d_alpha(t)) == pytest.approx(rise[0], rel=1e-4, abs=1e-6)
    assert float(path.d_sigma(t)) == pytest.approx(rise[1], rel=1e-4, abs=1e-6)
    alpha, sigma = reference(path, t)
    assert float(path.drift(t)) == pytest.approx(rise[0] / alpha, rel=1e-4, abs=1e-6)
    assert float(path.diffusion(t)) ** 2 == pytest.approx(2 * sigma * (rise[1] - rise[0] / alpha * sigma), rel=1e-3)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@pytest.mark.parametrize("source", PREDICTIONS)
@pytest.mark.parametrize("target", PREDICTIONS)
def test_change_of_basis_against_the_definitions(path, source, target):
    x0, eps = 0.7, -1.3
    t = torch.tensor([0.003, 0.2, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    values = {
        "x0": x0 + 0 * t,
        "eps": eps + 0 * t,
        "v": alpha * eps - sigma * x0,
        "flow": path.d_alpha(t) * x0 + path.d_sigma(t) * eps,
        "score": -eps / sigma,
    }
    a, c = change_of_basis(path, t, source, target)
    assert torch.allclose(a * (alpha * x0 + sigma * eps) + c * values[source], values[target], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=IDS)
@pytest.mark.parametrize("source", ["x0", "eps", "v", "flow", "score"])
def test_every_prediction_gives_x_at_time_zero(path, source):
    a, c = change_of_basis(path, 0.0, source, "x0")
    expected = (0, 1) if source == "x0" else (1, 0)
    assert (float(a), abs(float(c))) == expected


def test_shapes_and_float64():
    t = torch.rand(2, 1, 3)
    for path in PATHS:
        for f in (path.alpha, path.sigma, path.lam, path.d_alpha, path.d_sigma, path.drift, path.diffusion):
            assert f(t).shape == t.shape
            assert f(t).dtype == torch.float64


@pytest.mark.parametrize("path", PATHS[:-1], ids=IDS[:-1])
def test_json(path):
    assert from_json(path.to_json()) == path


@pytest.mark.parametrize(
    "call",
    [
        lambda: VP(beta_min=-1),
        lambda: VE(sigma_max=0),
        lambda: VP.from_betas("linaer"),
        lambda: VP.from_betas([0.1, 1.5]),
        lambda: VP.from_betas([0.1, 0.2], steps=3),
        lambda: BridgePath(lambda t: t, lambda t: t, lambda t: t),
        lambda: from_json({"kind": "flwo"}),
        lambda: change_of_basis(VP(), 0.5, "epsilon", "x0"),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ArgumentError):
        call()


@pytest.mark.parametrize("data", [None, {}, {"kind": "ve"}, {"kind": "ve", "sigma_max": "80"}])
def test_bad_json(data):
    with pytest.raises(PlanError):
        from_json(data)


def test_nearest_name_is_offered():
    with pytest.raises(ArgumentError, match="did you mean 'linear'"):
        VP.from_betas("linaer")


def test_discrete_times_are_the_networks_indices():
    path = VP.from_betas("scaled_linear")
    index = torch.tensor([0.0, 499.0, 999.0], dtype=torch.float64)
    assert torch.allclose(path.model_time(path.t_of_index(index)), index)
    bar = torch.cumprod(1 - torch.tensor(path.betas, dtype=torch.float64), 0)
    assert torch.allclose(path.alpha(path.t_of_index(index)) ** 2, bar[index.long()])
