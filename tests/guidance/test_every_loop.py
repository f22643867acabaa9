"""A guide works with every loop by its name, or is refused at the call, before the network is asked anything."""

import pytest
import torch
from tiny_network import Tiny, tiny, tiny_guides

from fewstep import CFG, VP, sample
from fewstep.catalog import methods
from fewstep.denoisers.energy import EnergyDenoiser
from fewstep.denoisers.learned_variance import wrap_with_variance
from fewstep.errors import ArgumentError
from fewstep.guidance import AnnealedMCMC, ClassifierGuidance, FlowChef, Guide, HiGS
from fewstep.loops import loop_named
from fewstep.worlds import GaussianMixture

LOOPS = [m.name for m in methods() if m.family == "loops"]
GUIDES = [m.name for m in methods() if m.family == "guidance"]
MOVE = {"annealed-mcmc", "factorized-fixed", "flowchef"}
# SAG keeps a map of attention between two answers of one question.
REMEMBER = {"density-control", "higs", "sag", "self-guided-minority"}
REFUSED = {
    "adjoint-deis": MOVE | REMEMBER | {"density-noise"},
    "dmcmc": MOVE,
    "dpm-solver-adaptive": MOVE,
    # An energy has no conditions, no attention and one size.
    "ensemble": MOVE | {"cads", "cfg", "pag", "sag", "upsample-guidance"},
    "improved-ddpm": set(),
    "paradigms": MOVE | REMEMBER | {"density-noise"},
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
    assert refused == REFUSED[name]
