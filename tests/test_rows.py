"""What is kept between runs is never another network's, another mode's or another's to change."""

import copy
import pickle

import pytest
import torch

from fewstep import VP, Plan, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.program import Program


def net(x, t):
    return torch.tanh(x + 0.01 * t.reshape(-1, 1))


def model(predicts="eps", time="path", path=None):
    return wrap(net, path or VP.from_betas("linear"), predicts, shape=(4,), time=time)


@pytest.mark.parametrize("solver", ["ddim", "unipc", "heun", "ddpm", "dpm-solver++"])
def test_folded_coefficients_are_the_plans(solver):
    plan, path = make_plan(VP(), solver, "uniform", 4), VP()
    folded, plain = (Program(plan, wrap(net, path, p, shape=(4,))) for p in ("eps", "x0"))
    size = len(plan.registers)
    for with_eps, with_x0 in zip(folded.rows, plain.rows, strict=True):
        for (to, terms), (same, others) in zip(with_eps.writes, with_x0.writes, strict=True):
            assert to == same
            got, want = ({k: float(v) for k, v in some} for some in (terms, others))
            for slot, question in enumerate(with_x0.questions):
                b = want.pop(size + slot, 0.0)
                alpha, sigma = float(path.alpha(question.t)), float(path.sigma(question.t))
                want[question.register] = want.get(question.register, 0.0) + b / alpha
                want[size + slot] = -b * sigma / alpha
            for key in {*got, *want}:
                assert got.get(key, 0.0) == pytest.approx(want.get(key, 0.0), rel=1e-12, abs=1e-14)


def test_rows_are_kept_for_those_who_are_told_and_predict_the_same():
    plan = make_plan(VP.from_betas("linear"), "unipc", "trailing", 5)
    first = Program(plan, model()).rows
    assert Program(plan, model()).rows is first
    for other in (model(time="t"), model("v"), model("x0")):
        assert Program(plan, other).rows is not first
    assert Program(plan, model(), dtype=torch.float64).rows is not first
    start, kinds = torch.randn(2, 4), [("eps", "path"), ("eps", "t"), ("v", "path"), ("v", "t")]
    fresh = Plan(**{name: getattr(plan, name) for name in plan.__dataclass_fields__})
    once, again = ([sample(model(*kind), start=start, plan=one).x for kind in kinds] for one in (plan, fresh))
    for mine, other in zip(once, again, strict=True):
        assert torch.equal(mine, other)


def test_a_named_plan_is_made_once_and_what_is_said_of_it_is_each_ones_own():
    path = VP.from_betas("linear")
    one, other = (make_plan(path, "unipc", "logsnr", 6) for _ in range(2))
    assert one == other
    assert one.M is other.M
    one.source["note"] = "mine"
    assert "note" not in other.source
    assert "note" not in make_plan(VP.from_betas("linear"), "unipc", "logsnr", 6).source
    for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert twin == one
        assert torch.equal(sample(model(), 2, plan=twin).x, sample(model(), 2, plan=one).x)
    make_plan(path, "ddim", "logsnr", 1)
    with pytest.raises(ArgumentError, match="steps must be an integer"):
        make_plan(path, "ddim", "logsnr", True)
    assert make_plan(VP(0.1, 20.0), "ddim", "logsnr", 6) != make_plan(VP(0.1, 10.0), "ddim", "logsnr", 6)


def test_what_was_made_without_gradients_serves_a_run_with_them():
    den = wrap(net, VP(0.1, 19.0), "eps", shape=(4,))
    with torch.inference_mode():
        sample(den, 2, solver="dpm-solver++", grid="logsnr", steps=5)
    start = torch.randn(2, 4, requires_grad=True)
    sample(den, start=start, solver="dpm-solver++", grid="logsnr", steps=5, grad=True).x.sum().backward()
    assert start.grad.abs().sum() > 0


def test_an_equal_path_has_an_equal_hash():
    one, other = VP.from_betas("linear"), VP.from_betas("linear")
    assert hash(one) == hash(other) == hash(pickle.loads(pickle.dumps(one)))
