"""Runge–Kutta in ρ and in the time of a straight path: order conditions, published forms, places and ends."""

import pytest
import torch

from fewstep import VE, VP, Cosine, Flow, make_plan, sample, wrap
from fewstep.analysis import measured_order
from fewstep.errors import ArgumentError
from fewstep.solvers.runge_kutta import TABLEAUX, RungeKutta, Tableau

PATHS = [VP(), VE(), Flow(), Cosine()]


def belief(x, t):
    return torch.tanh(x) * (1 + 0.3 * t.double().cos().reshape(len(t), -1))


@pytest.mark.parametrize(
    ("order", "a", "b"),
    [
        (1, (), (0.9,)),
        (2, ((1.0,),), (0.4, 0.6)),
        (3, ((1 / 2,), (-1.0, 2.0)), (1 / 6, 1 / 6, 4 / 6)),
        (3, ((1 / 2,), (0.0, 3 / 4)), (1 / 3, 2 / 9, 4 / 9)),
        (4, ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 6, 1 / 3)),
        (4, ((1 / 2,), (-1.0, 2.0)), (1 / 6, 4 / 6, 1 / 6)),
        (2, ((0.5, 0.5),), (1 / 2, 1 / 2)),
    ],
)
def test_a_tableau_that_lacks_its_order_does_not_exist(order, a, b):
    with pytest.raises(ArgumentError, match=r"order|rows"):
        Tableau(order, a, b)


def test_nodes():
    assert TABLEAUX["kutta3"].c == (0, 0.5, 1)
    assert TABLEAUX["rk4"].c == (0, 0.5, 0.5, 1)
    assert TABLEAUX["houwen3"].c == pytest.approx((0, 8 / 15, 2 / 3))


@pytest.mark.parametrize("tableau", ["kutta3", "heun3", "houwen3", "ssprk3"])
def test_orders_of_those_without_a_row(tableau):
    assert measured_order(RungeKutta(tableau), VP(), (30, 60)) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
@pytest.mark.parametrize("coordinate", ["rho", "flow"])
@pytest.mark.parametrize("tableau", TABLEAUX)
def test_a_step_is_the_tableau_written_out(path, coordinate, tableau):
    times = path.t_of_lam(torch.tensor([-1.0, 0.4], dtype=torch.float64))
    x, method = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3), TABLEAUX[tableau]
    plan = RungeKutta(tableau, coordinate)(path, times)
    ours = sample(wrap(belief, path, "x0", shape=(3,)), start=x, plan=plan)

    def level(t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        return (alpha, sigma / alpha) if coordinate == "rho" else (alpha + sigma, sigma / (alpha + sigma))

    (k0, s0), (k1, s1) = (level(t) for t in times)
    slopes = []
    for c, row in zip(method.c, ((), *method.a), strict=True):
        s = s0 + c * (s1 - s0)
        t = path.t_of_lam(-s.log() if coordinate == "rho" else (1 / s - 1).log())
        y = x / k0 + (s1 - s0) * sum((w * f for w, f in zip(row, slopes, strict=True)), torch.zeros(()))
        slopes.append((y - belief(y * level(t)[0], path.model_time(t).expand(4))) / s)
    y = x / k0 + (s1 - s0) * sum(w * f for w, f in zip(method.b, slopes, strict=True))
    assert ours.stats.evaluations == len(method.b)
    assert torch.allclose(ours.x, k1 * y, rtol=1e-10)


def test_rho_is_refused_where_there_is_no_data():
    with pytest.raises(ArgumentError, match="coordinate 'rho' is infinite"):
        make_plan(Flow(), RungeKutta("heun", "rho"), "uniform", 3)
    assert make_plan(Flow(), "rk4", "uniform", 3).evaluations == 9


@pytest.mark.parametrize("bad", [{"tableau": "rk5"}, {"coordinate": "sigma"}])
def test_bad_parameters(bad):
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        RungeKutta(**bad)
