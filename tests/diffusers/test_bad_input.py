"""Every bad input of the table in docs/reliability.md: a clear error, and never a result.

The table itself is what benchmarks/bad_input.py found, in diffusers and here.
"""

import diffusers
import pytest
import torch
from tiny import net, start, unet, walk

import fewstep.diffusers as ours
from fewstep import VP, make_plan, sample, wrap
from fewstep.errors import ArgumentError, FewstepError, NumericalError
from fewstep.paths import from_json
from fewstep.plan.files import loads
from fewstep.solvers import solver_named

BASE = diffusers.DDIMScheduler(clip_sample=False)
FLOW = diffusers.FlowMatchEulerDiscreteScheduler()
SOLVERS = ["ddim", "dpm-solver++", "unipc", "heun", "sde-dpm-solver++", "ddpm"]


def begun(solver="unipc", steps=5, base=BASE):
    scheduler = ours.scheduler(base, solver)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_from_the_network(solver, value):
    calls = []

    def bad(x, t):
        calls.append(t)
        out = net(x, t).clone()
        if len(calls) == 3:
            out[0, 0, 0, 0] = value
        return out

    with pytest.raises(NumericalError, match="answer number 3"):
        walk(begun(solver), bad, start())


def test_nan_through_a_pipeline_gives_no_black_picture():
    network = unet()
    with torch.no_grad():
        network.conv_in.bias[0] = float("nan")
    pipe = diffusers.DDPMPipeline(network, begun())
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(NumericalError, match="answer number 1"):
        pipe(1, num_inference_steps=3)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 8, 8), (2, 6, 8, 8), (3, 8, 8)])
def test_an_answer_of_another_shape(solver, shape):
    scheduler = begun(solver)
    with pytest.raises(ArgumentError, match="answered with shape"):
        scheduler.step(torch.zeros(shape), scheduler.timesteps[0], start())


@pytest.mark.parametrize("base", [BASE, FLOW], ids=["noise", "flow"])
@pytest.mark.parametrize("solver", ["ddim", "unipc", "heun"])
@pytest.mark.parametrize("steps", [0, -3, 2.5, True, "8"])
def test_steps_that_are_no_number_of_steps(base, solver, steps):
    with pytest.raises(ArgumentError, match="at least 1"):
        ours.scheduler(base, solver).set_timesteps(steps)


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_steps_than_levels(solver):
    with pytest.raises(ArgumentError, match="at most 1000"):
        ours.scheduler(BASE, solver).set_timesteps(1001)


@pytest.mark.parametrize(
    "timesteps",
    [[10, 500, 999], [999, 10, 500], [999, 500, 500, 10], [1500, 10], [500, -10], [], [999, float("nan")], [[999, 1]]],
    ids=["ascending", "unsorted", "twice", "1500", "-10", "empty", "nan", "nested"],
)
@pytest.mark.parametrize("base", [BASE, FLOW], ids=["noise", "flow"])
def test_timesteps_that_are_no_grid(base, timesteps):
    with pytest.raises(ArgumentError, match=r"timesteps (must|of this)"):
        ours.scheduler(base).set_timesteps(timesteps=timesteps)


@pytest.mark.parametrize(
    "sigmas", [[0.1, 0.9], [0.9, 0.1, 0.5], [0.9, -0.1], [0.9, float("nan")], [], [0.0], [1e6, 1.0]]
)
@pytest.mark.parametrize("base", [BASE, FLOW], ids=["noise", "flow"])
def test_levels_that_are_no_grid(base, sigmas):
    with pytest.raises(ArgumentError, match=r"sigmas must|noise levels up to"):
        ours.scheduler(base).set_timesteps(sigmas=sigmas)


def test_levels_as_a_list_are_taken_as_documented():
    a, b = begun(), begun()
    a.set_timesteps(sigmas=[14.0, 3.0, 0.5])
    b.set_timesteps(sigmas=torch.tensor([14.0, 3.0, 0.5]))
    assert torch.allclose(walk(a, net, start()), walk(b, net, start()))


@pytest.mark.parametrize(
    ("config", "solver", "message"),
    [
        ({"prediction_type": "bogus"}, "ddim", "unknown prediction_type"),
        ({}, "bogus", "unknown solver"),
        ({"num_train_timesteps": -5}, "ddim", "num_train_timesteps must be"),
        ({"num_train_timesteps": "many"}, "ddim", "num_train_timesteps must be"),
        ({"beta_start": "x"}, "ddim", "beta_start"),
    ],
)
def test_options_without_a_meaning(config, solver, message):
    with pytest.raises(ArgumentError, match=message):
        ours.scheduler({**BASE.config, **config}, solver).set_timesteps(3)


@pytest.mark.parametrize(
    ("solver", "name"),
    [("dpm-solver++", "answers"), ("sde-dpm-solver++", "answers"), ("deis", "answers"), ("unipc", "predictor")],
)
@pytest.mark.parametrize("order", [0, 7, 2.5])
def test_an_order_that_the_solver_has_not(solver, name, order):
    with pytest.raises(ArgumentError, match=f"{name} must be"):
        solver_named(solver, **{name: order})


@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_left_out(solver):
    scheduler = begun(solver, 6)
    with pytest.raises(ArgumentError, match="in order"):
        walk(scheduler, net, start(), timesteps=scheduler.timesteps[::2])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_timestep_that_is_not_in_the_run(solver):
    with pytest.raises(ArgumentError, match="none of this run's"):
        walk(begun(solver), net, start(), timesteps=[777])


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_too_many_and_a_second_run(solver):
    scheduler = begun(solver)
    x = walk(scheduler, net, start())
    with pytest.raises(ArgumentError, match="over"):
        scheduler.step(net(x, 1), scheduler.timesteps[-1], x)
    with pytest.raises(ArgumentError, match="over"):
        walk(scheduler, net, start())


@pytest.mark.parametrize("base", [BASE, FLOW], ids=["noise", "flow"])
def test_a_step_before_set_timesteps(base):
    with pytest.raises(ArgumentError, match="set_timesteps first"):
        ours.scheduler(base).step(start(), 999, start())


def test_too_few_generators_and_another_batch():
    scheduler = begun("ddpm")
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    with pytest.raises(ArgumentError, match="one a sample"):
        walk(scheduler, net, start(4), generators)
    scheduler = begun()
    x = walk(scheduler, net, start(4), timesteps=scheduler.timesteps[:1])
    with pytest.raises(ArgumentError, match="of shape"):
        walk(scheduler, net, x[:2], timesteps=scheduler.timesteps[1:])


def test_the_same_picture_in_a_batch_of_one_and_of_four():
    den = wrap(lambda x, t: net(x, t[0]), VP.from_betas("linear"), "eps", shape=(3, 8, 8))
    plan = make_plan(den.path, "ddpm", "trailing", 5)
    assert torch.equal(sample(den, 4, plan=plan, seed=0).x[:1], sample(den, 1, plan=plan, seed=0).x)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "fewstep-plan", "version": 1}', "null"])
def test_a_plan_that_is_no_plan(text):
    with pytest.raises(FewstepError, match="plan"):
        loads(text)
    with pytest.raises(FewstepError, match="plan"):
        ours.PlanScheduler.from_config({**BASE.config, "plan": text})


def test_a_broken_scheduler_file(tmp_path):
    (tmp_path / "scheduler_config.json").write_text("{")
    with pytest.raises(OSError, match="not a valid JSON"):
        ours.PlanScheduler.from_pretrained(tmp_path)
    with pytest.raises(FewstepError):
        from_json({"kind": "vp", "beta_min": "x", "beta_max": 1})
