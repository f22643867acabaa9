"""Runs: equality of rows, threads, noises, dtypes, gradients, events, guides and bad input."""

import threading

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fewstep
from fewstep import CFG, VP, Flow, make_plan, sample, stream, wrap
from fewstep.catalog import methods
from fewstep.errors import ArgumentError, FewstepError, NumericalError
from fewstep.guidance import Guide
from fewstep.session import prepare

SOLVERS = [m.name for m in methods() if m.family == "solvers"]


def elementwise(path=None, predicts="x0", shape=(2, 4, 4), **fields):
    return wrap(lambda x, t, **_: torch.tanh(x) * 0.7, path or VP(), predicts, shape=shape, **fields)


def labelled():
    def net(x, t, label):
        return torch.tanh(x) * (label.to(x.dtype)[:, None, None, None] + 1) / 4

    return wrap(net, VP(), "x0", shape=(2, 4, 4), null={"label": 3})


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("predicts", ["x0", "eps", "v", "flow", "score"])
def test_bit_equal_for_any_batch_and_alone(solver, predicts):
    den = elementwise(predicts=predicts)
    whole = sample(den, 16, solver=solver, steps=5, seed=3).x
    assert torch.equal(whole[:3], sample(den, 3, solver=solver, steps=5, seed=3).x)
    assert torch.equal(whole[9:10], sample(den, 1, solver=solver, steps=5, seed=3, first=9).x)
    assert not torch.equal(whole, sample(den, 16, solver=solver, steps=5, seed=4).x)


@pytest.mark.parametrize("solver", SOLVERS)
def test_folding_the_prediction_changes_nothing(solver):
    """The same network, told as x₀ and as v, must run to the same end."""
    path = VP()

    def net_v(x, t):
        alpha, sigma = (f(t.double())[:, None, None, None] for f in (path.alpha, path.sigma))
        x0 = 0.7 * torch.tanh(x)
        return alpha * (x - alpha * x0) / sigma - sigma * x0

    v = wrap(net_v, path, "v", shape=(2, 4, 4))
    runs = [sample(d, 2, solver=solver, steps=6, dtype=torch.float64).x for d in (elementwise(), v)]
    assert torch.allclose(*runs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_eight_threads_on_one_denoiser(solver):
    den, results = elementwise(), {}

    def work(i):
        results[i] = sample(den, 2, solver=solver, steps=20, seed=i).x

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        assert torch.equal(results[i], sample(den, 2, solver=solver, steps=20, seed=i).x)


class Transfers(TorchDispatchMode):
    """Counts operations that copy between devices or read a number back."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if any(word in name for word in ("_to_copy", "_local_scalar_dense", "copy_", "nonzero", "is_nonzero")):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_loop_copies_nothing_and_waits_for_nothing(solver):
    den = elementwise(predicts="eps")
    session = prepare(den, 2, solver=solver, steps=6, device="meta", start=torch.zeros(2, 2, 4, 4, device="meta"))
    run = session.program.start(session.start, {}, session.noise)
    with Transfers() as transfers:
        for index in range(session.program.plan.steps):
            session.program.step(run, index)
    assert transfers.found == []
    assert run.registers[0].device.type == "meta"


def test_evaluations_count_guidance_and_budgets_hold():
    den, y = labelled(), {"label": [0, 1]}
    assert sample(den, 2, steps=5, cond=y).stats.evaluations == 5
    assert sample(den, 2, steps=5, cond=y, guides=[CFG(2.0)]).stats.evaluations == 10
    assert sample(den, 2, evaluations=9, cond=y, guides=[CFG(2.0)]).stats.evaluations == 8
    assert sample(elementwise(), 1, solver="heun", evaluations=8).stats.evaluations == 7
    assert sample(elementwise(), 1, solver="heun", evaluations=9).stats.evaluations == 9


def test_cfg_is_the_combination_of_two_runs_of_the_network():
    den, x = labelled(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    plan = make_plan(den.path, "ddim", [0.5, 0.2])
    guided = sample(den, start=x, plan=plan, cond={"label": [0, 1]}, guides=[CFG(3.0)]).x
    parts = [sample(den, start=x, plan=plan, cond={"label": label}).x for label in ([0, 1], [3, 3])]
    assert torch.allclose(guided, parts[1] + 3.0 * (parts[0] - parts[1]))
    same = sample(den, start=x, plan=plan, cond={"label": [0, 1]}, guides=[CFG(1.0)])
    assert torch.equal(same.x, parts[0])
    assert same.stats.evaluations == 1


class Push(Guide):
    """Moves x̂₀ up the gradient of its own sum through the network."""

    level, needs_grad = "answer", True

    def init(self, denoiser, batch):
        return 0

    def answer(self, ask, x0, state):
        (gradient,) = torch.autograd.grad(x0.sum(), ask.x)
        return x0 + 0.1 * gradient, state + 1


class Jump(Guide):
    """Leaves the state alone and says that it jumped, after the second step."""

    level = "state"

    def move(self, ask, x, state):
        return x, state, ask.index == 1


def test_a_guide_that_needs_gradients_gets_them_and_leaves_no_graph():
    out = sample(elementwise(), 2, steps=3, guides=[Push()])
    assert not out.x.requires_grad
    assert not torch.equal(out.x, sample(elementwise(), 2, steps=3).x)


def test_after_a_jump_the_history_begins_anew():
    den, plan = elementwise(), make_plan(VP(), "dpm-solver++", steps=5)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    jumped = sample(den, start=x, plan=plan, guides=[Jump()]).x
    times = plan.times.tolist()
    first = sample(den, start=x, plan=make_plan(VP(), "dpm-solver++", times[:3])).x
    second = sample(den, start=first, plan=make_plan(VP(), "dpm-solver++", times[2:])).x
    assert torch.allclose(jumped, second, rtol=1e-12)
    assert not torch.allclose(jumped, sample(den, start=x, plan=plan).x, rtol=1e-6)


def test_gradients_through_all_steps_and_by_checkpoints():
    den, plan = elementwise(), make_plan(VP(), "dpm-solver++", steps=4)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    gradients = []
    for grad in (True, "checkpoint"):
        start = x.clone().requires_grad_()
        out = sample(den, start=start, plan=plan, grad=grad)
        assert out.stats.evaluations == 4
        gradients += torch.autograd.grad(out.x.square().sum(), start)
    assert torch.allclose(*gradients)
    probe, size = torch.randn_like(x), 1e-6
    rise = [sample(den, start=x + s * probe, plan=plan).x.square().sum() for s in (size, -size)]
    assert float((rise[0] - rise[1]) / (2 * size)) == pytest.approx(float((gradients[0] * probe).sum()), rel=1e-5)


def test_dtypes():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert sample(elementwise(), 2, steps=3, dtype=dtype).x.dtype == dtype
    exact, rounded = (sample(elementwise(), 2, steps=8, dtype=d).x for d in (torch.float64, torch.float32))
    assert torch.allclose(exact.float(), rounded, atol=1e-5)


def test_stream_events_and_stop():
    den, seen = elementwise(), []
    for event in stream(den, 2, steps=6):
        seen.append((event.step, event.of, event.evaluations, tuple(event.x0.shape)))
        if event.step == 3:
            event.stop()
    assert seen == [(i, 6, i, (2, 2, 4, 4)) for i in (1, 2, 3)]


@pytest.mark.parametrize("predicts", ["x0", "eps"])
def test_what_is_kept(predicts):
    den = elementwise(predicts=predicts)
    states = sample(den, 2, steps=4, keep="trajectory")
    assert states.trajectory.shape == (5, 2, 2, 4, 4)
    assert torch.equal(states.trajectory[-1], states.x)
    answers = sample(den, 2, steps=4, keep="answers").answers
    times = states.plan.times
    for i in range(4):
        assert torch.allclose(answers[i], den(states.trajectory[i], times[i]), atol=1e-5)


def test_brownian_noise_makes_grids_agree():
    """With one Brownian path, 64 and 128 steps differ less than 16 and 32; keyed noise has no such path."""
    den = elementwise(shape=(1, 8, 8))

    def end(steps, noise):
        grid = make_plan(den.path, "ddpm", "logsnr", steps)
        return sample(den, 8, plan=grid, noise=noise, dtype=torch.float64).x

    coarse = (end(16, "brownian") - end(32, "brownian")).abs().mean()
    fine = (end(64, "brownian") - end(128, "brownian")).abs().mean()
    keyed = (end(64, "keyed") - end(128, "keyed")).abs().mean()
    assert fine < 0.7 * coarse
    assert fine < 0.3 * keyed


def test_tensor_times_one_a_sample():
    den = elementwise()
    columns = [[0.9, 0.5, 0.2, 0.0], [0.7, 0.6, 0.1, 0.0]]
    times = torch.tensor(columns, dtype=torch.float64).T.reshape(4, 2, 1, 1, 1)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    both = sample(den, start=x, plan=make_plan(den.path, "dpm-solver++", times)).x
    for i, column in enumerate(columns):
        alone = sample(den, start=x[i : i + 1], plan=make_plan(den.path, "dpm-solver++", column)).x
        assert torch.allclose(both[i : i + 1], alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "steps must be"),
        ({"steps": -3}, "steps must be"),
        ({"steps": 2.5}, "steps must be"),
        ({"steps": 3, "evaluations": 3}, "one of steps and evaluations"),
        ({"evaluations": 0}, "evaluations must be"),
        ({"solver": "dmp-solver++"}, "did you mean 'dpm-solver"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"grid": [0.1, 0.5]}, "fall"),
        ({"grid": [0.5, 0.5, 0.0]}, "fall"),
        ({"grid": [1.5, 0.0]}, r"\[0, 1\]"),
        ({"grid": []}, "at least two"),
        ({"n": 0}, "n must be"),
        ({"n": True}, "n must be"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"keep": "all"}, "unknown keep"),
        ({"noise": "white"}, "unknown noise"),
        ({"grad": "yes"}, "grad must be"),
        ({"guides": ["cfg"]}, "guides must be"),
        ({"start": torch.zeros(2, 3)}, "start must be"),
        ({"start": torch.zeros(2, 2, 4, 4, dtype=torch.int64)}, "start must be"),
        ({"plan": make_plan(Flow(), steps=2)}, "denoiser lives on"),
        ({"cond": {"label": [0, 1, 2]}, "n": 2}, "3 rows"),
        ({"steps": 1001, "grid": "trailing"}, "at most 1000"),
    ],
)
def test_bad_arguments_fail_at_the_call(options, match):
    asked = []
    den = wrap(lambda x, t: asked.append(1) or x, VP(), shape=(2, 4, 4))
    with pytest.raises(ArgumentError, match=match):
        sample(den, **options)
    assert asked == []


def test_nan_names_the_step_and_the_samples():
    def net(x, t):
        out = torch.zeros_like(x)
        out[1] = torch.where(t[1] < 0.5, float("nan"), 0.0)
        return out

    den = wrap(net, VP(), "x0", shape=(2, 4, 4))
    says = r"answer number 2, at step 2 of 3 \(t = 0\.4, float32\), .*\[1\] \(1 of 3, 100 % of their numbers\)"
    for debug in (False, True):
        with pytest.raises(NumericalError, match=says) as caught:
            sample(den, 3, grid=[0.9, 0.4, 0.2, 0.0], debug=debug)
    # Where every step was looked at, the error brings the last good state.
    good = sample(den, 3, grid=[0.9, 0.4, 0.2, 0.0][:2]).x
    assert torch.equal(caught.value.state, good)
    # Guides ask with answers of their own; the step is told all the same.
    with pytest.raises(NumericalError, match=r"number 2, at step 2 of 3 .*; debug=True stops there"):
        sample(den, 3, grid=[0.9, 0.4, 0.2, 0.0], guides=[fewstep.guidance.EpsilonScaling(1.01)])


def test_wrong_shapes_and_impossible_predictions():
    with pytest.raises(ArgumentError, match="answered with shape"):
        sample(wrap(lambda x, t: x[:, :1], VP(), shape=(2, 4, 4)), 1)
    with pytest.raises(ArgumentError, match="below t = 1"):
        sample(wrap(lambda x, t: x, Flow(), "eps", shape=(2, 4, 4)), 1)
    with pytest.raises(ArgumentError, match="CFG needs a null"):
        sample(elementwise(), 1, guides=[CFG(2.0)], cond={"label": 1})
    with pytest.raises(FewstepError):
        wrap(lambda x, t: x, VP(), "epsilon", shape=(2, 4, 4))


def test_public_names_are_there_and_no_function_bears_a_modules_name():
    for name in fewstep.__all__:
        assert getattr(fewstep, name) is not None
    assert "sample" in dir(fewstep)
    with pytest.raises(AttributeError):
        _ = fewstep.nothing


def test_callbacks_and_progress(capsys):
    seen = []

    def stop_at_three(event):
        seen.append((event.step, event.of, float(event.t)))
        if event.step == 3:
            event.stop()

    out = sample(elementwise(), 1, steps=5, callback=stop_at_three, progress=True)
    assert [s[:2] for s in seen] == [(1, 5), (2, 5), (3, 5)]
    assert out.stats.evaluations == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "sampling" in captured.err


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_real_network_gives_close_rows_whatever_the_batch(solver):
    den, label = fewstep.load("mnist"), [3, 1, 4]
    whole = sample(den, 3, solver=solver, steps=3, seed=5, cond={"label": label}).x
    for i in (0, 2):
        alone = sample(den, 1, solver=solver, steps=3, seed=5, first=i, cond={"label": [label[i]]}).x
        assert torch.allclose(whole[i : i + 1], alone, atol=2e-4)


@pytest.mark.parametrize("guide", [CFG(3.0)], ids=lambda g: type(g).__name__)
def test_a_row_is_a_row_with_every_guide(guide):
    den, label = labelled(), [2, 0, 1, 2]
    whole = sample(den, 4, steps=4, seed=1, guides=[guide], cond={"label": label}).x
    for i in range(4):
        alone = sample(den, 1, steps=4, seed=1, first=i, guides=[guide], cond={"label": [label[i]]}).x
        assert torch.equal(whole[i : i + 1], alone)


def test_a_step_that_asks_nothing_has_no_preview():
    """Phase space begins by drawing what a state leaves open: there is nothing to show before the first question."""
    den = fewstep.wrap(lambda x, t: 0.3 * x, VP(), "x0", shape=(2,))
    event = next(iter(fewstep.stream(den, 1, solver="phase-space-euler", steps=3)))
    assert event.evaluations == 0
    with pytest.raises(ArgumentError, match="asked the network nothing yet"):
        event.x0  # noqa: B018
    out = fewstep.sample(den, 1, solver="phase-space-euler", steps=3, keep="answers")
    assert len(out.answers) == out.stats.evaluations == 3


@pytest.mark.parametrize("wrong", [
    {"plan": "x"}, {"plan": {}}, {"cond": {"label": 2**70}}, {"cond": {1: 2}}, {"callback": 3},
    {"plan": make_plan(VP(), steps=2), "solver": "heun"}, {"plan": make_plan(VP(), steps=2), "grid": "karras"},
    {"cond": {"label": np.array(["a"])}}, {"cond": {"label": np.zeros(3)}},
])  # fmt: skip
def test_what_would_be_ignored_or_break_later_is_refused(wrong):
    with pytest.raises(ArgumentError):
        sample(labelled(), 2, **wrong)


def test_conditions_may_be_numpy_arrays():
    want = sample(labelled(), 3, steps=2, cond={"label": [0, 2, 1]}).x
    assert torch.equal(sample(labelled(), 3, steps=2, cond={"label": np.array([0, 2, 1])}).x, want)
