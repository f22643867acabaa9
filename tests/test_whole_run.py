"""Compiled networks, and whole runs as one CUDA graph; where there is no GPU the recorder is stood in for."""

import contextlib
import types
from functools import partial

import pytest
import torch

import fewstep.captured
from fewstep import CFG, VP, make_plan, sample, wrap
from fewstep.captured import Captured, HeldNoise, captured_run
from fewstep.errors import ArgumentError, NumericalError
from fewstep.guidance import PAG
from fewstep.networks import UNet
from fewstep.session import prepare

# torch's tracer warns of torch's own older parts.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")


def model(bias=0.0):
    net = torch.nn.Linear(4, 4)
    return wrap(lambda x, t, z: torch.tanh(net(x) + bias + z + t[:, None]), VP(), "eps", shape=(4,), null={"z": 0.0})


def test_a_compiled_network_gives_the_same_samples_and_is_compiled_once(monkeypatch):
    # Traced as ever, but run as traced: making machine code would take most of a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    den = model()
    options = {"steps": 4, "seed": 3, "cond": {"z": torch.zeros(2, 1)}}
    want = sample(den, 2, **options).x
    got = sample(den, 2, compile=True, **options).x
    assert torch.allclose(got, want, atol=1e-5)
    kept = den.__dict__["_compiled"]
    sample(den, 2, compile=True, **options)
    assert den.__dict__["_compiled"] is kept


def test_a_guide_that_reads_the_networks_inside_is_refused_when_compiled():
    net = UNet(1, 3, width=8, multipliers=(1, 2), attention=(0, 2))
    den = wrap(net, VP(), "eps", shape=(1, 8, 8), null={"label": 3})
    with pytest.raises(ArgumentError, match="compile"):
        sample(den, 1, steps=2, cond={"label": 0}, guides=[PAG(1.0)], compile=True)


class Recorder:
    """What `torch.cuda` is for a record: the record is made by running, and replayed by running again."""

    def __init__(self):
        self.recording, self.replays = False, 0

    def replay(self):
        self.replays += 1
        before = self.owner.run
        after = Captured._run(self.owner)
        for old, new in zip(before.registers, after.registers, strict=True):
            if old is not None and old is not self.owner.start:
                old.copy_(new)
        before.sums = after.sums


@pytest.fixture
def recorder(monkeypatch):
    made = []

    def graph():
        made.append(Recorder())
        return made[-1]

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    cuda = types.SimpleNamespace(
        Stream=lambda device: stream, current_stream=lambda device: stream, CUDAGraph=graph,
        stream=lambda s: contextlib.nullcontext(), graph=lambda g: contextlib.nullcontext(),
    )  # fmt: skip
    monkeypatch.setattr(fewstep.captured, "torch", types.SimpleNamespace(**{**vars(torch), "cuda": cuda}))
    record = Captured._record

    def recorded(self):
        record(self)
        self.graph.owner = self

    monkeypatch.setattr(Captured, "_record", recorded)
    return made


@pytest.mark.parametrize("solver", ["dpm-solver++", "ddpm", "unipc"])
@pytest.mark.parametrize("guides", [[], [CFG(2.0)]], ids=["plain", "cfg"])
def test_a_replay_reads_the_new_start_conditions_and_noise(solver, guides, recorder, monkeypatch):
    den = model()
    plan = make_plan(den.path, solver, "logsnr", 5)
    monkeypatch.setattr(fewstep.captured, "_on_a_gpu", lambda device: True)
    for seed in (1, 2, 3):
        options = {"plan": plan, "guides": guides, "seed": seed, "cond": {"z": torch.full((2, 1), 0.1 * seed)}}
        want = sample(den, 2, **options)
        got = sample(den, 2, cuda_graph=True, **options)
        assert torch.equal(got.x, want.x)
        assert got.stats.evaluations == want.stats.evaluations
    assert len(recorder) == 1
    sample(den, 3, plan=plan, guides=guides, cond={"z": torch.zeros(3, 1)}, cuda_graph=True)
    assert len(recorder) == 2


def test_a_bad_answer_is_found_in_a_replay(recorder, monkeypatch):
    den, plan = model(), make_plan(VP(), "ddim", "logsnr", 3)
    monkeypatch.setattr(fewstep.captured, "_on_a_gpu", lambda device: True)
    sample(den, 1, plan=plan, cond={"z": torch.zeros(1, 1)}, cuda_graph=True)
    with pytest.raises(NumericalError):
        sample(den, 1, plan=plan, cond={"z": torch.full((1, 1), float("nan"))}, cuda_graph=True)


def test_what_a_record_cannot_hold_is_refused():
    den = model()
    cond = {"z": torch.zeros(1, 1)}
    with pytest.raises(ArgumentError, match="CUDA device"):
        sample(den, 1, steps=2, cond=cond, cuda_graph=True)
    for options in ({"keep": "trajectory"}, {"progress": True}, {"callback": print}):
        with pytest.raises(ArgumentError, match="shows no steps"):
            sample(den, 1, steps=2, cond=cond, cuda_graph=True, **options)
    for options in ({"reject": print}, {"search": print}, {"solver": "dpm-solver-adaptive"}):
        with pytest.raises(ArgumentError, match="give one of them"):
            sample(den, 1, cond=cond, cuda_graph=True, **options)
    with pytest.raises(ArgumentError, match="give one of them"):
        sample(den, 1, cond=cond, search=print, reject=print)
    with pytest.raises(ArgumentError, match="neither grad nor debug"):
        sample(den, 1, steps=2, cond=cond, cuda_graph=True, grad=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_record_is_the_run():
    den = model()
    for seed in (1, 2):
        options = {"steps": 6, "solver": "ddpm", "seed": seed, "device": "cuda", "cond": {"z": torch.zeros(2, 1)}}
        assert torch.allclose(sample(den, 2, cuda_graph=True, **options).x, sample(den, 2, **options).x)


def test_all_draws_of_a_run_in_order():
    den = model()
    session = prepare(den, 2, solver="ddpm", steps=4, cond={"z": torch.zeros(2, 1)}, seed=5)
    draws = fewstep.captured.draws_of(session.program, session.noise)
    assert torch.equal(draws[2], session.noise.step(2, 0.0, 0.0))
    # Where draws have an order, those that the run makes are all that are made.
    session = prepare(den, 2, solver="restart", grid="karras", steps=4, cond={"z": torch.zeros(2, 1)}, noise="comfyui")
    draws = fewstep.captured.draws_of(session.program, session.noise)
    run = session.program.start(session.start, session.cond, HeldNoise(draws))
    for index in range(session.program.plan.steps):
        session.program.step(run, index)
    assert torch.equal(run.registers[0], session.at_once()[0])
    assert captured_run is fewstep.captured.captured_run
