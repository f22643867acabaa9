"""Tasks in this process, and on the workers of a small Ray cluster, one of which is killed."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from fewstep import Plan, compare, generate, tune
from fewstep.cli import app
from fewstep.engines import Engine
from fewstep.errors import ArgumentError, MissingExtraError, PlanError
from fewstep.paths import VP
from fewstep.tuning import tune_each
from fewstep.worlds import GaussianMixture


def double(shared, item):
    return shared * item


def die_once(folder, item):
    """Kill the worker that this runs on, the first time that item 2 is asked."""
    if item == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "refuse":
        raise PlanError("told by a worker")
    return item, os.getpid(), os.environ["RAY_USAGE_STATS_ENABLED"]


def world():
    mean = torch.tensor([-0.5, 0.5], dtype=torch.float64)[:, None].expand(2, 2)
    return GaussianMixture([0.3, 0.7], mean, variance=[[0.02], [0.03]]).denoiser(VP())


def test_tasks_in_this_process_are_in_order_and_lazy():
    taken = []

    def items():
        for i in range(3):
            taken.append(i)
            yield i

    tasks = Engine().spread(double, items(), 2)
    assert next(tasks) == (0, 0)
    assert taken == [0]
    assert list(tasks) == [(1, 2), (2, 4)]


@pytest.mark.parametrize("wrong", [
    {"name": "spark"}, {"address": "auto"}, {"workers": 1}, {"name": "ray", "workers": 0}, {"name": 3},
    {"name": "ray", "address": "auto", "workers": 2}, {"name": "ray", "address": 5}, {"name": "ray", "workers": True},
    {"name": "ray", "workers": 1.5}, {"cpus": 0}, {"gpus": -1},
])  # fmt: skip
def test_bad_engines_are_refused(wrong):
    with pytest.raises(ArgumentError):
        Engine(**wrong)


def test_tasks_share_the_memory_of_the_machine_that_asks_but_not_a_device(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    engines = [Engine(), Engine("ray"), Engine("ray", workers=2), Engine("ray", cpus=4), Engine("ray", gpus=1)]
    assert [engine.side_by_side for engine in engines] == [1, 12, 2, 3, 1]


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    for asked in (
        lambda: list(Engine("ray").spread(double, [1], 2)), lambda: compare(world(), ["ddim"], [2], engine="ray"),
        lambda: generate(world(), 2, tmp_path, engine="ray"), lambda: tune_each(world(), [3], engine="ray"),
        lambda: tune(world(), 3, engine="ray"), lambda: tune(world(), [3, 4], engine="ray"),
    ):  # fmt: skip
        with pytest.raises(MissingExtraError, match=r"fewstep\[scale\]"):
            asked()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:none", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_is_refused_at_once(address):
    pytest.importorskip("ray", reason="the extra scale is not installed")
    with pytest.raises(ArgumentError, match="could be reached at"):
        list(Engine("ray", address).spread(double, [1], 2))


def test_ray_is_not_imported_before_it_is_asked_for():
    code = "import sys, fewstep.engines as e; list(e.Engine().spread(max, [1], 2)); assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_plan_is_the_one_tuned_alone(tmp_path):
    den, told = world(), []
    plans = tune_each(den, [3, 4], ["gits"], samples=2, checkpoint=tmp_path, tell=told.append)
    assert [p.evaluations for p in plans] == [3, 4]
    for plan in plans:
        alone = tune(den, plan.evaluations, method="gits", samples=2)
        assert torch.equal(plan.times, alone.times)
    assert len(told) == 2
    assert len(list(tmp_path.glob("*.tuning"))) == 2
    with pytest.raises(ArgumentError):
        tune_each(den, [])


def test_a_list_of_evaluations_gives_a_list_of_plans():
    den, told = world(), []
    plans = tune(den, (4, 3), method="gits", samples=2, tell=told.append)
    assert [p.evaluations for p in plans] == [4, 3]
    assert torch.equal(plans[1].times, tune(den, 3, method="gits", samples=2).times)
    assert [line.split(":")[0] for line in told] == ["gits, 4 evaluations", "gits, 3 evaluations"]


@pytest.mark.parametrize(("evaluations", "more"), [
    ([3, 1], {}), ([3, "4"], {}), ("34", {}), (None, {}), ([], {}), (True, {}), ([3, True], {}),
    (3, {"engine": "spark"}), (3, {"address": "auto"}), ([3], {"engine": "spark"}), ([3], {"method": "gitz"}),
])  # fmt: skip
def test_a_bad_tuning_is_refused_before_the_first_begins(evaluations, more):
    told = []
    with pytest.raises(ArgumentError):
        tune(world(), evaluations, **{"method": "gits", "samples": 2, "tell": told.append, **more})
    assert told == []


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine, for all tests here: starting them is most of the time."""
    ray = pytest.importorskip("ray", reason="the extra scale is not installed")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    try:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    except Exception as error:
        pytest.skip(f"no Ray cluster starts here: {error}")
    yield ray
    ray.shutdown()


@pytest.fixture
def one_thread():
    """As many threads as a worker has, so that equal bits can be asked for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("one_thread")
class TestRay:
    def test_a_killed_workers_task_is_done_again_elsewhere(self, cluster, tmp_path):
        found = dict(Engine("ray").spread(die_once, range(5), tmp_path))
        assert (tmp_path / "died").exists()
        assert sorted(found) == [result[0] for _, result in sorted(found.items())] == list(range(5))
        assert os.getpid() not in {result[1] for result in found.values()}
        assert {result[2] for result in found.values()} == {"0"}
        assert cluster.is_initialized()  # a connection that was there stays

    def test_an_error_is_raised_as_it_was_and_not_retried(self, cluster, tmp_path):
        with pytest.raises(PlanError, match="told by a worker") as caught:
            list(Engine("ray").spread(die_once, ["refuse"], tmp_path))
        assert caught.type is PlanError

    def test_what_comes_out_is_what_one_process_gives(self, cluster, tmp_path):
        den, options = world(), {"steps": 2, "shard": 3, "batch": 3}
        made = [generate(den, 10, tmp_path / e, engine=e, **options) for e in ("local", "ray")]
        assert [m.made for m in made] == [10, 10]
        for file in (tmp_path / "local").iterdir():
            assert file.read_bytes() == (tmp_path / "ray" / file.name).read_bytes()
        tables = [compare(den, ["ddim", "heun"], [2, 4], n=4, engine=e) for e in ("local", "ray")]
        for one, other in zip(*(t.rows for t in tables), strict=True):
            assert (one.solver, one.evaluations, one.error) == (other.solver, other.evaluations, other.error)
            assert torch.equal(one.x, other.x)

    def test_plans_tuned_on_workers_are_those_tuned_here(self, cluster, tmp_path):
        den, options = world(), {"method": "gits", "samples": 2}
        here = [tune(den, count, **options) for count in (3, 4)]
        there = tune(den, [3, 4], engine="ray", checkpoint=tmp_path, **options)
        alone = tune(den, 4, engine="ray", checkpoint=tmp_path / "alone", **options)
        for one, other in zip([*here, here[1]], [*there, alone], strict=True):
            assert torch.equal(one.times, other.times)
            assert one.source["tuned"]["after"] == other.source["tuned"]["after"]
        assert sorted(f.name for f in tmp_path.iterdir()) == ["0-gits-3.tuning", "1-gits-4.tuning", "alone"]

    def test_the_commands_spread_what_is_independent(self, cluster, tmp_path, monkeypatch):
        monkeypatch.setattr("fewstep.loading.load", lambda name: world())
        done = []
        for command in (
            "compare --solver ddim --solver heun --evaluations 4 -n 2 --engine ray --out c.png",
            "tune --method gits --evaluations 3 --evaluations 4 --samples 2 --engine ray --out t.json --plot t.png",
        ):
            words = [str(tmp_path / w) if w.endswith((".png", ".json")) else w for w in command.split()]
            done.append(CliRunner().invoke(app, words, catch_exceptions=False))
        assert [d.exit_code for d in done] == [0, 0]
        names = {"c.png", *(f"t-gits-{count}.{kind}" for count in (3, 4) for kind in ("json", "png"))}
        assert {f.name for f in tmp_path.iterdir()} == names
        assert [Plan.load(tmp_path / f"t-gits-{count}.json").evaluations for count in (3, 4)] == [3, 4]
        assert "2 samples" in done[0].stdout
