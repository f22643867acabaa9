"""The classes of a model, whatever its network calls them, and the labels that they are dealt as."""

import pytest

from fewstep import VP, wrap
from fewstep.denoisers.classes import classes_of, labelled
from fewstep.errors import ArgumentError


def model(**null):
    return wrap(lambda x, time, **cond: x, VP(), shape=(1,), null=null)


@pytest.mark.parametrize("name", ["label", "class_labels"])
def test_classes_are_dealt_in_turn_under_the_networks_own_name(name):
    den = model(text=None, **{name: 3})
    assert classes_of(den) == (name, 3)
    assert labelled(den, 5) == {name: [0, 1, 2, 0, 1]}
    assert labelled(den, 3, [2, 0]) == {name: [2, 0, 2]}


@pytest.mark.parametrize("null", [{}, {"label": 0}, {"label": None}, {"text": "none"}])
def test_a_model_without_classes_is_told_none(null):
    assert classes_of(model(**null)) is None
    assert labelled(model(**null), 4) is None
    with pytest.raises(ArgumentError, match="no classes, got the label 1"):
        labelled(model(**null), 4, [1])


@pytest.mark.parametrize("label", [-1, 3, 99])
def test_a_class_that_the_model_does_not_have_is_refused(label):
    with pytest.raises(ArgumentError, match=f"classes 0 to 2, got {label}"):
        labelled(model(label=3), 2, [0, label])
