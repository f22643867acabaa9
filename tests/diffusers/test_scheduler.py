"""A plan as a scheduler: what diffusers' own give, what our loop gives, and the whole protocol around it."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import diffusers
import pytest
import torch
from tiny import net, start, unet, walk

import fewstep.diffusers as ours
from fewstep import VP, Flow, make_plan, methods, sample, wrap
from fewstep.errors import ArgumentError, FewstepError
from fewstep.plan import Builder, Plan
from fewstep.program import Program

TRAILING = {"timestep_spacing": "trailing"}
BASE = diffusers.DDIMScheduler(clip_sample=False, **TRAILING)
VP_CONFIGS = {
    "linear": {},
    "scaled": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "v": {"prediction_type": "v_prediction"},
    "x0": {"prediction_type": "sample"},
    "given": {"trained_betas": [0.001 + 0.00002 * i for i in range(1000)]},
}


@pytest.mark.parametrize("config", VP_CONFIGS.values(), ids=VP_CONFIGS)
def test_the_same_as_diffusers_multistep_solver(config):
    peer = diffusers.DPMSolverMultistepScheduler(**config, **TRAILING)
    mine = ours.scheduler(peer, "dpm-solver++")
    peer.set_timesteps(7)
    mine.set_timesteps(7)
    assert mine.timesteps.tolist() == peer.timesteps.tolist()
    theirs = walk(peer, net, start().double())
    assert torch.allclose(walk(mine, net, start().double()), theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    ("solver", "peer"),
    [
        ("ddim", diffusers.DDIMScheduler(clip_sample=False, **TRAILING)),
        (
            "ddim",
            diffusers.DDIMScheduler(
                clip_sample=False, rescale_betas_zero_snr=True, prediction_type="v_prediction", **TRAILING
            ),
        ),
        (
            "ddim",
            diffusers.CogVideoXDDIMScheduler(
                clip_sample=False,
                rescale_betas_zero_snr=True,
                prediction_type="v_prediction",
                snr_shift_scale=3.0,
                **TRAILING,
            ),
        ),
        ("unipc", diffusers.UniPCMultistepScheduler(**TRAILING)),
        ("heun", diffusers.HeunDiscreteScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, **TRAILING)),
    ],
)
def test_the_same_as_other_solvers_of_diffusers(solver, peer):
    network = unet()
    mine = ours.scheduler(peer if solver == "ddim" else BASE, solver)
    # A number that divides 1000: DDIM's own last time of a step is otherwise not its next step's first.
    peer.set_timesteps(8)
    mine.set_timesteps(8)
    # Heun's state is x/α: its noise is as large as its first level.
    factor = float((peer.sigmas[0] ** 2 + 1) ** 0.5) if solver == "heun" else 1.0
    theirs = walk(peer, network, start() * factor)
    assert torch.allclose(walk(mine, network, start()), theirs, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("solver", ["dpm-solver++", "unipc", "heun", "ipndm", "rk4", "dpm-solver++3s"])
@pytest.mark.parametrize("grid", ["trailing", "logsnr", "karras"])
def test_the_same_as_our_own_loop(solver, grid):
    mine = ours.scheduler(BASE, solver, grid)
    mine.set_timesteps(5)
    den = wrap(lambda x, t: net(x, t[0]), mine.plan.path, "eps", shape=(3, 8, 8))
    want = sample(den, start=start(), plan=make_plan(mine.plan.path, solver, grid, 5)).x
    assert len(mine.timesteps) == mine.plan.evaluations
    assert torch.allclose(walk(mine, net, start()), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "solver", [m.name for m in methods() if m.family == "solvers"] + ["auto", "DPM++ SDE", "DPM2 a"]
)
def test_every_plan_of_ours_that_begins_with_x_runs(solver):
    """As a plan and by name: the same run as in our own loop, drawn from the same generator."""
    path = ours.scheduler(BASE)._convention.path
    plan = make_plan(path, solver, None if solver == "auto" else "trailing", 5)
    if plan.asks[0].tolist() != [0, 0]:
        with pytest.raises(ArgumentError, match="something else first"):
            ours.scheduler(BASE, plan=plan)
        return
    den, x = wrap(lambda x, t: net(x, t.flatten()[0]), path, "eps", shape=(3, 8, 8)), start()
    program = Program(plan, den)
    run = program.start(x, {}, Drawn(torch.Generator().manual_seed(7)))
    for index in range(plan.steps):
        program.step(run, index)
    for mine in (ours.scheduler(BASE, plan=plan), ours.scheduler(BASE, solver)):
        mine.set_timesteps(5)
        assert len(mine.timesteps) == plan.evaluations
        got = walk(mine, net, x, torch.Generator().manual_seed(7))
        assert torch.allclose(got, run.registers[0], rtol=1e-4, atol=1e-4 * float(run.registers[0].abs().max()))


def test_a_server_of_many_sizes_keeps_a_few_plans():
    mine = ours.scheduler(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "euler")
    for size in range(80):
        mine.set_timesteps(2, mu=1 + size / 100)
    assert len(mine._tables.kept) <= 64


@pytest.mark.parametrize(
    ("config", "mu"),
    [
        ({"shift": 3.0}, None),
        ({"use_dynamic_shifting": True}, 0.467),
        ({"use_dynamic_shifting": True, "time_shift_type": "linear"}, 2.5),
        ({"shift": 2.0, "shift_terminal": 0.1}, None),
        ({"shift": 1.0}, 0.467),
    ],
    ids=["sd3", "flux", "linear", "terminal", "schnell"],
)
def test_flow_pipelines_pass_their_own_list_and_get_the_same_grid(config, mu):
    peer = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    mine = ours.scheduler(peer, "euler")
    default = torch.linspace(1, 1 / 6, 6).tolist()
    for one in (peer, mine):
        one.set_timesteps(sigmas=default, mu=mu, device="cpu")
    assert torch.allclose(mine.timesteps, peer.timesteps, rtol=1e-6)
    assert torch.allclose(mine.sigmas, peer.sigmas, atol=1e-6)
    theirs = walk(peer, net, start())
    assert torch.allclose(walk(mine, net, start()), theirs, atol=1e-5 * float(theirs.abs().max()))


def test_another_list_is_the_users_grid_shifted_once():
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    mine = ours.scheduler(peer, "dpm-solver++")
    for _ in range(2):
        mine.set_timesteps(sigmas=[1.0, 0.7, 0.4, 0.1])
        peer.set_timesteps(sigmas=[1.0, 0.7, 0.4, 0.1])
        assert torch.allclose(mine.sigmas, peer.sigmas, atol=1e-6)
    named = ours.scheduler(peer, "unipc", "logsnr")
    named.set_timesteps(sigmas=torch.linspace(1, 0.25, 4).tolist())
    t = make_plan(Flow(), "euler", "logsnr", 4).times
    assert torch.allclose(named.sigmas.double(), 3 * t / (1 + 2 * t), atol=1e-6)


def test_timesteps_and_levels_as_the_grid():
    mine = ours.scheduler(BASE, "unipc")
    mine.set_timesteps(timesteps=[999, 500, 20])
    assert mine.timesteps.tolist() == [999, 500, 20]
    peer = diffusers.EulerDiscreteScheduler()
    peer.set_timesteps(timesteps=[999, 500, 20])
    assert torch.allclose(mine.sigmas, peer.sigmas, rtol=1e-4)
    mine.set_timesteps(sigmas=peer.sigmas[:-1].tolist())
    assert torch.allclose(mine.timesteps.double(), torch.tensor([999.0, 500, 20], dtype=torch.float64), atol=1e-2)


class Drawn:
    """What a pipeline draws, as the noise of our own loop."""

    def __init__(self, generator):
        self.generator = generator

    def prepare(self, count): ...

    def step(self, index, lam, lam_next):
        return torch.randn(2, 3, 8, 8, generator=self.generator)


@pytest.mark.parametrize("solver", ["ddpm", "sde-dpm-solver++", "sa-solver"])
def test_noise_comes_from_the_generator(solver):
    mine = ours.scheduler(BASE, solver)
    mine.set_timesteps(5)
    den = wrap(lambda x, t: net(x, t[0]), mine.plan.path, "eps", shape=(3, 8, 8))
    program = Program(mine.plan, den)
    run = program.start(start(), {}, Drawn(torch.Generator().manual_seed(7)))
    for index in range(mine.plan.steps):
        program.step(run, index)
    got = walk(mine, net, start(), torch.Generator().manual_seed(7))
    assert torch.allclose(got, run.registers[0], rtol=1e-5, atol=1e-5)
    mine.set_timesteps(5)
    alone = walk(mine, net, start()[1:], [torch.Generator().manual_seed(3)])
    mine.set_timesteps(5)
    both = walk(mine, net, start(), [torch.Generator().manual_seed(9), torch.Generator().manual_seed(3)])
    assert torch.allclose(both[1:], alone, atol=1e-6)


@pytest.mark.parametrize("solver", ["unipc", "deis", "dpm-solver++3m", "ipndm", "LMS"])
def test_image_to_image_begins_in_the_middle_with_no_history(solver):
    mine = ours.scheduler(BASE, solver)
    mine.set_timesteps(10)
    timesteps = mine.timesteps[6 * mine.order :]
    x0 = start(seed=5)
    x = mine.add_noise(x0, start(), timesteps[:1].repeat(2))
    want = BASE.add_noise(x0, start(), timesteps[:1].repeat(2))
    assert torch.allclose(x, want, atol=1e-5)
    mine.set_begin_index(6)
    got = walk(mine, net, x, timesteps=timesteps)
    short = ours.scheduler(BASE, solver)
    short.set_timesteps(timesteps=timesteps.tolist())
    assert torch.allclose(got, walk(short, net, x), rtol=1e-4, atol=1e-5)
    mine.set_timesteps(10)
    assert torch.equal(walk(mine, net, x, timesteps=[int(t) for t in timesteps]), got)


def test_a_run_never_begins_where_x_would_be_made_of_what_nobody_wrote():
    """The first answer is kept, handed down, and only then looked at; no rows say how to do without it."""
    path, times = ours.scheduler(BASE)._convention.path, torch.tensor([1.0, 0.7, 0.4, 0.0], dtype=torch.float64)
    alpha, sigma = path.alpha(times), path.sigma(times)
    keep = sigma[1:] / sigma[:-1]
    gain = alpha[1:] - alpha[:-1] * keep
    builder = Builder(times, ("x", "kept", "handed"))
    builder.ask("x")
    builder.add("x", "x", keep)
    builder.add("x", 0, gain * torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64))
    builder.add("kept", 0, 1.0, range(1))
    builder.add("handed", "kept", 1.0, range(1, 2))
    builder.add("x", "handed", 0.5 * gain[2:], range(2, 3))
    mine = ours.scheduler(BASE, plan=Plan.build(path, builder))
    mine.set_timesteps(3)
    for begin in (1, 2):
        with pytest.raises(ArgumentError, match=r"begin at the evaluations \[0\]"):
            mine.set_begin_index(begin)
    assert walk(mine, net, start()).isfinite().all()


def test_a_stage_is_no_place_to_begin():
    mine = ours.scheduler(BASE, "heun")
    mine.set_timesteps(4)
    assert mine.order == 2
    assert len(mine.timesteps) == 7
    with pytest.raises(ArgumentError, match="can begin at"):
        mine.set_begin_index(3)
    mine.set_begin_index(4)
    x = mine.add_noise(start(), start(seed=3), mine.timesteps[4])
    assert walk(mine, net, x, timesteps=mine.timesteps[4:]).isfinite().all()


def test_add_noise_of_a_flow():
    mine = ours.scheduler(diffusers.FlowMatchEulerDiscreteScheduler())
    mine.set_timesteps(4)
    x0, noise = start(), start(seed=3)
    got = mine.scale_noise(x0, torch.tensor([750.0, 250.0]), noise)
    s = torch.tensor([0.75, 0.25]).reshape(2, 1, 1, 1)
    assert torch.allclose(got, (1 - s) * x0 + s * noise, atol=1e-6)


def test_save_load_and_copies_are_the_same_scheduler(tmp_path):
    plan = make_plan(VP.from_betas("linear"), "unipc", "logsnr", 4)
    mine = ours.scheduler(BASE, plan=plan)
    mine.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert saved["_class_name"] == "PlanScheduler"
    assert saved["timestep_spacing"] == "trailing"
    again = ours.PlanScheduler.from_pretrained(tmp_path)
    want = None
    for one in (mine, again, copy.deepcopy(mine), pickle.loads(pickle.dumps(mine)), mine.from_config(mine.config)):
        one.set_timesteps(4)
        assert one.plan == plan
        x = walk(one, net, start())
        want = x if want is None else want
        assert torch.equal(x, want)


def test_a_copy_in_the_middle_of_a_run_goes_on():
    mine = ours.scheduler(BASE, "unipc")
    mine.set_timesteps(5)
    x = walk(mine, net, start(), timesteps=mine.timesteps[:3])
    twin = copy.deepcopy(mine)
    assert torch.equal(
        walk(mine, net, x, timesteps=mine.timesteps[3:]), walk(twin, net, x, timesteps=twin.timesteps[3:])
    )


def test_a_pipeline_runs_is_saved_and_comes_back(tmp_path):
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ours.scheduler(pipe, "dpm-solver++", "trailing")
    images = pipe(2, torch.Generator().manual_seed(0), 5, output_type="np").images
    den = wrap(lambda x, t: pipe.unet(x, t).sample, pipe.scheduler.plan.path, "eps", shape=(3, 8, 8))
    with torch.no_grad():
        x = sample(den, start=start(seed=0), plan=pipe.scheduler.plan).x
    assert torch.allclose(torch.from_numpy(images), (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), atol=1e-5)
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["scheduler"] == [
        "fewstep.diffusers",
        "PlanScheduler",
    ]
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert (again(2, torch.Generator().manual_seed(0), 5, output_type="np").images == images).all()


def test_four_threads_share_one_scheduler():
    mine = ours.scheduler(BASE, "unipc")

    def run(seed):
        mine.set_timesteps(6 + seed % 2)
        return walk(mine, net, start(seed=seed))

    alone = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(run, range(8)), alone, strict=True):
            assert torch.equal(got, want)


def test_clipped_answers_and_learned_variances():
    mine = ours.scheduler({**BASE.config, "clip_sample": True, "variance_type": "learned_range"}, "ddim")
    mine.set_timesteps(3)
    x, raw = 5 * start(), start(seed=4)
    out = mine.step(torch.cat([raw, raw * 100], 1), mine.timesteps[0], x)
    assert out.pred_original_sample.abs().max() == 1
    peer = diffusers.DPMSolverMultistepScheduler(solver_order=1, **TRAILING)
    peer.set_timesteps(3)
    a, s = peer.alphas_cumprod[999] ** 0.5, (1 - peer.alphas_cumprod[999]) ** 0.5
    assert torch.allclose(out.pred_original_sample, ((x - s * raw) / a).clamp(-1, 1), atol=1e-4)


def test_half_precision_keeps_its_dtype_and_counts_in_single():
    mine = ours.scheduler(BASE, "unipc")
    mine.set_timesteps(5)
    x = walk(mine, net, start().half())
    mine.set_timesteps(5)
    assert x.dtype == torch.float16
    assert torch.allclose(x.float(), walk(mine, net, start().half().float()), rtol=0.01, atol=0.5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (diffusers.EDMEulerScheduler(), "sigma_data"),
        (diffusers.DDIMScheduler(thresholding=True), "quantile"),
        (diffusers.DDIMScheduler(rescale_betas_zero_snr=True), "α = 0"),
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "from noise to data"),
        (diffusers.CMStochasticIterativeScheduler(), "consistency"),
        ({"num_train_timesteps": 1000}, "beta_schedule"),
        ({**BASE.config, "prediction_type": "bogus"}, "unknown prediction_type"),
        ({**BASE.config, "beta_schedule": "bogus"}, "unknown beta_schedule"),
        ({**BASE.config, "num_train_timesteps": -5}, "at least 1"),
        (3, "give a pipeline"),
    ],
)
def test_what_cannot_be_matched_is_refused_with_the_reason(config, reason):
    with pytest.raises(FewstepError, match=reason):
        ours.scheduler(config)


def test_a_plan_is_a_plan_or_its_file_and_nothing_beside_it(tmp_path):
    plan = make_plan(ours.scheduler(BASE)._convention.path, "unipc", "trailing", 3)
    plan.save(tmp_path / "three.json")
    for given in (plan, tmp_path / "three.json", str(tmp_path / "three.json")):
        assert ours.scheduler(BASE, plan=given)._tables.plan == plan
    with pytest.raises(ArgumentError, match="leave them out"):
        ours.scheduler(BASE, "ddim", plan=plan)
    with pytest.raises(ArgumentError, match="path of its file"):
        ours.scheduler(BASE, plan=3)


def test_one_plan_and_one_number_of_steps():
    fixed = ours.scheduler(BASE, "unipc", steps=4)
    fixed.set_timesteps(4)
    with pytest.raises(ArgumentError, match="num_inference_steps=4"):
        fixed.set_timesteps(50)
    plan = ours.scheduler(BASE, plan=fixed.plan)
    with pytest.raises(ArgumentError, match="one plan of 4 steps"):
        plan.set_timesteps(timesteps=[999, 1])
    with pytest.raises(ArgumentError, match="for a path"):
        ours.scheduler(diffusers.FlowMatchEulerDiscreteScheduler(), plan=fixed.plan)
    builder = Builder(torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64), ("x",))
    builder.ask("x", steps=range(1, 2))
    builder.add("x", 0, 1.0, range(1, 2))
    deaf = Plan.build(fixed.plan.path, builder, deviates="it only looks at the end")
    with pytest.raises(ArgumentError, match="something else first"):
        ours.scheduler(BASE, plan=deaf)
