"""PAG and SAG on a real network: their formulas from answers asked by hand, and the batches that they are asked in."""

import pytest
import torch

import fewstep
from fewstep import CFG, VP, make_plan, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.guidance import PAG, SAG
from fewstep.guidance.pag import look_nowhere
from fewstep.guidance.sag import attended_places, blurred
from fewstep.networks import UNet
from fewstep.networks.anatomy import Attended, Edit, anatomy_of
from fewstep.plan import Builder, Plan

ONE = torch.tensor([0.5, 0.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def asked():
    """A denoiser with attention whose network notes the rows of every call, and a state."""
    den = fewstep.load("mnist")
    calls = []
    den.net.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    x = torch.randn(2, *den.shape, generator=torch.Generator().manual_seed(0))
    return den, calls, x, make_plan(den.path, "ddim", ONE)


def step(asked, guides):
    den, calls, x, plan = asked
    calls.clear()
    out = sample(den, start=x, plan=plan, guides=guides, cond={"label": [3, 8]})
    assert out.stats.evaluations == sum(calls) / 2
    return out.x, list(calls)


def test_pag_and_cfg_are_one_batch_and_their_formula(asked):
    den, _, x, _ = asked
    label = torch.tensor([3, 8])
    with torch.no_grad():
        main, null = den(x, 0.5, label=label), den(x, 0.5, label=torch.tensor([10, 10]))
        anatomy = anatomy_of(den, "the test")
        with anatomy.edit([Edit(p, lambda a: a.value) for p in anatomy.select("attention", "middle")]):
            perturbed = den(x, 0.5, label=label)
    assert (perturbed - main).abs().max() > 1e-3
    for scale in (2.0, 3.0, 5.0):
        alone, calls = step(asked, [PAG(scale)])
        # The authors' code counts 1 + s, from the perturbed answer on.
        assert torch.allclose(alone, perturbed + (1 + scale) * (main - perturbed), atol=1e-4)
        assert calls == [4]
    both, calls = step(asked, [CFG(2.0), PAG(3.0)])
    assert torch.allclose(both, null + 2 * (main - null) + 3 * (main - perturbed), atol=1e-4)
    assert calls == [6]


@pytest.mark.parametrize("of_null", [False, True])
def test_sag_and_cfg_share_the_null_answer_and_their_formula(asked, of_null):
    den, _, x, _ = asked
    label, none = torch.tensor([3, 8]), torch.tensor([10, 10])
    told = none if of_null else label
    seen = []
    with torch.no_grad():
        main, null = den(x, 0.5, label=label), den(x, 0.5, label=none)
        anatomy = anatomy_of(den, "the test")
        with anatomy.edit([Edit(anatomy.select("attention", "middle")[-1], lambda a: seen.append(a.weights))]):
            own = den(x, 0.5, label=told)
        mass = seen[0].mean(1).sum(1)
        # What each place gives sums to one; what it receives does so on average alone.
        assert torch.allclose(seen[0].sum(-1), torch.ones(()), atol=1e-5)
        assert torch.allclose(mass.mean(1), torch.ones(2), atol=1e-4)
        assert mass.std() > 0.1
        mask = attended_places(mass, x.shape[-2:])
        assert 0 < mask.mean() < 1
        degraded = mask * blurred(own, 1.0) + (1 - mask) * own
        alpha, sigma = float(den.path.alpha(0.5)), float(den.path.sigma(0.5))
        noise = (x - alpha * own) / sigma
        again = den(alpha * degraded + sigma * noise, 0.5, label=told)
    # ε̂ + s(ε̂ − ε̂(x̃)), the noise parts each at its own state.
    other = (alpha * degraded + sigma * noise - alpha * again) / sigma
    got, calls = step(asked, [CFG(2.0), SAG(0.8, of_null=of_null)])
    guided = (x - alpha * (null + 2 * (main - null))) / sigma + 0.8 * (noise - other)
    assert torch.allclose(got, (x - sigma * guided) / alpha, atol=1e-3)
    assert calls == [4, 2]


@pytest.mark.parametrize("guide", [PAG(2.0), SAG(0.8)], ids=["pag", "sag"])
def test_two_questions_of_one_step_keep_their_own_attention(asked, guide):
    """A step that asks the state at two times has the mean of what two steps of one question have."""
    den, _, x, _ = asked
    times = torch.tensor([0.7, 0.0], dtype=torch.float64)

    def run(*told):
        builder = Builder(times, ("x",))
        for slot, t in enumerate(told):
            builder.ask("x", torch.tensor([t], dtype=torch.float64), slot=slot)
            builder.add("x", slot, 1 / len(told))
        plan = Plan.build(den.path, builder, source={"solver": "two"}, deviates="a test")
        return sample(den, start=x, plan=plan, guides=[guide], cond={"label": [3, 8]}).x

    assert torch.allclose(run(0.7, 0.3), (run(0.7) + run(0.3)) / 2, atol=1e-4)
    assert (run(0.7) - run(0.3)).abs().max() > 0.1


def test_joint_attention_keeps_the_text():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(3))
    got = look_nowhere(Attended(q, k, v, v, slice(2, None)))
    weights = q @ k.mT / 2
    for i in range(2, 5):
        row = weights[..., i, [0, 1, i]].softmax(-1)[..., None, :] @ v[..., [0, 1, i], :]
        assert torch.allclose(got[..., i, :], row[..., 0, :], atol=1e-6)
    assert torch.allclose(got[..., :2, :], (weights[..., :2, :].softmax(-1) @ v), atol=1e-6)
    assert torch.equal(look_nowhere(Attended(q, k, v, v, slice(0, 5))), v)


@pytest.mark.parametrize("guide", [PAG(), SAG()], ids=["pag", "sag"])
def test_a_network_without_attention_is_refused(guide):
    bare = wrap(UNet(1, 3, width=8, multipliers=(1, 2), attention=(0, 0)), VP(), "x0", shape=(1, 8, 8))
    with pytest.raises(ArgumentError, match="no self-attention"):
        sample(bare, 1, steps=2, guides=[guide])
    exact = wrap(lambda x, t: x, VP(), "x0", shape=(1, 8, 8))
    with pytest.raises(ArgumentError, match="needs a network with self-attention"):
        sample(exact, 1, steps=2, guides=[guide])
