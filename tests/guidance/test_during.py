"""A guide for a part of the run: itself within, nothing outside, at every level."""

from dataclasses import dataclass

import pytest
import torch

from fewstep import CFG, VP, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import During, Guide, Thresholding

PATH = VP.from_betas("linear")


@dataclass(frozen=True)
class Pushed(Guide):
    """Moves the state after a step."""

    level = "state"

    def move(self, ask, x, state):
        return x + 1 + ask.index, state, False


@dataclass(frozen=True)
class Told(Guide):
    """Tells the network the number of the step."""

    level = "condition"

    def condition(self, ask, cond, state):
        return {**cond, "label": cond["label"] + 1 + ask.index}, state


def model(x, t, label=0):
    return 0.3 * torch.tanh(x) + 0.1 * torch.as_tensor(label).reshape(-1, 1)


DEN = wrap(model, PATH, "eps", shape=(3,), null={"label": 0})
START = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(guides, **options):
    cond = {"label": torch.tensor([1.0, 2.0]).double()}
    return sample(DEN, start=START, solver="ddim", grid="trailing", steps=8, cond=cond, guides=guides, **options)


@pytest.mark.parametrize("guide", [CFG(3.0), Thresholding(), Pushed(), Told()], ids=lambda g: g.level)
def test_it_is_the_guide_within_and_nothing_outside(guide):
    plain, whole = run([]), run([guide])
    assert not torch.allclose(whole.x, plain.x)
    assert torch.equal(run([During(guide)]).x, whole.x)
    for nothing in (During(guide, enabled=False), During(guide, 0.5, 0.5), During(guide, 0.0, 0.1)):
        assert torch.allclose(run([nothing]).x, plain.x, rtol=1e-9)
    part = run([During(guide, 0.25, 0.75)], keep="trajectory").trajectory
    first = run([], keep="trajectory").trajectory
    # Two of eight steps are as if it were not there; the third is the first that differs.
    assert torch.allclose(part[:3], first[:3], rtol=1e-9)
    assert not torch.allclose(part[3], first[3], rtol=1e-6)
    resumed = sample(
        DEN,
        start=part[6],
        solver="ddim",
        grid=run([]).plan.times[6:].tolist(),
        cond={"label": torch.tensor([1.0, 2.0])},
    ).x
    assert torch.allclose(part[8], resumed, rtol=1e-9)


def test_evaluations_are_those_that_were_asked():
    assert run([During(CFG(3.0), 0.25, 0.75)]).stats.evaluations == 8 + 4
    assert run([During(CFG(3.0), enabled=False)]).stats.evaluations == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "a guide such as"),
        ((CFG(), 0.6, 0.5), "start and stop"),
        ((CFG(), -0.1), "start and stop"),
        ((CFG(), 0.0, 1.5), "start and stop"),
        ((CFG(), "0"), "start must be a number"),
        ((CFG(), 0.0, 1.0, 1), "enabled"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        During(*arguments)
