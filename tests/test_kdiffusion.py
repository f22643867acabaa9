"""Our solvers as k-diffusion's samplers, beside k-diffusion itself; and the names that tools use."""

import json
from itertools import pairwise

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from peers import k_diffusion
from PIL import Image
from scipy import stats

from fewstep import VE, VP, Flow, make_plan, sample, wrap
from fewstep.aliases import CODES, OTHER_CODES, OTHERS, SAMPLERS, SCHEDULES, from_alias, in_tools
from fewstep.catalog import methods
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


@pytest.mark.parametrize("code", ["euler", "heun", "lms", "dpm_2", "dpmpp_2m"])
@pytest.mark.parametrize("end", [0.0, 0.05])
def test_the_same_as_k_diffusion(theirs, code, end):
    sigmas = torch.cat([SIGMAS[:-1], torch.tensor([end])]).double()
    got, want = [], []
    a = sample_fewstep(model, start(), sigmas, {"shift": 0.2}, got.append, solver=code)
    b = getattr(theirs, f"sample_{code}")(model, start(), sigmas, {"shift": 0.2}, want.append, disable=True)
    assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
    assert [event["i"] for event in got] == [event["i"] for event in want]
    for key in ("x", "sigma", "denoised"):
        for mine, other in zip(got, want, strict=True):
            assert torch.allclose(mine[key], other[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("code", "function", "options"),
    [
        ("euler_ancestral", "euler_ancestral", {}),
        ("dpm_2_ancestral", "dpm_2_ancestral", {}),
        ("dpmpp_2s_ancestral", "dpmpp_2s_ancestral", {}),
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


class Motion:
    """One Brownian motion in σ as a noise sampler, each new way made of those asked before it and what is left."""

    def __init__(self):
        self.generator, self.ways = torch.Generator().manual_seed(5), {}

    def __call__(self, sigma, after):
        high, low = round(float(sigma), 6), round(float(after), 6)
        middle = next((b for a, b in self.ways if a == high and b > low), None)
        if middle is None:
            fresh = torch.randn(2, 3, 4, 4, generator=self.generator, dtype=torch.float64)
            self.ways[high, low] = (high - low) ** 0.5 * fresh
        elif (high, low) not in self.ways:
            self.ways[high, low] = self.ways[high, middle] + (middle - low) ** 0.5 * self(middle, low)
        return self.ways[high, low] / (high - low) ** 0.5


@pytest.mark.parametrize("end", [0.0, 0.05])
def test_dpmpp_sde_sees_the_same_brownian_motion(theirs, end):
    """k-diffusion draws for the way to the middle, then for the whole; here the second half is drawn."""
    sigmas = torch.cat([SIGMAS[:-1], torch.tensor([end])]).double()
    mine = sample_fewstep(model, start(), sigmas, solver="DPM++ SDE", noise_sampler=Motion())
    other = theirs.sample_dpmpp_sde(model, start(), sigmas, disable=True, noise_sampler=Motion())
    assert torch.allclose(mine, other, rtol=1e-5, atol=1e-5)


def noises(seed=5):
    generator = torch.Generator().manual_seed(seed)
    return lambda sigma, after: torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("end", [0.0, 0.05])
def test_seeds_2_is_its_formula(end):
    """Two steps of the reverse equation, their noises the same motion in the equation's own clock."""
    sigmas, x, draw = torch.cat([SIGMAS[:-1], torch.tensor([end])]).double(), start(), noises()
    for sigma, after in pairwise(sigmas):
        x0 = model(x, sigma.expand(2))
        if after == 0:
            x = x0
            continue
        h, middle = (sigma / after).log(), (sigma * after).sqrt()
        first = (1 - torch.exp(-h)).sqrt() * draw(sigma, middle)
        u = middle / sigma * torch.exp(-h / 2) * x - torch.expm1(-h) * x0 + middle * first
        noise = torch.exp(-h / 2) * first + (1 - torch.exp(-h)).sqrt() * draw(middle, after)
        x = after / sigma * torch.exp(-h) * x - torch.expm1(-2 * h) * model(u, middle.expand(2)) + after * noise
    assert torch.allclose(
        sample_fewstep(model, start(), sigmas, solver="seeds_2", noise_sampler=noises()), x, rtol=1e-9
    )


def test_ipndm_is_its_formula():
    x, slopes = start(), []
    weights = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for sigma, after in pairwise(SIGMAS.double()):
        x0 = model(x, sigma.expand(2))
        slopes = [(x - x0) / sigma, *slopes][:4]
        step = sum(w * d for w, d in zip(weights[len(slopes) - 1], slopes, strict=True))
        x = x0 if after == 0 else x + (after - sigma) * step
    assert torch.allclose(sample_fewstep(model, start(), SIGMAS.double(), solver="ipndm"), x, rtol=1e-9)


@pytest.mark.parametrize(("name", "variant"), [("UniPC", "bh1"), ("UniPC bh2", "bh2")])
def test_unipc_is_its_authors_third_order(name, variant):
    """diffusers has the authors' code, as those tools do: order 3, lowered to what is left before the last level."""
    peer = UniPCMultistepScheduler(
        solver_order=3, solver_type=variant, timestep_spacing="trailing", final_sigmas_type="sigma_min"
    )
    peer.set_timesteps(8)
    path = VP.from_betas("linear")
    grid = [*((peer.timesteps + 1) / 1000).tolist(), 0.001]
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    den = wrap(lambda x, t: 0.3 * torch.tanh(x) * torch.cos(t.reshape(-1, 1, 1, 1) / 300), path, "eps", shape=(3, 4, 4))
    mine = sample(den, start=x, solver=name, grid=grid).x
    for t in peer.timesteps:
        x = peer.step(0.3 * torch.tanh(x) * torch.cos(t / 300), t, x).prev_sample
    assert torch.allclose(mine, x, rtol=0, atol=1e-5 * float(x.abs().max()))


def test_the_seed_of_extra_args_is_comfyuis_and_so_is_noise_comfyui():
    """Its ancestral samplers draw from the next seed on the CPU, its start from the seed itself."""

    def comfy(seed):
        generator = torch.Generator().manual_seed(seed + 1)
        return lambda sigma, after: torch.randn(2, 3, 4, 4, generator=generator)

    def seeded(x, sigma, seed=None):
        return model(x, sigma)

    sigmas, noise = SIGMAS.double(), torch.randn(2, 3, 4, 4, generator=torch.manual_seed(11))
    x = (SIGMAS[0] * noise).float()
    want = sample_fewstep(model, x, sigmas, solver="Euler a", noise_sampler=comfy(11))
    assert torch.equal(sample_fewstep(seeded, x, sigmas, {"seed": 11}, solver="Euler a"), want)
    assert not torch.equal(sample_fewstep(seeded, x, sigmas, {"seed": 12}, solver="Euler a"), want)
    den = wrap(model, VE(float(sigmas[0])), "x0", shape=(3, 4, 4), time=lambda t: t * float(sigmas[0]))
    grid = (sigmas / sigmas[0]).tolist()
    own = sample(den, 2, solver="Euler a", grid=grid, seed=11, noise="comfyui")
    assert torch.allclose(own.x, want, atol=1e-5)
    assert own.noise == "comfyui"
    assert not torch.allclose(sample(den, 2, solver="Euler a", grid=grid, seed=11).x, want, atol=0.1)


def test_lcm_is_fresh_noise_on_every_answer():
    sigmas, x, draw = SIGMAS.double(), start(), noises()
    for sigma, after in pairwise(sigmas):
        x = model(x, sigma.expand(2)) + (after * draw(sigma, after) if after > 0 else 0)
    assert torch.allclose(sample_fewstep(model, start(), sigmas, solver="lcm", noise_sampler=noises()), x, rtol=1e-9)


def test_karras_levels_are_k_diffusions(theirs):
    path = VE(80.0)
    plan = make_plan(path, "euler", "karras", 8)
    assert torch.allclose(to_sigmas(path, plan.times), theirs.get_sigmas_karras(8, 0.002, 80.0), rtol=1e-4)


@pytest.mark.parametrize("steps", [8, 10, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_comfyui_and_a1111(theirs, name, steps):
    """Their formulas on the levels of Stable Diffusion; where an index is rounded, to one training level."""
    path = VP.from_betas("scaled_linear")
    levels = to_sigmas(path, torch.arange(1, 1001, dtype=torch.float64) / 1000).double()
    low, high, index = float(levels[0]), float(levels[-1]), None
    if name == "Karras":
        want = theirs.get_sigmas_karras(steps, low, high)
    elif name == "Exponential":
        want = theirs.get_sigmas_exponential(steps, low, high)
    else:
        index = {
            "Simple": [999 - int(i * 1000 / steps) for i in range(steps)],
            "SGM Uniform": torch.linspace(999, 0, steps + 1)[:-1],
            "Normal": torch.linspace(999, 0, steps),
            "DDIM Uniform": [1 + i * (1000 // steps) for i in range(steps)][::-1],
            "Beta": stats.beta.ppf(1 - torch.arange(steps).double() / steps, 0.6, 0.6) * 999,
        }[name]
    grid = make_plan(path, "euler", SCHEDULES[name], steps).times
    if index is None:
        assert torch.allclose(to_sigmas(path, grid), want, rtol=1e-5)
    else:
        off = (1000 * grid[:-1] - 1 - torch.as_tensor(index).double()).abs()
        assert off.max() <= (0 if name == "Simple" else 1) + 1e-9


def test_a_plan_and_a_picture_say_what_other_tools_call_it(tmp_path):
    path = VP.from_betas("scaled_linear")
    assert "(DPM++ 2M Karras in other tools)" in str(make_plan(path, "DPM++ 2M Karras", steps=3))
    assert "(Heun in other tools)" in str(make_plan(path, "heun", "karras", steps=3))
    assert "other tools" not in str(make_plan(path, "deis", "karras", steps=3))
    assert in_tools("dpm-solver++", "karras-trained") == ("DPM++ 2M", "Karras")
    den = wrap(lambda x, t: 0.1 * x, path, "eps", shape=(1, 4, 4))
    sample(den, 1, solver="DPM++ 2M Karras", steps=3, seed=4, noise="comfyui").save(str(tmp_path / "x.png"))
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.info["parameters"] == "Steps: 3, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 4"
        assert json.loads(picture.info["fewstep"])["noise"] == "comfyui"
    assert in_tools("LMS", "uniform") == ("LMS", "uniform")


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
        ([1.0, 0.5, 0.0], {"plan": make_plan(VE(1.0), "ddim", "uniform", 2), "solver": "heun"}, "leave solver"),
        ([1.0, 0.5, 0.0], {"plan": make_plan(Flow(), "ddim", "uniform", 2), "flow": True}, "leave solver"),
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
    assert from_alias("DPM++ 2M Karras") == ("dpm-solver++", "karras-trained")
    assert from_alias("Euler a") == ("ddpm", None)
    with pytest.raises(ArgumentError, match="DPM\\+\\+ 2M"):
        from_alias("DPM++ 2N Karras")


def test_what_nothing_of_ours_computes_says_so_and_names_the_nearest():
    assert not {*OTHERS} & {*SAMPLERS}
    assert set(OTHER_CODES.values()) <= set(OTHERS)
    known = {m.name for m in methods() if m.family in ("solvers", "loops")} | {*SAMPLERS}
    assert {nearest for _, nearest in OTHERS.values()} <= known
    for name, nearest in (("DPM fast", "dpm-solver-fast"), ("plms", "ipndm"), ("DPM adaptive Karras", "dpm-solver-ad")):
        for ask in (from_alias, solver_named, lambda name: make_plan(VP(), name, steps=4)):
            with pytest.raises(ArgumentError, match=f"no solver of fewstep computes .*the nearest is '{nearest}"):
                ask(name)


@pytest.mark.parametrize(
    ("name", "solver", "grid"),
    [
        ("DPM++ 2M Karras", "dpm-solver++", "karras-trained"),
        ("dpmpp_2m sgm_uniform", "dpm-solver++", "trailing"),
        ("DPM++ 2M SDE Heun Exponential", solver_named("sde-dpm-solver++", rule="exact"), "logsnr-trained"),
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


def test_called_as_a_comfyui_sampler_node_is():
    """KSAMPLER(sample_fewstep, {"solver": …, "flow": …}) calls it with all of these, None where there is none."""
    told = []

    def network(x, sigma, denoise_mask, model_options, seed):
        told.append((denoise_mask, model_options, seed))
        return model(x, sigma)

    options = {"solver": "unipc", "flow": False}
    extra = {"model_options": {}, "seed": 5, "denoise_mask": None}
    seen = []
    out = sample_fewstep(network, start(), SIGMAS, extra_args=extra, callback=seen.append, disable=None, **options)
    assert torch.equal(out, sample_fewstep(model, start(), SIGMAS, solver="unipc"))
    assert set(map(repr, told)) == {"(None, {}, 5)"}
    assert [sorted(event) for event in seen] == [["denoised", "i", "sigma", "sigma_hat", "x"]] * 6
