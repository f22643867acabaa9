"""A guide works with every solver, every plan and every path, or says at the call why it cannot."""

import pytest
import torch
from tiny_network import tiny, tiny_guides

from fewstep import CFG, VE, VP, Flow, make_plan, sample, wrap
from fewstep.catalog import methods
from fewstep.errors import ArgumentError
from fewstep.guidance import AnnealedMCMC, ClassifierGuidance, DensityGuidance, Guide, HiGS
from fewstep.program import Program
from fewstep.solvers import solver_named
from fewstep.worlds import GaussianMixture

PATHS = [VP(), VE(), Flow()]
SOLVERS = [m.name for m in methods() if m.family == "solvers"]
GUIDES = [m.name for m in methods() if m.family == "guidance"]
# One row of each engine; "auto" is the shipped tuned tables.
ENGINES = ["auto", *sorted({m.module: m.name for m in reversed(methods()) if m.family == "solvers"}.values())]
COND = {"label": [1], "emb": torch.linspace(-1, 1, 4, dtype=torch.float64)[None]}
SMALL = (1,)
DOUBLE = {"dtype": torch.float64, "seed": 2}
# Those that change nothing where the answers of the tiny network stay in range.
QUIET = {"thresholding"}
# Those that need a solver of one question a step.
ONE_QUESTION = {"density-noise"}


@pytest.fixture(scope="module")
def made():
    """By path: (denoiser, network, guides at work), HiGS at all times and the walks without coins."""
    found = {}
    for path in PATHS:
        guides = {name: pair[1] for name, pair in tiny_guides(path, SMALL).items()}
        guides |= {"higs": HiGS(1.5, window=(0.0, 1.0)), "annealed-mcmc": AnnealedMCMC(rounds=1, size=0.05)}
        found[path.kind] = (*tiny(path, 0, SMALL), guides)
    return found


def chosen(name):
    """(solver, path) for a guide: every third engine, on a path in turn, so that three neighbours see all of them."""
    first = GUIDES.index(name)
    for i in range(first % 3, len(ENGINES), 3):
        path = PATHS[(i // 3 + first // 3) % 3]
        # No table that ships has as much noise as VE.
        yield ENGINES[i], VP() if ENGINES[i] == "auto" and path.kind == "ve" else path


@pytest.mark.parametrize("name", GUIDES)
def test_every_guide_with_many_engines(made, name):
    """The sample is changed and finite, the evaluations are the network's own; one guide refuses stages by name."""
    for solver, path in chosen(name):
        den, net, guides = made[path.kind]
        guide = guides[name]
        plan = make_plan(path, solver, evaluations=5) if solver == "auto" else make_plan(path, solver, "logsnr", 4)
        options = {"plan": plan, "cond": COND, **DOUBLE}
        if name in ONE_QUESTION and not all(begins for begins, _ in Program(plan, den).spans):
            with pytest.raises(ArgumentError, match="asks once a step"):
                sample(den, 1, guides=[guide], **options)
            continue
        plain = sample(den, 1, **options).x
        others = [e for _, e in guide.experts if hasattr(e, "net")] if name == "composition" else []
        others += [guide.weak] if name == "autoguidance" else []
        counted = [net, *(d.net for d in others)]
        before = sum(n.rows for n in counted)
        out = sample(den, 1, guides=[guide], **options)
        assert out.x.isfinite().all(), (solver, path)
        assert out.stats.evaluations == sum(n.rows for n in counted) - before, (solver, path)
        changed = float((out.x - plain).abs().max() / plain.abs().max())
        assert name in QUIET or changed > 1e-6, (solver, path)


# A guide of each level, a guide with a memory, and one with a gradient through the network.
EACH_KIND = ("cads", "cfg", "classifier-guidance", "higs", "flowchef", "steered")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.kind)
def test_every_solver_and_path_with_a_guide_of_each_kind(made, solver, path):
    """They run together, and a row is the row alone."""
    den, _, guides = made[path.kind]
    asked = [guides[k] for k in EACH_KIND]
    plan = make_plan(path, solver, "logsnr", 3)
    cond = {"label": [1, 2], "emb": torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)}
    both = sample(den, 2, plan=plan, guides=asked, cond=cond, **DOUBLE).x
    assert both.isfinite().all()
    if path.kind == PATHS[SOLVERS.index(solver) % 3].kind:
        second = {k: v[1:] for k, v in cond.items()}
        alone = sample(den, 1, first=1, plan=plan, guides=asked, cond=second, **DOUBLE).x
        assert torch.allclose(alone, both[1:], rtol=1e-7, atol=1e-9)


class Watching(Guide):
    """Notes what it is asked."""

    level = "answer"

    def __init__(self, level):
        self.level, self.seen = level, []

    def answer(self, ask, x0, state):
        self.seen.append((float(ask.t), float(ask.t_next), ask.begins))
        return x0, state

    def move(self, ask, x, state):
        self.seen.append((float(ask.t), ask.x0 is not None))
        return x, state, False


@pytest.mark.parametrize(
    ("solver", "stages"),
    [("ddim", [0.0]), ("heun", [0.0, 1.0]), ("rk4", [0.0, 0.5, 0.5, 1.0]), ("dpm-solver++", [0.0])],
)  # fmt: skip
def test_a_guide_knows_where_a_step_begins_and_ends_and_moves_x_once_a_step(solver, stages):
    path = VE()  # on which a stage's share of the step is its share of the time
    den, times = tiny(path, 0, SMALL)[0], torch.tensor([0.08, 0.04, 0.02], dtype=torch.float64)
    answers, moves = Watching("answer"), Watching("state")
    sample(den, 1, plan=make_plan(path, solver, times), guides=[answers, moves], cond=COND, **DOUBLE)
    want = []
    for i in range(2):
        t, after = times[i], times[i + 1]
        want += [(float(t + c * (after - t)), float(after), k == 0) for k, c in enumerate(stages)]
    assert torch.allclose(torch.tensor(answers.seen), torch.tensor(want), atol=1e-9)
    assert moves.seen == [(0.04, True), (0.02, True)]


def test_a_jump_up_asks_nothing_and_flowchef_steers_nothing_by_it(made):
    den = made["vp"][0]
    plan = make_plan(VP(), "resampling", torch.tensor([0.7, 0.5, 0.3], dtype=torch.float64))
    moves = Watching("state")
    sample(den, 1, plan=plan, guides=[moves], cond=COND, **DOUBLE)
    assert moves.seen == [(0.5, True), (0.3, True), (0.5, False), (0.3, True)]


def test_higs_takes_a_step_of_two_stages_into_its_mean_once():
    """With heun and a mean of the newest answer alone: both stages of a step are pushed from the last step's first."""
    answers = []

    def net(x, t):
        answers.append(torch.sin(3 * x + len(answers)))
        return answers[-1]

    den = wrap(net, VE(), "x0", shape=(5,))
    guide = HiGS(0.5, weight=1.0, parallel=1.0, cutoff=None, window=(0.0, 1.0), schedule="constant")
    pushed = Watching("answer")
    pushed.answer = lambda ask, x0, state: (pushed.seen.append(x0) or x0, state)
    times = torch.tensor([0.08, 0.04, 0.02], dtype=torch.float64)
    start = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sample(den, start=start, plan=make_plan(VE(), "heun", times), guides=[guide, pushed])
    first = answers[0]
    want = [first, answers[1], *(a + 0.5 * (a - first) for a in answers[2:])]
    assert len(answers) == 4
    assert torch.allclose(torch.stack(pushed.seen), torch.stack(want), atol=1e-12)


# How far 24 steps of a method of each order may be from the guided flow.
FLOWS = [s for s in SOLVERS if not solver_named(s).stochastic]
FAR = {1: 0.04, 2: 0.015, 3: 6e-3, 4: 1e-5}


def guided_end(path, solver, steps, guided=True):
    """x/α at λ = 2 of the flow from λ = −2 under three guides, all of which are functions of x̂₀ and ε̂ alone."""
    means = torch.randn(3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    world = GaussianMixture([0.5, 0.3, 0.2], means, torch.full((3, 1), 0.2), component_labels=[0, 1, 1])

    def log_prob(x, t):
        return world.log_density(x, path, t, 1) - world.log_density(x, path, t)

    times = path.t_of_lam(torch.linspace(-2, 2, steps + 1, dtype=torch.float64))
    y = 3 * torch.randn(2, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    guides = [CFG(1.5, null={"label": 1}), ClassifierGuidance(log_prob, 0.5), DensityGuidance(0.4)]
    x = sample(
        world.denoiser(path), start=path.alpha(times[0]) * y, plan=make_plan(path, solver, times),
        guides=guides if guided else [], cond={"label": 0},
    ).x  # fmt: skip
    return x / path.alpha(times[-1])


@pytest.fixture(scope="module")
def truth():
    return guided_end(VP(), "rk4", 60)


@pytest.mark.parametrize("solver", FLOWS)
def test_the_guided_flow_is_the_same_by_every_solver_on_every_path(truth, solver):
    for path in PATHS:
        far = float((guided_end(path, solver, 24) - truth).abs().max())
        assert far < FAR[solver_named(solver).order], (path, far)


def test_what_is_the_same_is_guided(truth):
    assert (guided_end(VP(), "rk4", 24, guided=False) - truth).abs().max() > 0.5
