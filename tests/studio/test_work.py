"""What the studio's tabs do, without a browser."""

import os
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep
from fewstep.comparison import Compared, Comparison
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.studio import bounds, folders
from fewstep.studio.folders import new_folder
from fewstep.studio.guides import Chosen, offered
from fewstep.studio.models import Model, solvers_on
from fewstep.studio.watching import Done, Progress, Stopped, Stops, followed, watched
from fewstep.studio.work.contrasting import Contrast, comparison_html, contrasted, counts
from fewstep.studio.work.drawing import Draw, drawn
from fewstep.studio.work.mending import Mend, degrade_named, drawn_picture, mask_file, mended, restored_html
from fewstep.studio.work.refining import Refine, refined

MNIST = Model("mnist", told="3, 1")


def last(events):
    *_, end = events
    return end


@pytest.fixture
def run_code(tmp_path, monkeypatch, capsys):
    """Runs Python as a user would who pasted it, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda code: exec(compile(code, "pasted", "exec"), {"__name__": "pasted"})


def pixels(file):
    return np.asarray(Image.open(file))


def test_samples_are_those_of_fewstep_sample_and_previews_come_before():
    ask = Draw(MNIST, n=3, steps=4, guides=(Chosen.of("cfg", {"scale": 2.0}),), seed=5)
    events = list(drawn(ask, threading.Event()))
    out = fewstep.sample(
        fewstep.load("mnist"), 3, steps=4, guides=[fewstep.CFG(2.0)], cond={"label": [3, 1, 3]}, seed=5
    )
    assert torch.equal(events[-1].output.x, out.x)
    assert events[-1].output.stats.evaluations == out.stats.evaluations == 8
    assert events[-1].output.plan == events[0].plan == out.plan
    assert len([e for e in events if e.picture is not None]) >= 2
    assert [e.progress.share for e in events] == sorted(e.progress.share for e in events)


def test_a_preview_is_the_denoisers_belief_and_not_the_noisy_state():
    first = next(e for e in drawn(Draw(MNIST, n=1, steps=6), threading.Event()) if e.picture is not None)
    noisy = fewstep.sample(fewstep.load("mnist"), 1, steps=6, cond={"label": 3}, keep="trajectory").trajectory[1]
    rough = np.abs(np.diff(np.asarray(first.picture, float)[1:-1, 1:-1], axis=0)).mean()
    assert rough < 0.5 * float((noisy[0, 0].clamp(-1, 1) * 127.5).diff(dim=0).abs().mean())


@pytest.mark.parametrize(
    "ask",
    [
        Draw(MNIST, n=3, steps=3, seed=7, guides=(Chosen.of("cfg", {"interval.1": 0.9, "scale": 3.0}),)),
        Draw(Model("cifar10-latent", told="2"), n=2, solver="auto", grid="its own", steps=4),
    ],
    ids=["guided", "latent, tuned"],
)
def test_code_gives_the_same_picture(ask, tmp_path, run_code):
    out = last(drawn(ask, threading.Event())).output
    out.save(str(tmp_path / "seen.png"))
    run_code(ask.code())
    assert np.array_equal(pixels(tmp_path / "samples.png"), pixels(tmp_path / "seen.png"))


def test_a_stop_ends_the_run_after_the_step():
    stop, seen = threading.Event(), []
    for event in drawn(Draw(MNIST, n=1, steps=50), stop):
        seen.append(event)
        if event.picture is not None:
            stop.set()
    assert seen[-1].stopped
    assert seen[-1].output is None
    assert re.search(r"stopped after step \d of 50", seen[-1].progress.line)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Draw(n=65), "pictures must be a whole number from 1 to 64 here, got 65"),
        (lambda: Draw(steps=5000), "steps must be a whole number from 1 to 200 here, got 5000"),
        (lambda: Draw(steps=None), "got None"),
        (lambda: Draw(steps=2.5), "got 2.5"),
        (lambda: Draw(steps=float("inf")), "got inf"),
        (lambda: Draw(seed=-1), "seed must be"),
        (lambda: Contrast(solvers=()), "at least one solver"),
        (lambda: Contrast(solvers=("ddim",) * 7, evaluations=(3, 4, 5, 6, 7, 8)), "at most 36 runs"),
        (lambda: counts("4, x"), "whole numbers with commas"),
        (lambda: counts("4000"), "evaluations must be"),
        (lambda: Refine(evaluations=1), "from 2 to 64"),
        (lambda: Refine(samples=1000), "noises must be"),
        (lambda: Mend(Model(), "p", noise=float("nan")), "noise must be"),
        (lambda: degrade_named("blur", "1e9"), "from 0 to 64"),
        (lambda: degrade_named("smudge", ""), "unknown degradation"),
        (lambda: last(drawn(Draw(Model("nonsuch")), threading.Event())), "unknown model"),
        (lambda: last(drawn(Draw(Model("mnist", told="12")), threading.Event())), "classes 0 to 9"),
        (lambda: last(drawn(Draw(Model("mnist", told="x")), threading.Event())), "whole numbers with commas"),
        (lambda: last(drawn(Draw(solver="dmp"), threading.Event())), "unknown solver"),
        (lambda: Chosen.of("steered", {}), "unknown guide"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_evaluated(make, said):
    with pytest.raises(ArgumentError, match=re.escape(said)):
        make()


def test_pictures_of_a_latent_model_are_compared_as_they_are():
    model = Model("cifar10-latent")
    x = torch.rand(2, *model.load().picture_shape)
    result = Comparison([Compared("ddim", "logsnr", 4, 0.1, 0.1, x)], x, "100 steps of Heun", (-1.0, 1.0))
    shown = comparison_html(Contrast(model, n=2), result)
    assert shown.count('<img class="pixels"') == 2


def test_old_folders_go_and_the_rest_survives_what_others_remove(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_root", lambda: SimpleNamespace(name=str(tmp_path / "gone")))
    old, new = new_folder(), new_folder()
    os.utime(old, (0, 0))
    assert new_folder().parent == tmp_path / "gone"
    assert not old.exists()
    assert new.exists()


def test_pictures_with_too_many_numbers_are_refused():
    class Large:
        picture_shape = (3, 512, 512)

    bounds.fits(Large(), 4)
    with pytest.raises(ArgumentError, match="at most 4 of them fit"):
        bounds.fits(Large(), 5)


def test_every_solver_and_guide_that_is_offered_runs():
    den = fewstep.load("mnist")
    for solver in solvers_on(den.path):
        assert last(drawn(Draw(MNIST, n=1, solver=solver, steps=4), threading.Event())).output is not None, solver
    for name in offered():
        if name not in ("cads", "density-noise"):  # a condition of floats; a solver of one step
            ask = Draw(MNIST, n=1, solver="ddim", steps=2, guides=(Chosen.of(name, {}),))
            assert last(drawn(ask, threading.Event())).output is not None, name


def test_settings_of_guides_become_arguments():
    chosen = Chosen.of("higs", {"scale": 2.0, "window.0": 0.2, "cutoff": None})
    assert chosen.code() == "HiGS(scale=2.0, cutoff=None, window=(0.2, 1.0))"
    assert Chosen.of("cfg", {}).code() == "CFG(scale=2.0)"
    assert chosen.make().window == (0.2, 1.0)
    assert Chosen.of("self-guided-minority", {"every": 3.0}).code() == "SelfGuidedMinority(every=3)"
    with pytest.raises(ArgumentError, match="must not be empty"):
        Chosen.of("cfg", {"scale": None})


def test_a_model_of_texts_is_told_a_text():
    told = SimpleNamespace(null={}, encode_texts=lambda text: {"encoder_hidden_states": text})
    model = Model("folder", told="a cat")
    assert model.condition(told, 2) == {"encoder_hidden_states": "a cat"}
    assert model.condition_code(told, 2) == "den.encode_texts('a cat')"
    assert Model("folder").condition(told, 2) is None
    with pytest.raises(ArgumentError, match="has no classes and takes no texts"):
        model.condition(SimpleNamespace(null={}), 2)


def test_comparison_is_that_of_fewstep_compare(tiny):
    ask = Contrast(Model(tiny), ("ddim", "dpm-solver++"), evaluations=(5,), n=2)
    *progress, done = contrasted(ask, threading.Event())
    mine = fewstep.compare(fewstep.load(tiny), ["ddim", "dpm-solver++"], [5], n=2, cond={"label": [0, 1]})
    assert [row.error for row in done.value.rows] == [row.error for row in mine.rows]
    assert all(isinstance(p, Progress) for p in progress)
    page = comparison_html(ask, done.value)
    assert page.count("<tr>") == 4
    assert f"<b>{min(row.error for row in mine.rows):.3g}</b>" in page


def test_restoring_keeps_what_is_known_and_fills_the_rest(tmp_path, run_code):
    folder = new_folder()
    picture = drawn_picture(MNIST, 0, folder)
    bits = "".join("1" if 10 <= i // 28 < 16 else "0" for i in range(28 * 28))
    mask = mask_file(bits, (28, 28), folder)
    ask = Mend(Model("mnist"), picture, mask, noise=0.0, n=3, evaluations=8)
    done = last(mended(ask, threading.Event()))
    known = torch.tensor([bit == "0" for bit in bits]).reshape(28, 28)
    truth = torch.tensor(pixels(picture)).float() / 127.5 - 1
    assert (done.value.mean[0, 0] - truth)[known].abs().max() < 0.02
    assert done.value.std[0, 0][known].max() < 0.02
    assert done.value.std[0, 0][~known].max() > 0.1
    assert restored_html(ask, done.value).count("<figure>") == 5
    done.value.save(str(tmp_path / "seen.png"))
    for file in (picture, mask):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    run_code(ask.code())
    assert np.array_equal(pixels(tmp_path / "restored.png"), pixels(tmp_path / "seen.png"))


@pytest.mark.parametrize("bits", ["", "0" * 784, "1" * 784, "2" * 784, "01" * 10])
def test_a_mask_is_part_of_the_picture(bits):
    with pytest.raises(ArgumentError, match="paint"):
        mask_file(bits, (28, 28), new_folder())


def test_tuning_tells_how_far_it_is_and_its_code_finds_the_same_plan(tmp_path, tiny, run_code):
    ask = Refine(Model(tiny, told="0"), 3, "gits", 2)
    *progress, done = refined(ask, threading.Event())
    assert len(progress) >= 2
    run_code(ask.code())
    other = Plan.load(str(tmp_path / "tuned.json"))
    assert torch.equal(other.times, done.value.times)
    assert other.source["tuned"]["after"] == done.value.source["tuned"]["after"]


def test_work_is_stopped_at_the_networks_next_question():
    stop, den = threading.Event(), fewstep.load("mnist")
    asked = []
    mine = watched(den, stop, asked.append)
    x, t = torch.zeros(2, 1, 28, 28), torch.tensor(0.5)
    assert torch.equal(mine(x, t, label=torch.zeros(2).long()), den(x, t, label=torch.zeros(2).long()))
    assert asked == [2]
    stop.set()
    with pytest.raises(Stopped):
        mine(x, t, label=torch.zeros(2).long())
    assert "raw" not in vars(den)


@pytest.mark.parametrize("ask", [Contrast(n=1), Refine(method="gits")], ids=["compare", "tune"])
def test_long_work_can_be_stopped(ask):
    stop, work = threading.Event(), contrasted if isinstance(ask, Contrast) else refined
    began = time.monotonic()
    events = []
    for event in work(ask, stop):
        events.append(event)
        stop.set()
    assert events[-1] == Done(None)
    assert time.monotonic() - began < 30


def test_followed_hands_on_what_the_work_raised():
    def bad(tell):
        raise ArgumentError("no")

    with pytest.raises(ArgumentError, match="no"):
        list(followed(bad, threading.Event()))


def test_who_begins_again_stops_what_he_began_and_nobody_elses():
    stops = Stops()
    mine, other, tab = stops.begin("me", "tune"), stops.begin("you", "tune"), stops.begin("me", "sample")
    again = stops.begin("me", "tune")
    assert (mine.is_set(), other.is_set(), tab.is_set(), again.is_set()) == (True, False, False, False)
    stops.leave("me")
    assert again.is_set()
    assert tab.is_set()
    assert not other.is_set()
