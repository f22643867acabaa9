"""A tuning that is killed goes on and finds the same plan; budgets are kept; the report says what was gained."""

import json
import re
from dataclasses import dataclass, replace

import pytest
import torch
from typer.testing import CliRunner

import fewstep
from fewstep import VP, Flow, make_plan, sample, tune
from fewstep.cli import app
from fewstep.errors import ArgumentError, WeightsError
from fewstep.guidance.thresholding import Thresholding
from fewstep.networks import build, weights
from fewstep.plan import Plan
from fewstep.tuning.descent import Trajectory
from fewstep.tuning.problem import Problem, Tuner
from fewstep.tuning.random_mixtures import mixtures
from fewstep.tuning.settling import SHARES


def small():
    return fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), VP(), "x0", shape=(6,))


class Kill(BaseException):
    """A kill that no handler of ours catches."""


class Dying:
    """A network that dies at its n-th call."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, x, t):
        self.calls -= 1
        if self.calls == 0:
            raise Kill
        return 0.5 * torch.tanh(2 * x)


@pytest.mark.parametrize("calls", [20, 203, 240, 275])
def test_a_tuning_that_was_killed_goes_on_and_finds_the_same(tmp_path, calls):
    """Killed while the flow is solved, soon after, in the middle of the descent, and near its end."""
    options = {"method": Trajectory(rounds=6), "samples": 8}
    whole = tune(small(), 4, **options)
    file = tmp_path / "t.safetensors"
    dying = fewstep.wrap(Dying(calls), VP(), "x0", shape=(6,))
    with pytest.raises(Kill):
        tune(dying, 4, checkpoint=file, **options)
    lines = []
    resumed = tune(small(), 4, checkpoint=file, tell=lines.append, **options)
    assert resumed == whole
    for key in ("spent", "before", "after", "measured", "history"):
        assert resumed.source["tuned"][key] == whole.source["tuned"][key]
    if calls > 203:
        assert "resumed" in lines[0]


def test_a_finished_tuning_is_not_begun_again(tmp_path):
    options = {"method": Trajectory(rounds=3), "samples": 8, "checkpoint": tmp_path / "t.safetensors"}
    whole = tune(small(), 4, **options)
    calls = []
    again = tune(
        fewstep.wrap(lambda x, t: calls.append(1) or torch.tanh(2 * x) / 2, VP(), "x0", shape=(6,)), 4, **options
    )
    assert again == whole
    assert len(calls) <= 2 * 4


def test_a_checkpoint_of_another_tuning_or_of_nothing_is_refused(tmp_path):
    file = tmp_path / "t.safetensors"
    tune(small(), 4, method=Trajectory(rounds=1), samples=4, checkpoint=file)
    with pytest.raises(ArgumentError, match="evaluations was 4 and is 5"):
        tune(small(), 5, method=Trajectory(rounds=1), samples=4, checkpoint=file)
    file.write_bytes(b"no such file")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        tune(small(), 4, method=Trajectory(rounds=1), samples=4, checkpoint=file)


@dataclass(frozen=True)
class Greedy(Tuner):
    """A tuner that says what it cannot do without."""

    def __call__(self, problem: Problem) -> Plan:
        problem.believed(torch.zeros(3, 6, dtype=torch.float64), torch.tensor([0.1, 0.5, 0.9]))
        problem.record(0.5)
        return make_plan(problem.denoiser.path, "ddim", "karras", 4)

    def untuned(self, problem):
        return make_plan(problem.denoiser.path, "ddim", "logsnr", 4)

    def least(self, problem: Problem) -> int:
        return 3


def test_budgets_are_kept_and_what_was_spent_is_told():
    with pytest.raises(ArgumentError, match="budget=2 is too small: this method needs at least 3"):
        tune(small(), 4, method=Greedy(), budget=2)
    about = tune(small(), 4, method=Greedy(), budget=3, samples=16).source["tuned"]
    assert (about["spent"], about["budget"], about["untuned"]) == (3, 3, "ddim, logsnr")
    assert about["measured"] == 16 * (2 * 100 - 1) + 3 * 16 * 4
    assert about["history"] == [[3, 0.5]]


def test_a_budget_keeps_a_reserve_for_how_far_it_pays_to_go():
    denoiser = fewstep.wrap(lambda x, t: 0.5 * torch.tanh(2 * x), VP(), "x0", shape=(6,))
    options = {"method": Trajectory(rounds=200), "samples": 16}
    pairs, run = 16 * 199, 16 * 4
    # The ends of the noises that it sees and of those kept for this, twelve runs, and what every share would take; here
    # two are asked, as there is no way between its start and what it finds.
    about = tune(denoiser, 4, budget=2 * pairs + (12 + len(SHARES)) * run, **options).source["tuned"]
    assert set(about["settled"]) == {"0", "1"}
    assert about["spent"] == 2 * pairs + (12 + 2) * run
    # A budget too small for both is the method's alone.
    about = tune(denoiser, 4, budget=pairs + 14 * run, **options).source["tuned"]
    assert about["settled"].startswith("not measured")
    assert about["spent"] == pairs + 14 * run


def test_rounds_are_what_the_budget_pays_for():
    problem = Problem(fewstep.wrap(lambda x, t: x, VP(), "x0", shape=(2,)), 4, budget=1000, spent=100, reserved=300)
    assert problem.affordable("a", 50, 7) == 50
    assert problem.affordable("b", 100, 7) == 85
    assert problem.affordable("c", 100, 7, ways=3) == 28
    assert problem.affordable("d", 100, 10_000) == 1
    problem.spent = 600
    assert problem.affordable("b", 100, 7) == 85
    problem.budget = None
    assert problem.affordable("e", 100, 10_000) == 100


def test_what_is_believed_is_what_the_denoiser_says():
    problem = Problem(small(), 4)
    x, t = torch.randn(3, 6, dtype=torch.float64), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(problem.believed(x, t), 0.5 * torch.tanh(2 * x))
    guided = Problem(small(), 4, guides=[Thresholding()])
    assert torch.equal(guided.believed(x, t), problem.believed(x, t))
    assert guided.spent == 3
    world = Problem(mixtures(VP(), 8, 2)[0][0], 4)
    x = torch.randn(3, 64, dtype=torch.float64)
    assert torch.allclose(world.believed(x, t), world.denoiser(x, t[:, None]), rtol=1e-10)


def test_clean_samples_are_the_data_the_world_or_the_model():
    data = torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(Problem(small(), 4, data).clean(7)[:5], data)
    with pytest.raises(ArgumentError, match="data must be samples"):
        Problem(small(), 4, torch.ones(6)).clean(3)
    denoiser = mixtures(VP(), 8, 2)[0][0]
    assert torch.equal(Problem(denoiser, 4, seed=3).clean(9), denoiser.world.sample(9, 3))
    problem = Problem(small(), 4)
    assert problem.clean(2).abs().max() < 1
    assert problem.spent > 0


def test_the_cost_of_pairs_is_known_before():
    world = Problem(mixtures(VP(), 8, 2)[0][0], 4)
    for problem in (Problem(small(), 4), world, Problem(small(), 4, guides=[Thresholding()])):
        cost = problem.pairs_cost(3)
        problem.pairs(3, part=1)
        assert problem.spent == cost
        problem.pairs(3, part=1)
        assert problem.spent == cost


def test_a_tuned_plan_says_what_it_is_and_refuses_another_path(tmp_path):
    plan = tune(small(), 4, method=Greedy(), samples=16)
    plan.save(str(tmp_path / "p.json"))
    text = str(Plan.load(str(tmp_path / "p.json")))
    assert "tuned by greedy at 4 evaluations (vp path): median RMSE to the flow 0." in text
    assert re.search(r" before \([^)]+\), 0\.\d+ after, on noises not seen", text)
    assert re.search(r"[\d,]+ evaluations of the network and [\d.e-]+ s were spent, seed 0\n", text)
    assert not re.search(r"\d\.\d{7}", text.split("step ")[0])
    # A file may lack any of it.
    bare = replace(plan, source={"tuned": {"method": "mine"}})
    assert "tuned by mine at ? evaluations: median RMSE to the flow ? before" in str(bare)
    with pytest.raises(ArgumentError, match=r"the plan is for the path VP\(.*lives on Flow\(\): make or tune one"):
        sample(fewstep.wrap(lambda x, t: x, Flow(), "x0", shape=(6,)), 1, plan=plan)
    with pytest.raises(ArgumentError) as refused:
        sample(fewstep.wrap(lambda x, t: x, VP.from_betas("linear"), "x0", shape=(6,)), 1, plan=plan)
    assert len(str(refused.value)) < 300


def test_the_report_is_a_sentence_json_and_a_picture(tmp_path):
    report = tune.report(tune(small(), 4, method=Greedy(), samples=16, settle=False))
    assert "before (ddim, logsnr)" in str(report)
    assert "dpm-solver++ on logsnr has" in str(report)
    assert json.loads(report.to_json())["spent"] == 3
    report.save(tmp_path / "r.png")
    report.save(tmp_path / "r.svg")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_plans_with_noise_are_judged_by_their_law():
    @dataclass(frozen=True)
    class Noisy(Tuner):
        def __call__(self, problem):
            return make_plan(problem.denoiser.path, "ddpm", "karras", 4)

    about = tune(small(), 4, method=Noisy(), samples=16).source["tuned"]
    assert about["measure"] == "sliced W2 distance to the flow"


def test_the_command_writes_the_plan_and_says_what_it_gained(tmp_path):
    model, out, plot = tmp_path / "m.safetensors", tmp_path / "o" / "p.json", tmp_path / "o" / "p.png"
    network = build({"kind": "unet", "channels": 1, "classes": 2, "width": 8, "multipliers": [1], "attention": [0]})
    weights.write(model, network, {
        "path": VP().to_json(), "predicts": "v", "shape": [1, 4, 4], "range": [-1, 1], "null_label": 2,
        "time_range": [-4, 4],
    })  # fmt: skip

    def run(*arguments):
        return CliRunner().invoke(app, ["tune", *map(str, arguments)])

    given = ("--model", model, "--evaluations", 4, "--method", "beta", "--samples", 4)
    done = run(*given, "--out", out, "--plot", plot, "--checkpoint", tmp_path / "c")
    assert done.exit_code == 0, done.output
    assert "tuned by beta at 4 evaluations" in done.output
    assert Plan.load(str(out)).source["tuned"]["spent"] > (4 + 16) * 199 + 6 * 4 * 4 + 6 * 16 * 4
    assert plot.is_file()
    assert (tmp_path / "c").is_file()
    assert "Example: fewstep tune" in run("--help").output
