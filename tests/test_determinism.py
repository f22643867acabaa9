"""The same bits: which settings hold inside a run, that they are put back, and what is said where they cannot hold."""

import os
import threading
from functools import partial

import pytest
import torch
from torch.backends import cudnn

import fewstep.captured
import fewstep.sampling
from fewstep import VP, sample, stream, wrap
from fewstep.cli import drawing
from fewstep.determinism import WORKSPACE, same_bits
from fewstep.errors import ArgumentError
from fewstep.networks import UNet
from fewstep.search import FKSteering, Reject
from fewstep.session import prepare

# torch's tracer warns of torch's own older parts.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
CPU, CUDA, STRICT = torch.device("cpu"), torch.device("cuda"), (2, True, False)


def settings():
    return torch.get_deterministic_debug_mode(), cudnn.deterministic, cudnn.benchmark


def set_to(mode, deterministic, benchmark):
    torch.set_deterministic_debug_mode(mode)
    cudnn.deterministic, cudnn.benchmark = deterministic, benchmark


@pytest.fixture(params=[(0, False, False), (0, False, True), (1, True, True), (2, False, True)], ids=str)
def before(request):
    """What the process was set to by somebody else, who wants it back."""
    own = settings()
    set_to(*request.param)
    yield request.param
    set_to(*own)


def watched(then=lambda x: x):
    """A denoiser that notes the settings whenever it is asked, and the notes."""
    seen = []

    def net(x, t):
        seen.append(settings())
        return torch.tanh(then(x))

    return wrap(net, VP(), "x0", shape=(1, 4, 4)), seen


def put(x):
    """An operation of which torch has no deterministic kernel, on no device."""
    return x.clone().put_(torch.tensor([0]), torch.ones(1, dtype=x.dtype))


ways = pytest.mark.parametrize(
    "options",
    [
        {},
        {"keep": "trajectory"},
        {"callback": lambda event: None},
        {"grad": "checkpoint"},
        {"solver": "dpm-solver-adaptive", "steps": None},
        {"search": FKSteering(lambda x: x.mean((1, 2, 3)), 1.0, particles=2, weighings=2)},
        {"reject": Reject(kept=0.5, window=2)},
    ],
    ids=lambda options: ", ".join(options),
)


@ways
def test_strict_inside_and_put_back_behind(options, before):
    den, seen = watched()
    want = sample(den, 2, **{"steps": 3, **options})
    assert set(seen) == {before}
    seen.clear()
    got = sample(den, 2, deterministic=True, **{"steps": 3, **options})
    assert set(seen) == {STRICT}
    assert settings() == before
    assert torch.equal(got.x, want.x)


@ways
def test_put_back_after_an_error(options, before):
    def fails(x):
        if len(seen) == 2:
            raise KeyError("the network's own")
        return x

    den, seen = watched(fails)
    with pytest.raises(KeyError, match="own"):
        sample(den, 2, deterministic=True, **{"steps": 3, **options})
    assert seen == [STRICT] * 2
    assert settings() == before


def test_a_stream_is_strict_in_its_steps_and_not_between_them(before):
    den, seen = watched()
    whole = sample(den, 2, steps=4).x
    seen.clear()
    events = [(event.x, settings()) for event in stream(den, 2, steps=4, deterministic=True)]
    assert seen == [STRICT] * 4
    assert [between for _, between in events] == [before] * 4
    assert torch.equal(events[-1][0], whole)


def test_a_stream_that_is_left_early_leaves_nothing_set(before):
    den, seen = watched()
    closed, dropped, stopped, failed = (stream(den, 1, steps=4, deterministic=True) for _ in range(4))
    next(closed)
    closed.close()
    next(dropped)  # and is never asked again
    next(stopped).stop()
    assert next(stopped, None) is None
    next(failed)
    with pytest.raises(KeyError):
        failed.throw(KeyError())
    assert seen == [STRICT] * 4
    assert settings() == before


def test_threads_share_it_until_the_last_leaves(before):
    """Four are inside at once; the first that entered leaves first, and the last that leaves puts back."""
    compiler = pytest.importorskip("torch._inductor.config")
    inside, may_end, ended = threading.Barrier(5), [threading.Event() for _ in range(4)], {}

    def work(number):
        def wait(x):
            if len(seen) == 1:
                inside.wait(timeout=30)
                assert may_end[number].wait(timeout=30)
            return x

        den, seen = watched(wait)
        x = sample(den, 1, steps=3, seed=number, deterministic=True).x
        # What torch's compiler is told is each thread's own.
        ended[number] = (x, seen, getattr(compiler, "deterministic", False))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    inside.wait(timeout=30)
    for thread, event in zip(threads, may_end, strict=True):
        assert settings() == STRICT
        event.set()
        thread.join(timeout=30)
    assert settings() == before
    for number in range(4):
        x, seen, told = ended[number]
        assert seen == [STRICT] * 3
        assert told is False
        assert torch.equal(x, sample(watched()[0], 1, steps=3, seed=number).x)


@pytest.mark.parametrize("run", [sample, lambda *a, **k: list(stream(*a, **k))], ids=["sample", "stream"])
def test_an_operation_without_a_deterministic_kernel_is_named(run):
    den, _ = watched(put)
    run(den, 1, steps=2)
    with pytest.raises(ArgumentError, match=r"used put_, .*cpu; leave deterministic out, or replace") as refused:
        run(den, 1, steps=2, deterministic=True)
    assert isinstance(refused.value.__cause__, RuntimeError)
    assert settings() != STRICT
    with pytest.raises(RuntimeError, match="another") as passed:
        run(watched(lambda x: raised(RuntimeError("another")))[0], 1, steps=2, deterministic=True)
    assert not isinstance(passed.value, ArgumentError)


def raised(error):
    raise error


@pytest.mark.parametrize("solver", ["dpm-solver++", "ddpm"])
def test_on_the_cpu_the_bits_are_those_without(solver):
    torch.manual_seed(1)
    net = UNet(1, 3, width=8, multipliers=(1, 2), attention=(0, 2))
    den = wrap(net, VP(), "eps", shape=(1, 8, 8), null={"label": 3})
    runs = [
        sample(den, 3, solver=solver, steps=4, cond={"label": 1}, deterministic=flag).x for flag in (False, True, True)
    ]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[1], runs[2])


def test_on_cuda_the_workspace_of_cublas_must_be_set(monkeypatch):
    """The rule alone: no device is touched."""
    monkeypatch.setattr(torch.version, "hip", None)
    for value in (None, "", ":0:0"):
        if value is None:
            monkeypatch.delenv(WORKSPACE, raising=False)
        else:
            monkeypatch.setenv(WORKSPACE, value)
        with pytest.raises(ArgumentError, match=f"{WORKSPACE} to be :4096:8 or :16:8 .*now it is {value!r}"):
            same_bits(CUDA).__enter__()
        with same_bits(CPU):
            pass
    for value in (":4096:8", ":16:8"):
        monkeypatch.setenv(WORKSPACE, value)
        with same_bits(CUDA):
            assert settings() == STRICT
        # Set when CUDA had begun, and torch says so: the same error of ours.
        with pytest.raises(ArgumentError, match="before CUDA is first used"), same_bits(CUDA):
            raise RuntimeError(f"not deterministic because it uses CuBLAS … {WORKSPACE}=:4096:8")
    monkeypatch.delenv(WORKSPACE)
    monkeypatch.setattr(torch.version, "hip", "6.0")
    with same_bits(CUDA):
        assert settings() == STRICT


@pytest.mark.parametrize("run", [sample, stream])
def test_a_missing_workspace_is_told_at_the_call(run, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv(WORKSPACE, raising=False)
    # In the place of a GPU: what `device="cuda"` is where there is one.
    monkeypatch.setattr(fewstep.sampling, "checked_device", torch.device)
    den, seen = watched()
    with pytest.raises(ArgumentError, match=WORKSPACE):
        run(den, 1, device="cuda", deterministic=True)
    assert not seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    net = torch.nn.Conv2d(1, 1, 3, padding=1).cuda()
    den = wrap(lambda x, t: net(x), VP(), "x0", shape=(1, 8, 8))
    draw = partial(sample, den, 4, steps=4, device="cuda", deterministic=True)
    if torch.version.hip is None and os.environ.get(WORKSPACE) not in (":4096:8", ":16:8"):
        with pytest.raises(ArgumentError, match=WORKSPACE):
            draw()
    else:
        assert torch.equal(draw().x, draw().x)


@pytest.mark.parametrize("run", [sample, stream])
@pytest.mark.parametrize("value", [1, None, "yes"])
def test_it_is_true_or_false(run, value):
    with pytest.raises(ArgumentError, match="deterministic must be True or False"):
        run(watched()[0], 1, deterministic=value)


def test_a_recorded_graph_is_not_replayed_for_the_other_kind():
    den = watched()[0]
    made = prepare(den, 1, steps=2)
    key = partial(fewstep.captured._signature, made.program, made.start, {}, ())
    plain = key()
    with same_bits(CPU):
        strict = key()
    assert plain == key() != strict


def test_a_compiled_network_is_compiled_again_for_it(monkeypatch):
    """By a compiler that makes no choice by measuring, where this version of torch has such a mode."""
    config = pytest.importorskip("torch._inductor.config")
    own, compiled = getattr(config, "deterministic", None), []

    def backend(graph, inputs):
        compiled.append((settings(), getattr(config, "deterministic", None)))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    den = wrap(lambda x, t: torch.tanh(x), VP(), "x0", shape=(1, 4, 4))
    before = settings()
    for flag in (False, True, True, False):
        sample(den, 2, steps=3, compile=True, deterministic=flag)
    assert compiled == [(before, own), (STRICT, None if own is None else True)]


def test_the_command_passes_it_on(monkeypatch, tmp_path):
    asked = []
    plain = fewstep.sampling.sample
    monkeypatch.setattr(fewstep.sampling, "sample", lambda *a, **k: asked.append(k["deterministic"]) or plain(*a, **k))
    for flag in (False, True):
        drawing.sample("cifar10-lowrank", n=1, steps=1, deterministic=flag, out=tmp_path / "one.png")
    assert asked == [False, True]
