"""Tasks in this process, and on the workers of a small Ray cluster, one of which is killed."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from fewstep import compare, generate, tune
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
    {"name": "spark"}, {"address": "auto"}, {"workers": 1}, {"name": "ray", "workers": 0},
    {"name": "ray", "address": "auto", "workers": 2},
])  # fmt: skip
def test_bad_engines_are_refused(wrong):
    with pytest.raises(ArgumentError):
        Engine(**wrong)


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    for asked in (
        lambda: list(Engine("ray").spread(double, [1], 2)), lambda: compare(world(), ["ddim"], [2], engine="ray"),
        lambda: generate(world(), 2, tmp_path, engine="ray"), lambda: tune_each(world(), [3], engine="ray"),
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


@pytest.mark.filterwarnings("ignore::ResourceWarning")
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
        torch.set_num_threads(1)
        made = [generate(den, 10, tmp_path / e, engine=e, **options) for e in ("local", "ray")]
        assert [m.made for m in made] == [10, 10]
        for file in (tmp_path / "local").iterdir():
            assert file.read_bytes() == (tmp_path / "ray" / file.name).read_bytes()
        tables = [compare(den, ["ddim", "heun"], [2, 4], n=4, engine=e) for e in ("local", "ray")]
        for one, other in zip(*(t.rows for t in tables), strict=True):
            assert (one.solver, one.evaluations, one.error) == (other.solver, other.evaluations, other.error)
            assert torch.equal(one.x, other.x)
