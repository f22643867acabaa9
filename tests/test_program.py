"""Asks of one step: one batch, and the same answers as asked one after another."""

import pytest
import torch

from fewstep import CFG, VP, sample, wrap
from fewstep.errors import PlanError
from fewstep.guidance import Guide
from fewstep.plan import Builder, Plan


class Net:
    """An answer that depends on state, time and label, and remembers how it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, label):
        self.calls.append(len(x))
        return torch.tanh(x + torch.as_tensor(t).reshape(-1, *[1] * (x.ndim - 1)) + 0.3 * label[:, None])


def plan_with_two_asks():
    path = VP()
    times = torch.tensor([0.9, 0.6, 0.3, 0.0], dtype=torch.float64)
    other = times[:-1] - 0.1
    builder = Builder(times, ("x",))
    alpha, sigma = path.alpha(times), path.sigma(times)
    ratio = sigma[1:] / sigma[:-1]
    builder.ask("x")
    builder.ask("x", other, slot=1)
    builder.add("x", "x", ratio)
    for slot, share in ((0, 0.7), (1, 0.3)):
        builder.add("x", slot, share * (alpha[1:] - alpha[:-1] * ratio))
    deviates = "the second answer is told another time than the state's"
    return Plan.build(path, builder, order=1, source={}, deviates=deviates)


@pytest.mark.parametrize("predicts", ["x0", "eps"])
@pytest.mark.parametrize("guides", [[], [CFG(2.0)]], ids=["plain", "cfg"])
def test_asks_of_a_step_are_one_batch_and_answered_as_alone(predicts, guides):
    plan = plan_with_two_asks()
    net = Net()
    den = wrap(net, VP(), predicts, shape=(4,), time="t", null={"label": 0})
    cond = {"label": [1, 2, 3]}
    start = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = sample(den, start=start, plan=plan, guides=guides, cond=cond)
    asks = 2 * (1 + len(guides))
    assert net.calls == [3 * asks] * 3
    assert out.stats.evaluations == 3 * asks

    def believed(x, t):
        label = torch.tensor([1, 2, 3])
        plain, none = (den(x, t, label=v) for v in (label, torch.zeros(3, dtype=torch.int64)))
        return none + 2 * (plain - none) if guides else plain

    path, x = VP(), start
    for t, told, end in zip(plan.times, plan.ask_times.reshape(-1, 2)[:, 1], plan.times[1:], strict=False):
        ratio = path.sigma(end) / path.sigma(t)
        # The network is told the other time; its answer is read at that time too.
        both = 0.7 * believed(x, t) + 0.3 * believed(x, told)
        x = ratio * x + (path.alpha(end) - path.alpha(t) * ratio) * both
    assert torch.allclose(out.x, x, rtol=1e-10)


class Draws(Guide):
    """Remembers what it drew."""

    level = "answer"

    def __init__(self):
        self.drawn = []

    def answer(self, ask, x0, state):
        self.drawn.append(ask.noise(0))
        return x0, state


def test_two_guides_do_not_share_their_draws():
    first, second, alone = Draws(), Draws(), Draws()
    den = wrap(lambda x, t: x, VP(), "x0", shape=(8,))
    sample(den, 2, steps=3, guides=[first, second])
    sample(den, 2, steps=3, guides=[alone])
    for a, b, c in zip(first.drawn, second.drawn, alone.drawn, strict=True):
        assert torch.equal(a, c)
        assert not torch.equal(a, b)
    assert not torch.equal(second.drawn[0], second.drawn[1])


def test_an_answer_that_nobody_asked_for_is_refused():
    builder = Builder(torch.tensor([0.9, 0.3], dtype=torch.float64), ("x",))
    builder.ask("x")
    builder.add("x", "x", 1.0)
    builder.add("x", 1, 0.5)
    with pytest.raises(PlanError, match="no such step, register or answer"):
        Plan.build(VP(), builder)
