"""Stability on the real axis: Adams–Bashforth's known boundaries, momentum's in closed form, and by running it."""

import numpy as np
import pytest

from fewstep.analysis.stability import momentum_method, stability_boundary
from fewstep.errors import ArgumentError

ADAMS = {
    1: [1.0],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}


@pytest.mark.parametrize(("k", "boundary"), [(1, 2), (2, 1), (3, 6 / 11), (4, 3 / 10)])
def test_adams_bashforth(k, boundary):
    assert stability_boundary(*momentum_method(ADAMS[k], 1.0)) == pytest.approx(boundary, rel=1e-9)


def test_implicit_methods():
    """The trapezoidal rule is stable everywhere; Adams–Moulton of order 3 ends at 6."""
    assert stability_boundary([-1, 1], [0.5, 0.5]) == float("inf")
    assert stability_boundary([0, -1, 1], [-1 / 12, 8 / 12, 5 / 12]) == pytest.approx(6, rel=1e-9)


def test_the_explicit_midpoint_rule_is_stable_nowhere():
    assert stability_boundary([-1, 0, 1], [0, 2, 0]) == 0


@pytest.mark.parametrize("damping", [0.3, 0.8])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_run_of_the_recursion_grows_just_beyond_the_boundary_only(k, damping):
    boundary = stability_boundary(*momentum_method(ADAMS[k], damping))

    def grows(z):
        y, v, old = 1.0, 0.0, [0.0] * k
        for _ in range(4000):
            old = [z * y, *old[:-1]]
            v = (1 - damping) * v + damping * float(np.dot(ADAMS[k], old))
            y += v
            if abs(y) > 1e6:
                return True
        return False

    assert grows(-1.05 * boundary)
    assert not grows(-0.95 * boundary)


def test_bad_arguments_are_refused():
    for a, b in (([-1, 1], [1]), ([1], [1]), ([-1, 2], [0, 1]), ([0, 0], [0, 1])):
        with pytest.raises(ArgumentError, match="one length"):
            stability_boundary(a, b)
