"""Ancestral sampling with another solver in Euler's place: the posterior itself, its law, what is refused."""

import math

import pytest
import torch

from fewstep import VE, VP, Flow, make_plan, sample, wrap
from fewstep.analysis import gaussian_output, gaussian_w2
from fewstep.errors import ArgumentError
from fewstep.solvers import solver_named
from fewstep.solvers.ancestral import Ancestral

VARIANCES = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
MEANS = torch.tensor([0.5, -0.7, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("path", [VP(), VE(20.0), Flow()], ids=lambda p: p.kind)
def test_eulers_step_below_and_noise_up_is_the_posterior(path):
    """DDIM is Euler's step as another solver: two steps of the table then make the posterior's one."""
    times = torch.tensor([1.0, 0.7, 0.4, 0.1, 0.0], dtype=torch.float64)
    chain, over = (make_plan(path, Ancestral(base=base), times) for base in ("euler", "ddim"))
    for got, want in zip(
        gaussian_output(over, VARIANCES, MEANS), gaussian_output(chain, VARIANCES, MEANS), strict=True
    ):
        assert torch.allclose(got, want, rtol=1e-9)
    assert (chain.evaluations, over.evaluations, len(over.N)) == (4, 4, 3)
    den = wrap(lambda x, t: torch.tanh(x), path, "x0", shape=(3,))
    noise = {"dtype": torch.float64, "noise": "comfyui", "seed": 3}
    a, b = (sample(den, 2, plan=plan, **noise).x for plan in (chain, over))
    assert torch.allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize(("base", "order"), [("ddim", 1), ("dpm-solver-2", 2), ("dpm-solver++2s", 2), ("unipc", 1)])
def test_the_law_is_of_the_bases_order(base, order):
    solver = solver_named("ddpm", base=base)
    errors = [
        float(gaussian_w2(make_plan(VP(), solver, "karras", n), VARIANCES, MEANS, exact_start=True).max())
        for n in (40, 80)
    ]
    assert solver.order == order
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="variance='small'"):
        Ancestral("large", "heun")
    with pytest.raises(ArgumentError, match="unknown solver"):
        Ancestral(base="eular")
    with pytest.raises(ArgumentError, match="one time for all"):
        make_plan(VP(), Ancestral(base="heun"), torch.tensor([[1.0, 0.9], [0.0, 0.0]]))
