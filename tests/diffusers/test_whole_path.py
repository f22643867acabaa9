"""A user's path through every kind of pipeline: read, set the scheduler, call, save, read, call again, from threads."""

from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import diffusers
import pytest
import torch
from tiny import start
from whole import KINDS, near

import fewstep
import fewstep.diffusers as ours
from fewstep import CFG, sample


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def folder(kind, tmp_path):
    """The pipeline as its makers saved it."""
    kind.make(tmp_path / "tokenizers").save_pretrained(tmp_path / "theirs")
    return tmp_path


def one_at_a_time(pipe):
    """Tokenizers change themselves at every call, whoever the scheduler is: here they take turns."""
    encode, turn = getattr(pipe, "encode_prompt", None), Lock()

    def locked(*args, **kwargs):
        with turn:
            return encode(*args, **kwargs)

    if encode is not None:
        object.__setattr__(pipe, "encode_prompt", locked)


def test_read_set_call_save_read_call(kind, folder):
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder / "theirs")
    theirs = kind.run(pipe)
    assert theirs.std() > 1e-3
    pipe.scheduler = ours.scheduler(pipe, kind.solver)
    mine = kind.run(pipe)
    assert near(mine, theirs)
    pipe.save_pretrained(folder / "ours")
    again = diffusers.DiffusionPipeline.from_pretrained(folder / "ours")
    assert isinstance(again.scheduler, ours.PlanScheduler)
    assert torch.equal(kind.run(again), mine)
    one_at_a_time(again)
    alone = [kind.run(again, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda seed: kind.run(again, seed), range(4)), alone, strict=True):
            assert torch.allclose(got, want, rtol=0, atol=1e-6 * float(want.abs().max()))


def test_our_own_loop_with_their_texts(kind, folder):
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder / "theirs")
    pipe.scheduler = ours.scheduler(pipe, kind.solver)
    want, size = kind.run(pipe), kind.shape[-2:] if len(kind.shape) == 3 else None
    for den in (fewstep.load(pipe, size=size), fewstep.load(folder / "theirs", size=size)):
        assert den.shape == kind.shape
        texts = {} if kind.cond.get("class_labels") else den.encode_texts("a cat")
        cond, run = {**texts, **kind.cond}, {"start": start(1, kind.shape), "guides": [CFG(kind.scale)]}
        out = sample(den, **run, plan=pipe.scheduler.plan, cond=cond)
        assert near(out.x, want)
        assert den.decode(out.x).shape == (1, *den.picture_shape)
    if texts:
        other = sample(den, **run, plan=pipe.scheduler.plan, cond={**cond, **den.encode_texts("no dog")})
        assert not near(other.x, want)
