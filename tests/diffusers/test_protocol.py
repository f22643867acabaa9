"""What pipelines, users and servers do with a scheduler: callbacks, stopping, strength, copies, signatures, imports."""

import copy
import inspect
import subprocess
import sys

import diffusers
import pytest
import torch
from tiny import net, start, walk
from whole import KINDS, MULTISTEP, stable_diffusion

import fewstep.diffusers as ours
from fewstep.errors import ArgumentError

pytest.importorskip("transformers")


@pytest.fixture
def pipe(tmp_path):
    made = stable_diffusion(tmp_path)
    made.scheduler = ours.scheduler(made, "dpm-solver++")
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
def call(pipe, **options):
    return pipe(latents=start(1, (4, 8, 8)), output_type="latent", **{**KINDS["sd15"].call, **options}).images


def test_a_callback_sees_and_changes_every_step(pipe):
    seen = []

    def look(pipe, i, t, kwargs):
        seen.append((i, int(t), kwargs["latents"].clone()))
        return kwargs

    plain = call(pipe)
    assert torch.equal(call(pipe, callback_on_step_end=look), plain)
    assert [i for i, _, _ in seen] == list(range(5))
    assert [t for _, t, _ in seen] == pipe.scheduler.timesteps.tolist()
    assert torch.equal(seen[-1][2], plain)
    halved = call(pipe, callback_on_step_end=lambda pipe, i, t, kw: {"latents": kw["latents"] * (0.5 if i == 2 else 1)})
    assert not torch.allclose(halved, plain)


def test_a_pipeline_is_stopped_from_a_callback_and_runs_again(pipe):
    asked = []

    def stop(pipe, i, t, kwargs):
        asked.append(i)
        pipe._interrupt = i == 1
        return kwargs

    plain = call(pipe)
    stopped = call(pipe, callback_on_step_end=stop)
    assert asked == [0, 1]
    assert not torch.allclose(stopped, plain)
    assert torch.equal(call(pipe), plain)


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("solver", ["dpm-solver++", "heun", "unipc"])
@torch.no_grad()
def test_strength_of_image_to_image(pipe, solver, strength):
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ours.scheduler(pipe, solver)
    told, unet = [], pipe.unet.forward
    pipe.unet.forward = lambda x, t, **kw: told.append(int(t)) or unet(x, t, **kw)
    out = pipe(
        "a cat", image=start(1).clamp(-1, 1), strength=strength, num_inference_steps=10, guidance_scale=1.0,
        output_type="latent", generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    assert out.isfinite().all()
    steps = int(10 * strength)
    assert told == pipe.scheduler.timesteps.tolist()[len(pipe.scheduler.timesteps) - len(told) :]
    assert len(told) == (2 * steps - 1 if solver == "heun" else steps)


def test_no_steps_left_by_strength_is_refused(pipe):
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    with pytest.raises((ArgumentError, ValueError, IndexError)):
        pipe("a cat", image=start(1), strength=0.05, num_inference_steps=10)


def test_arguments_are_spelled_out_as_pipelines_look_for_them():
    taken = inspect.signature(ours.PlanScheduler.set_timesteps).parameters
    assert list(taken)[1:] == ["num_inference_steps", "device", "timesteps", "sigmas", "mu"]
    steps = inspect.signature(ours.PlanScheduler.step).parameters
    assert list(steps)[1:6] == ["model_output", "timestep", "sample", "generator", "return_dict"]


def test_a_pipeline_made_for_ddim_passes_its_eta():
    """DDIMPipeline hands eta and use_clipped_model_output to every scheduler; only what changes nothing is taken."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    pipe = diffusers.DDIMPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "output_type": "np"}
    theirs = pipe(generator=torch.Generator().manual_seed(1), **options).images
    pipe.scheduler = ours.scheduler(pipe, "ddim")
    mine = pipe(generator=torch.Generator().manual_seed(1), **options).images
    assert abs(mine - theirs).max() < 1e-3
    with pytest.raises(ArgumentError, match=r"eta=0\.5"):
        pipe(eta=0.5, **options)


def test_what_pipelines_read_of_a_scheduler():
    mine = ours.scheduler(MULTISTEP, "unipc")
    mine.set_timesteps(4)
    for name in ("order", "timesteps", "sigmas", "init_noise_sigma", "alphas_cumprod", "begin_index", "step_index"):
        getattr(mine, name)
    for name in ("step", "set_timesteps", "scale_model_input", "set_begin_index", "add_noise", "scale_noise"):
        assert callable(getattr(mine, name))
    assert mine.config.get("num_train_timesteps") == 1000
    assert mine.config.get("variance_type") is None
    assert isinstance(mine, diffusers.SchedulerMixin)
    assert torch.allclose(mine.alphas_cumprod, MULTISTEP.alphas_cumprod, atol=1e-6)


def test_a_server_makes_one_from_the_config_for_each_request():
    mine = ours.scheduler(MULTISTEP, "DPM++ 2M Karras")
    mine.set_timesteps(4)
    want = walk(mine, net, start())
    for one in (ours.PlanScheduler.from_config(mine.config), copy.deepcopy(mine)):
        one.set_timesteps(4)
        assert torch.equal(walk(one, net, start()), want)
        assert one.timesteps.tolist() == mine.timesteps.tolist()
    assert mine.plan.source["solver"] == "dpm-solver++"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_fewstep_imports_neither_diffusers_nor_transformers():
    code = (
        "import sys, fewstep; fewstep.sample, fewstep.load, fewstep.make_plan, fewstep.wrap, fewstep.restore;"
        "import fewstep.kdiffusion, fewstep.deepinv;"
        "print([n for n in ('diffusers', 'transformers', 'deepinv', 'huggingface_hub') if n in sys.modules])"
    )
    assert run(code).stdout.strip() == "[]"


@pytest.mark.parametrize("use", ["fewstep.diffusers", "fewstep.load('org/name', revision='0' * 40)"])
def test_without_diffusers_one_is_told_how_to_get_it(use):
    done = run(f"import sys; sys.modules['diffusers'] = None; import fewstep; {use}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingExtraError: this needs diffusers" in last
    assert "pip install 'fewstep[diffusers]'" in last
