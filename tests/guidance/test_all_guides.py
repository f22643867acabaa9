"""What every guide of the catalogue keeps: neutral is the identity, rows are rows, evaluations are the network's."""

from importlib import import_module
from itertools import combinations
from pathlib import Path

import pytest
import torch
from tiny_network import tiny, tiny_guides
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewstep import VP, make_plan, sample
from fewstep.catalog import methods
from fewstep.guidance import CADS, CFG, AnnealedMCMC, HiGS, SteeredLinear, Thresholding

ROWS = 3
COND = {"label": [0, 1, 2], "emb": torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)}


def toy():
    return tiny(VP())


GUIDES = tiny_guides(VP())
# Those whose class says nothing when it is asked for a neutral value: the answers of this network stay in range.
SAME_HERE = {"thresholding"}


def run(den, guides, n=ROWS, **options):
    first = options.get("first", 0)
    cond = {k: v[first : first + n] for k, v in COND.items()}
    solver = options.pop("solver", "dpm-solver++")
    size = {} if "evaluations" in options else {"steps": 5}
    return sample(den, n, solver=solver, seed=2, dtype=torch.float64, guides=guides, cond=cond, **size, **options)


def test_every_guide_of_the_catalogue_is_here():
    rows = {m.name: m for m in methods() if m.family == "guidance"}
    assert set(rows) == set(GUIDES)
    for name, (neutral, active) in GUIDES.items():
        assert type(neutral) is type(active) is getattr(import_module(rows[name].module), rows[name].symbol)
        assert not active.couples


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("solver", ["dpm-solver++", "heun", "ddpm"])
def test_neutral_is_the_identity(name, solver):
    den, net = toy()
    plain = run(den, [], solver=solver)
    before = net.rows
    neutral = run(den, [GUIDES[name][0]], solver=solver)
    assert torch.equal(neutral.x, plain.x)
    assert neutral.stats.evaluations == plain.stats.evaluations == (net.rows - before) / ROWS
    assert GUIDES[name][0].extra() == 0


@pytest.mark.parametrize("name", sorted(set(GUIDES) - SAME_HERE))
def test_a_guide_at_work_changes_the_sample_and_counts_its_evaluations(name):
    den, net = toy()
    plain = run(den, [])
    weaker = [e for _, e in GUIDES[name][1].experts if hasattr(e, "net")] if name == "composition" else []
    weaker += [GUIDES[name][1].weak] if name == "autoguidance" else []
    counted = [net, *(w.net for w in weaker)]
    before = sum(n.rows for n in counted)
    guided = run(den, [GUIDES[name][1]])
    assert (guided.x - plain.x).abs().max() > 1e-4
    assert guided.x.isfinite().all()
    assert guided.stats.evaluations == (sum(n.rows for n in counted) - before) / ROWS
    assert guided.stats.evaluations <= plain.stats.evaluations * (1 + GUIDES[name][1].extra())
    assert not guided.x.requires_grad


@pytest.mark.parametrize("name", GUIDES)
def test_a_row_is_the_row_alone(name):
    den, _ = toy()
    whole = run(den, [GUIDES[name][1]]).x
    alone = run(den, [GUIDES[name][1]], n=1, first=1).x
    assert torch.allclose(whole[1:2], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", GUIDES)
def test_a_budget_of_evaluations_is_kept(name):
    guide = GUIDES[name][1]
    budget = 3 * (1 + guide.extra()) + 1
    out = run(toy()[0], [guide], evaluations=budget)
    assert out.plan.steps >= 2
    assert out.stats.evaluations <= budget


@pytest.mark.parametrize("name", GUIDES)
def test_one_time_a_sample(name):
    """Rows with their own times, as two runs with one time each."""
    den, _ = toy()
    grids = torch.tensor([[0.9, 0.6, 0.3, 0.0], [0.8, 0.7, 0.2, 0.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=generator)
    cond = {k: v[:2] for k, v in COND.items()}
    several = make_plan(VP(), "ddim", grids.T.reshape(4, 2, 1, 1, 1))
    both = sample(den, start=start, plan=several, guides=[GUIDES[name][1]], cond=cond).x
    for i in range(2):
        one = make_plan(VP(), "ddim", grids[i])
        mine = {k: v[i : i + 1] for k, v in cond.items()}
        alone = sample(den, start=start[i : i + 1], plan=one, guides=[GUIDES[name][1]], cond=mine, first=i).x
        assert torch.allclose(both[i : i + 1], alone, rtol=1e-8, atol=1e-8)


# So that each one acts in two steps: HiGS at all times, thresholding at a range that the answers leave, a measurement
# that is not what upsample guidance sets.
PAIRED = {
    **{name: guide for name, (_, guide) in GUIDES.items()},
    "annealed-mcmc": AnnealedMCMC(rounds=1, size=0.05), "cads": CADS("emb", scale=0.3, begin=0.2),
    "cfg": CFG(3.0), "higs": HiGS(1.5, window=(0.0, 1.0)), "thresholding": Thresholding(0.5),
    "steered-linear": SteeredLinear(lambda x: x[..., 5:], lambda y: torch.nn.functional.pad(y, (5, 0)), torch.ones(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDES)
def test_the_derivative_of_a_run_is_that_of_its_samples(name):
    """Along a random direction of the start, by differences."""
    den, _ = toy()
    generator = torch.Generator().manual_seed(5)
    start, along, weight = torch.randn(3, 1, 1, 8, 8, dtype=torch.float64, generator=generator)
    cond = {k: v[:1] for k, v in COND.items()}
    plan = make_plan(VP(), "ddim", torch.tensor([0.8, 0.5, 0.3, 0.1], dtype=torch.float64))

    def value(x, grad=False):
        return (sample(den, start=x, plan=plan, guides=[PAIRED[name]], cond=cond, seed=2, grad=grad).x * weight).sum()

    leaf, h = start.clone().requires_grad_(), 1e-5
    # torch's fused attention has no second derivative, which guides with a gradient of their own need here.
    with sdpa_kernel(SDPBackend.MATH):
        (slope,) = torch.autograd.grad(value(leaf, True), leaf)
    want = float(value(start + h * along) - value(start - h * along)) / (2 * h)
    assert abs(want) > 0.05
    assert float((slope * along).sum()) == pytest.approx(want, rel=1e-4)


def told_by_the_manual():
    """guide: those beside which its place in the list matters, by the table of docs/guides.md."""
    page = (Path(__file__).parents[2] / "docs" / "guides.md").read_text("utf8").split("\n## Together")[1]
    rows = [line.split("|")[1:-1] for line in page.split("Which do not run")[0].splitlines() if line.startswith("| `")]
    found = {}
    for names, level, others in rows:
        beside = {name.strip(" `") for name in others.split(",") if name.strip()}
        for name in names.split(","):
            found[name.strip(" `")] = (level.strip(), beside - {name.strip(" `")})
    return found


def test_every_pair_runs_and_neither_is_lost_and_the_manual_says_where_order_matters():
    den, _ = toy()
    den.limits = (-0.1, 0.1)
    start = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    plan = make_plan(VP(), "ddim", torch.tensor([0.7, 0.5, 0.3], dtype=torch.float64))
    cond = {k: v[:1] for k, v in COND.items()}

    def pair(*names):
        return sample(den, start=start, plan=plan, guides=[PAIRED[n] for n in names], cond=cond).x

    alone, matters = {name: pair(name) for name in PAIRED}, {name: set() for name in PAIRED}
    for one, other in combinations(sorted(PAIRED), 2):
        x = pair(one, other)
        assert x.isfinite().all(), (one, other)
        assert min((x - alone[n]).abs().max() for n in (one, other)) > 1e-7, (one, other)
        # Levels come in their own order, whatever the list's.
        if PAIRED[one].level == PAIRED[other].level and not torch.allclose(x, pair(other, one), rtol=1e-9, atol=1e-9):
            matters[one].add(other)
            matters[other].add(one)
    manual = told_by_the_manual()
    assert set(PAIRED) <= set(manual), "docs/guides.md needs a place for each guide in its two tables"
    assert {name: manual[name][0] for name in PAIRED} == {name: guide.level for name, guide in PAIRED.items()}
    assert {name: manual[name][1] & set(PAIRED) for name in PAIRED} == matters


def test_levels_come_in_their_own_order():
    den, _ = toy()
    mixed = [GUIDES[n][1] for n in ("flowchef", "higs", "cfg", "cads")]
    assert torch.equal(run(den, mixed).x, run(den, mixed[::-1]).x)
