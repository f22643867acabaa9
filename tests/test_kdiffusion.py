"""Our solvers as k-diffusion's samplers, beside k-diffusion itself; and the names that tools use."""

from itertools import pairwise

import pytest
import torch
from peers import k_diffusion

from fewstep import VE, VP, Flow, make_plan, sample, wrap
from fewstep.aliases import CODES, SAMPLERS, SCHEDULES, from_alias
from fewstep.errors import ArgumentError
from fewstep.grids import GRIDS
from fewstep.kdiffusion import from_sigmas, sample_fewstep, to_sigmas
from fewstep.solvers import solver_named

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


@pytest.mark.parametrize(
    ("code", "function", "options"),
    [
        ("euler_ancestral", "euler_ancestral", {}),
        ("dpmpp_2m_sde", "dpmpp_2m_sde", {}),
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde", {"solver_type": "heun"}),
        ("dpmpp_3m_sde", "dpmpp_3m_sde", {}),
        ("res_multistep", "dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.0}),
    ],
)
@pytest.mark.parametrize("end", [0.0, 0.05])
def test_the_same_as_k_diffusion_with_the_same_noise(theirs, code, function, options, end):
    def noises(calls):
        generator = torch.Generator().manual_seed(5)

        def draw(sigma, after):
            calls.append((float(sigma), float(after)))
            return torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)

        return draw

    sigmas, mine, other = torch.cat([SIGMAS[:-1], torch.tensor([end])]).double(), [], []
    a = sample_fewstep(model, start(), sigmas, solver=code, noise_sampler=noises(mine))
    their = getattr(theirs, f"sample_{function}")
    b = their(model, start(), sigmas, disable=True, noise_sampler=noises(other), **options)
    assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)
    if options.get("eta") != 0:
        assert torch.allclose(torch.tensor(mine), torch.tensor(other), rtol=1e-5)


def test_lcm_is_fresh_noise_on_every_answer():
    def noises():
        generator = torch.Generator().manual_seed(5)
        return lambda sigma, after: torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)

    sigmas, x, draw = SIGMAS.double(), start(), noises()
    for sigma, after in pairwise(sigmas):
        x = model(x, sigma.expand(2)) + (after * draw(sigma, after) if after > 0 else 0)
    assert torch.allclose(sample_fewstep(model, start(), sigmas, solver="lcm", noise_sampler=noises()), x, rtol=1e-9)


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
    for solver, parameters in SAMPLERS.values():
        assert solver_named(solver, **parameters).order >= 0
    assert set(CODES.values()) <= set(SAMPLERS)
    assert set(SCHEDULES.values()) <= set(GRIDS)
    assert from_alias("DPM++ 2M Karras") == ("dpm-solver++", "karras")
    assert from_alias("Euler a") == ("ddpm", None)
    with pytest.raises(ArgumentError, match="DPM\\+\\+ 2M"):
        from_alias("DPM++ 2N Karras")


@pytest.mark.parametrize(
    ("name", "solver", "grid"),
    [
        ("DPM++ 2M Karras", "dpm-solver++", "karras"),
        ("dpmpp_2m sgm_uniform", "dpm-solver++", "trailing"),
        ("DPM++ 2M SDE Heun Exponential", solver_named("sde-dpm-solver++", rule="exact"), "logsnr"),
        ("Euler", "euler", None),
        ("lcm", solver_named("cps", eta=1.0), None),
    ],
)
def test_their_names_where_a_solver_is_named(name, solver, grid):
    plan = make_plan(VP.from_betas("scaled_linear"), name, steps=5)
    assert plan == make_plan(plan.path, solver, grid, 5)
    den = wrap(lambda x, t: torch.tanh(x), plan.path, "eps", shape=(4,))
    assert torch.equal(sample(den, 2, solver=name, steps=5).x, sample(den, 2, plan=plan).x)


def test_a_name_with_a_grid_takes_no_other():
    with pytest.raises(ArgumentError, match="names the grid"):
        make_plan(VP(), "DPM++ 2M Karras", "logsnr", 5)
    with pytest.raises(ArgumentError, match="names the grid"):
        sample_fewstep(model, start(), SIGMAS, solver="DPM++ 2M Karras")
    with pytest.raises(ArgumentError, match="unknown solver"):
        make_plan(VP(), "DPM++ 2N", steps=5)
    with pytest.raises(ArgumentError, match="unknown solver"):
        solver_named("DPM++ 2M Karras")
