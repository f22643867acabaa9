"""A guide works with every loop by its name, or is refused at the call, before the network is asked anything."""

import re
from pathlib import Path

import pytest
import torch
from tiny_network import Tiny, tiny, tiny_guides

from fewstep import CFG, VP, make_plan, sample, wrap
from fewstep.catalog import methods
from fewstep.denoisers.energy import EnergyDenoiser
from fewstep.denoisers.learned_variance import wrap_with_variance
from fewstep.errors import ArgumentError
from fewstep.guidance import AnnealedMCMC, ClassifierGuidance, DensityNoise, EpsilonScaling, FlowChef, Guide, HiGS
from fewstep.loops import loop_named
from fewstep.plan import Builder, Plan
from fewstep.restoration import Mask, Measurement, restore
from fewstep.worlds import GaussianMixture

LOOPS = [m.name for m in methods() if m.family == "loops"]
GUIDES = [m.name for m in methods() if m.family == "guidance"]
MOVE = {"annealed-mcmc", "factorized-fixed", "flowchef"}
# Their answers depend on the questions before, on the number of the step (epsilon-scaling with a slope) or on its end.
ORDERED = {"density-control", "density-noise", "epsilon-scaling", "higs", "self-guided-minority"}
REFUSED = {
    "adjoint-deis": MOVE | ORDERED,
    "dmcmc": MOVE | ORDERED,
    "dpm-solver-adaptive": MOVE | ORDERED,
    # An energy has no conditions, no attention and one size.
    "ensemble": MOVE | {"cads", "cfg", "pag", "sag", "upsample-guidance"},
    "improved-ddpm": set(),
    "paradigms": MOVE | ORDERED,
    "time-shift": MOVE,
}
# So short that all guides with all loops take seconds; for the test of exactness the tolerance is none.
SHORT = {
    "adjoint-deis": {"steps": 3},
    "dmcmc": {"start_steps": 2, "warm_up": 1, "moves": 1, "steps": 2, "eta": 0.05, "solver": "ddim"},
    "dpm-solver-adaptive": {"order": 2, "atol": 5.0, "first_step": 3.0},
    "ensemble": {"steps": 3},
    "improved-ddpm": {"steps": 3},
    "paradigms": {"steps": 3, "tolerance": 0.0},
    "time-shift": {"steps": 3},
}
WORLD = GaussianMixture(
    [0.5, 0.3, 0.2], torch.tensor([[-1.0, 0.3], [0.8, -0.5], [0.1, 0.9]]), torch.full((3, 1), 0.1),
    component_labels=[0, 1, 1],
)  # fmt: skip
NULL = 2


class Blind:
    """Levels of noise told by the length of a state, whatever its condition."""

    ratios = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)

    def __call__(self, y, **cond):
        return -(y.flatten(1).square().mean(1, keepdim=True) - self.ratios**2).square()


def short(name):
    return loop_named(name, **SHORT[name], **({"levels": Blind()} if name == "dmcmc" else {}))


def two_headed(x, t, label):
    push = 0.2 * label.to(x.dtype)[:, None]
    return torch.cat([torch.tanh(x + push), torch.tanh(x)], 1)


def model(name):
    if name == "ensemble":
        return EnergyDenoiser(lambda x: 2 * x.square().sum(-1), VP(), (2,), 64)
    if name == "improved-ddpm":
        return wrap_with_variance(two_headed, VP(), "x0", shape=(2,), null={"label": NULL})
    return WORLD.denoiser(VP())


def log_prob(x, t):
    return WORLD.log_density(x, VP(), t, 1) - WORLD.log_density(x, VP(), t)


def apart(one, other):
    return float((one.x - other.x).abs().max())


@pytest.mark.parametrize("name", LOOPS)
def test_cfg_of_zero_is_the_loop_without_a_class(name):
    """And by the loop's name alone CFG changes the samples at twice the evaluations of every question."""
    options = {"dtype": torch.float64, "seed": 3}
    if name == "ensemble":
        for cond, message in (({}, "needs a null"), ({"label": 0}, "an energy takes no conditions")):
            with pytest.raises(ArgumentError, match=message):
                sample(model(name), 2, solver=name, cond=cond, guides=[CFG(2.0)], **options)
        return
    runs = {
        scale: sample(model(name), 2, solver=short(name), cond={"label": 0}, guides=[CFG(scale)], **options)
        for scale in (0.0, 1.0, 1.5)
    }
    plain, none = (sample(model(name), 2, solver=short(name), cond={"label": k}, **options) for k in (0, NULL))
    assert apart(runs[0.0], none) < 1e-7
    assert apart(runs[1.0], plain) == 0
    assert min(apart(runs[1.5], plain), apart(plain, none)) > 1e-3
    named = [sample(model(name), 2, solver=name, cond={"label": 0}, guides=g, **options) for g in ([], [CFG(1.5)])]
    assert apart(*named) > 1e-4
    # Steps that are chosen on the way differ in number with the answers.
    if name not in ("dpm-solver-adaptive", "paradigms"):
        assert named[1].stats.evaluations == 2 * named[0].stats.evaluations


@pytest.mark.parametrize("name", sorted(set(LOOPS) - {"ensemble", "improved-ddpm"}))
def test_the_exact_classifier_makes_the_conditional_loop(name):
    options = {"dtype": torch.float64, "seed": 3}
    guide = ClassifierGuidance(log_prob, interval=(0, 1))
    want = sample(model(name), 4, solver=short(name), cond={"label": 1}, **options)
    assert apart(sample(model(name), 4, solver=short(name), guides=[guide], **options), want) < 1e-6
    assert apart(sample(model(name), 4, solver=short(name), **options), want) > 1e-2
    assert sample(model(name), 2, solver=name, guides=[guide]).x.isfinite().all()


class Constant(Guide):
    level = "answer"

    def answer(self, ask, x0, state):
        return torch.full_like(x0, 0.7), state


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_by_its_name_ends_on_what_a_guide_says_and_refuses_one_that_moves_the_state(name):
    cond = {} if name == "ensemble" else {"label": 0}
    out = sample(model(name), 2, solver=name, cond=cond, guides=[Constant()], dtype=torch.float64)
    # Only Picard's rounds end at a tolerance.
    assert torch.allclose(out.x, torch.full_like(out.x, 0.7), atol=0.3 if name == "paradigms" else 1e-9)
    chef = FlowChef(lambda x0: (x0 + 0.4).square().sum(1), 0.5, last=True)
    if name == "improved-ddpm":
        # Half a step down a square is all the way.
        got = sample(model(name), 2, solver=name, cond=cond, guides=[chef], dtype=torch.float64).x
        assert torch.allclose(got, torch.full_like(got, -0.4), atol=1e-9)
        return
    with pytest.raises(ArgumentError, match=f"{name} takes no guides that move the state, got FlowChef"):
        sample(model(name), 2, solver=name, cond=cond, guides=[chef])


class TwoHeadedTiny(Tiny):
    def forward(self, x, time, label=None, emb=None):
        answer = super().forward(x, time, label, emb)
        return torch.cat([answer, torch.tanh(answer)], 1)


@pytest.fixture(scope="module")
def made():
    """(denoiser of a loop's name, networks that count, guides at work)."""
    den, net = tiny(VP(), 0, (1,))
    two = TwoHeadedTiny(1, 3, width=8, multipliers=(1,), attention=(2,)).double().eval()
    two.load_state_dict(net.state_dict())
    two.requires_grad_(False)
    variance = wrap_with_variance(two, VP(), "x0", shape=(1, 8, 8), null={"label": 3})
    energy = EnergyDenoiser(lambda x: x.square().flatten(1).sum(1), VP(), (1, 8, 8), 16)
    guides = {name: pair[1] for name, pair in tiny_guides(VP(), (1,)).items()}
    guides |= {"higs": HiGS(1.5, window=(0.0, 1.0)), "annealed-mcmc": AnnealedMCMC(rounds=1, size=0.05)}
    guides["epsilon-scaling"] = EpsilonScaling(1.02, 0.01)
    return lambda loop: {"ensemble": energy, "improved-ddpm": variance}.get(loop, den), [net, two], guides


@pytest.mark.parametrize("name", LOOPS)
def test_every_guide_with_every_loop(made, name):
    """It changes the sample, and the evaluations are the network's own; or it is refused before any evaluation."""
    denoiser, nets, guides = made
    cond = {"label": [1], "emb": torch.linspace(-1, 1, 4, dtype=torch.float64)[None]}
    options = {"solver": short(name), "cond": {} if name == "ensemble" else cond, "seed": 2, "dtype": torch.float64}
    plain, refused = sample(denoiser(name), 1, **options), set()
    for which in GUIDES:
        guide = guides[which]
        others = [e.net for _, e in guide.experts if hasattr(e, "net")] if which == "composition" else []
        others += [guide.weak.net] if which == "autoguidance" else []
        before = sum(n.rows for n in nets + others)
        try:
            out = sample(denoiser(name), 1, guides=[guide], **options)
        except ArgumentError:
            refused.add(which)
            assert sum(n.rows for n in nets + others) == before, which
            continue
        assert out.x.isfinite().all(), which
        # The answers of the tiny network stay in the range of thresholding.
        assert apart(out, plain) > 1e-6 or which == "thresholding", which
        if name != "ensemble":
            assert out.stats.evaluations == sum(n.rows for n in nets + others) - before, which
    assert refused == REFUSED[name] == told_by_the_manual()[name]


def told_by_the_manual():
    """loop: the guides that it takes not, by the table of docs/guides.md."""
    page = (Path(__file__).parents[2] / "docs" / "guides.md").read_text("utf8").split("| loop | takes no |")[1]
    rows = [line.split("|")[1:-1] for line in page.split("\n\n")[0].splitlines() if line.startswith("| `")]
    return {
        loop.strip(" `"): set(re.findall(r"`([a-z-]+)`", taken)) for loops, taken in rows for loop in loops.split(",")
    }


@pytest.mark.parametrize("name", ["daps", "deq", "lanpaint", "mbir"])
def test_restorers_that_ask_out_of_order_refuse_what_needs_it(name):
    asked = []
    den = wrap(lambda x, t: asked.append(1) or 0.5 * x, VP(), "x0", shape=(1, 4, 4))
    seen = Measurement.simulate(Mask.box(4, 4, 0, 0, 2), torch.zeros(2, 1, 4, 4))
    more = {"deviation": 0.1} if name == "daps" else {}
    with pytest.raises(ArgumentError, match="does not ask in the order"):
        restore(den, seen, name, guides=[HiGS()], **more)
    assert not asked
    assert restore(den, seen, name, evaluations=8, guides=[HiGS(0.0)], **more).x.isfinite().all()


# Loops that with these parameters are a plan of ddim on even times, run in another way.
SAME_AS_DDIM = {
    "adjoint-deis": {"grid": "uniform"}, "paradigms": {"solver": "ddim", "tolerance": 0.0, "window": 2},
    "time-shift": {"window": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_AS_DDIM)
def test_a_loop_that_is_ddim_run_otherwise_gives_every_guide_what_ddim_does(made, name):
    """So what a guide is told of the run, its place, its draws and its memory, is right there."""
    denoiser, _, guides = made
    cond = {"label": [1, 2], "emb": torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)}
    options = {"cond": cond, "seed": 2, "dtype": torch.float64}
    # So many steps that a plan of their neighbours has other numbers.
    steps, loop = 6 if name == "time-shift" else 4, SAME_AS_DDIM[name]
    for which in sorted(set(GUIDES) - REFUSED[name]):
        plain = sample(denoiser(name), 2, solver="ddim", grid="uniform", steps=steps, guides=[guides[which]], **options)
        out = sample(denoiser(name), 2, solver=loop_named(name, **loop, steps=steps), guides=[guides[which]], **options)
        assert apart(out, plain) < 1e-9, which


def test_guides_say_truly_whether_they_need_the_order_of_steps(made):
    """The same question after others, as another step with another end, is answered otherwise; CADS draws a step."""
    denoiser, _, guides = made
    den, start = denoiser("paradigms"), torch.randn(1, 1, 8, 8, dtype=torch.float64)
    cond = {"label": [1], "emb": torch.linspace(-1, 1, 4, dtype=torch.float64)[None]}
    for which in sorted(set(GUIDES) - MOVE - {"cads"}):
        answers = []
        for times in ([0.6, 0.5], [0.8, 0.7, 0.6, 0.4, 0.2]):
            seen = {}
            watch = [guides[which], _Watch(seen)]
            plan = make_plan(VP(), _Standing(), torch.tensor(times, dtype=torch.float64))
            sample(den, start=start, plan=plan, guides=watch, cond=cond, seed=1)
            answers.append(seen[0.6])
        differ = float((answers[0] - answers[1]).abs().max())
        assert (differ > 1e-9) == guides[which].needs_order(), which


class _Watch(Guide):
    """Notes the answers that it is shown."""

    level = "answer"

    def __init__(self, seen):
        self.seen = seen

    def answer(self, ask, x0, state):
        self.seen[round(float(ask.t), 9)] = (x0 + ask.x).detach()
        return x0, state


class _Standing:
    """Asks at every time and leaves the state where it is."""

    order, stochastic = 1, False

    def __call__(self, path, times, source=None):
        builder = Builder(times, ("x", "asked"), live=("asked",))
        builder.ask("x")
        builder.add("asked", 0, 1.0)
        builder.add("x", "x", 1 - 1e-12)  # a register that is not written begins no step
        return Plan.build(path, builder, source={"solver": "standing"}, deviates="it stands still")


@pytest.mark.parametrize("solver", ["heun", "rk4", "dpm-solver-3"])
def test_density_noise_refuses_stages_before_anything_is_asked(made, solver):
    denoiser, nets, _ = made
    before, options = [n.rows for n in nets], {"cond": {"label": [1]}, "solver": solver, "steps": 2}
    with pytest.raises(ArgumentError, match="asks once a step"):
        sample(denoiser("paradigms"), 1, guides=[DensityNoise(0.3, (-9, 9))], **options)
    assert [n.rows for n in nets] == before
    sample(denoiser("paradigms"), 1, guides=[DensityNoise(0.0)], **options)
