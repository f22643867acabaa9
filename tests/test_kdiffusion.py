"""Our solvers as k-diffusion's samplers, beside k-diffusion itself; and the names that tools use."""

import pytest
import torch
from peers import k_diffusion

from fewstep import VE, VP, Flow, make_plan, sample, wrap
from fewstep.aliases import CODES, SAMPLERS, SCHEDULES, from_alias
from fewstep.catalog import methods
from fewstep.errors import ArgumentError
from fewstep.kdiffusion import from_sigmas, sample_fewstep, to_sigmas

SIGMAS = torch.tensor([14.6, 7.0, 3.1, 1.2, 0.5, 0.12, 0.0])


@pytest.fixture(scope="module")
def theirs():
    with k_diffusion() as sampling:
        if sampling is None:
            pytest.skip("k-diffusion is not installed")
        yield sampling


def model(x, sigma, shift=0.0):
    """A denoiser that depends on its input and its level."""
    s = sigma.reshape(-1, 1, 1, 1)
    return (x + 0.3 * torch.tanh(x.roll(1, -1)) + shift) / (1 + s**2)


def start(seed=0):
    return SIGMAS[0] * torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("code", ["euler", "heun", "dpm_2", "dpmpp_2m"])
@pytest.mark.parametrize("end", [0.0, 0.05])
def test_the_same_as_k_diffusion(theirs, code, end):
    sigmas = torch.cat([SIGMAS[:-1], torch.tensor([end])]).double()
    solver, grid = from_alias(code)
    got, want = [], []
    a = sample_fewstep(model, start(), sigmas, {"shift": 0.2}, got.append, solver=solver)
    b = getattr(theirs, f"sample_{code}")(model, start(), sigmas, {"shift": 0.2}, want.append, disable=True)
    assert grid is None
    assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
    assert [event["i"] for event in got] == [event["i"] for event in want]
    for key in ("x", "sigma", "denoised"):
        for mine, other in zip(got, want, strict=True):
            assert torch.allclose(mine[key], other[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("code", ["euler_ancestral", "dpmpp_2m_sde"])
def test_the_same_as_k_diffusion_with_the_same_noise(theirs, code):
    def noises(calls):
        generator = torch.Generator().manual_seed(5)

        def draw(sigma, after):
            calls.append((float(sigma), float(after)))
            return torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)

        return draw

    sigmas, mine, other = SIGMAS.double(), [], []
    a = sample_fewstep(model, start(), sigmas, solver=from_alias(code)[0], noise_sampler=noises(mine))
    b = getattr(theirs, f"sample_{code}")(model, start(), sigmas, disable=True, noise_sampler=noises(other))
    assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)
    assert torch.allclose(torch.tensor(mine), torch.tensor(other), rtol=1e-5)


def test_karras_levels_are_k_diffusions(theirs):
    path = VE(80.0)
    plan = make_plan(path, "euler", "karras", 8)
    assert torch.allclose(to_sigmas(path, plan.times), theirs.get_sigmas_karras(8, 0.002, 80.0), rtol=1e-4)


@pytest.mark.parametrize("path", [VE(30.0), VP.from_betas("scaled_linear"), Flow()], ids=["ve", "vp", "flow"])
def test_levels_go_in_and_out(path):
    times = make_plan(path, "euler", "uniform", 7).times
    assert torch.allclose(from_sigmas(path, to_sigmas(path, times)), times, atol=1e-6)


@pytest.mark.parametrize("solver", ["unipc", "dpm-solver++", "heun"])
def test_a_flow_model_runs_as_in_our_own_loop(solver):
    def flow_model(x, sigma):
        return torch.tanh(x) * (1 - sigma.reshape(-1, 1, 1, 1))

    sigmas = torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0])
    den = wrap(flow_model, Flow(), "x0", shape=(3, 4, 4))
    x = torch.randn(2, 3, 4, 4)
    want = sample(den, start=x, solver=solver, grid=sigmas.tolist()).x
    assert torch.allclose(sample_fewstep(flow_model, x, sigmas, flow=True, solver=solver), want, atol=1e-5)


def test_a_plan_runs_and_lists_of_levels_can_be_split():
    sigmas = SIGMAS.double()
    plan = make_plan(VE(float(sigmas[0])), "ddim", (sigmas / sigmas[0]).tolist())
    whole = sample_fewstep(model, start(), sigmas, plan=plan)
    half = sample_fewstep(model, start(), sigmas[:4], solver="ddim")
    assert torch.allclose(sample_fewstep(model, half, sigmas[3:], solver="ddim"), whole)
    x = start()
    assert sample_fewstep(model, x, sigmas[:1]) is x
    assert sample_fewstep(model, x, sigmas[:0]) is x


@pytest.mark.parametrize(
    ("sigmas", "options", "message"),
    [
        ([1.0, 2.0, 0.0], {}, "fall strictly"),
        ([1.0, 1.0, 0.0], {}, "fall strictly"),
        ([1.0, float("nan"), 0.0], {}, "finite"),
        ([1.0, 0.5, -0.1], {}, "at least 0"),
        ([1.5, 0.5, 0.0], {"flow": True}, "up to 1"),
        ([1.0, 0.5, 0.0], {"plan": make_plan(VE(2.0), "ddim", "uniform", 3)}, "levels are"),
        ([1.0, 0.5, 0.0], {"plan": make_plan(VP(), "ddim", "uniform", 2)}, "VE or Flow"),
    ],
)
def test_bad_levels_are_refused(sigmas, options, message):
    with pytest.raises(ArgumentError, match=message):
        sample_fewstep(model, start(), torch.tensor(sigmas), **options)


def test_every_name_means_a_solver_and_a_grid_of_ours():
    solvers = {m.name for m in methods() if m.family == "solvers"}
    assert set(SAMPLERS.values()) <= solvers
    assert set(CODES.values()) <= set(SAMPLERS)
    assert from_alias("DPM++ 2M Karras") == ("dpm-solver++", "karras")
    assert from_alias("Euler a") == ("ddpm", None)
    assert {from_alias(f"Heun {s}")[1] for s in SCHEDULES} == {"karras", "logsnr", "trailing", "beta"}
    with pytest.raises(ArgumentError, match="DPM\\+\\+ 2M"):
        from_alias("DPM++ 2N Karras")
