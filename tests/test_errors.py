"""What an error says: it is the only thing that its reader has."""

import math

import pytest
import torch

from fewstep.errors import NumericalError, not_finite, require, some_of, unknown


def test_not_finite_names_the_rows_and_their_share():
    values = torch.zeros(12, 4)
    values[3, 0], values[7, 1:3] = math.nan, -math.inf
    error = not_finite(values, why="; stop")
    assert isinstance(error, NumericalError)
    assert error.state is None
    assert str(error) == "the samples [3, 7] (2 of 12, 37.5 % of their numbers) are not finite; stop"
    # A row of one number has no share of it.
    assert str(not_finite(values[:, 1], "the rewards of rows")) == "the rewards of rows [7] (1 of 12) are not finite"
    assert "[0, 1, 2, 3, 4, 5, 6, 7] … (9 of 9)" in str(not_finite(torch.full((9,), math.nan)))


def test_not_finite_names_the_answer():
    state = torch.ones(1, 1)
    error = not_finite(None, answer="answer number 3 (timestep 799)", state=state)
    assert str(error) == "the network's answer number 3 (timestep 799) held NaN or Inf"
    assert error.state is state
    told = str(not_finite(torch.tensor([[0.0, math.nan]]), answer="answer number 1"))
    assert told.endswith("held NaN or Inf; samples not finite: [0] (1 of 1, 50 % of their numbers)")


def test_some_of_says_when_it_leaves_rows_out():
    assert some_of([2], 3) == "[2] (1 of 3)"
    assert some_of(list(range(9)), 10) == "[0, 1, 2, 3, 4, 5, 6, 7] … (9 of 10)"


@pytest.mark.parametrize(("name", "hint"), [("dim", "'ddim'"), ("zzz", "known: ddim, euler.")])
def test_unknown_names_what_is_near_or_all(name, hint):
    assert hint in str(unknown("solver", name, ["euler", "ddim"]))


def test_require_says_what_to_install():
    assert "fewstep[studio]" in str(require("gradio", "studio"))
