"""A long run's samples, its folder, and what it does after a kill at any moment."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import fewstep
from fewstep import CFG, VP, generate, make_plan, sample, wrap
from fewstep.denoisers import Latent
from fewstep.errors import ArgumentError, NumericalError, ResourceError, StorageError
from fewstep.generation import manifest, verify
from fewstep.generation.fingerprint import fingerprint

FEWSTEP = str(Path(sys.executable).with_name("fewstep"))


class Net(torch.nn.Module):
    """Linear in x, another for every class."""

    def __init__(self, weight=0.5, most=99):
        super().__init__()
        self.weight, self.most = torch.nn.Parameter(torch.tensor(weight), requires_grad=False), most

    def forward(self, x, time, label):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.weight * x + 0.1 * label[:, None, None, None]


def model(weight=0.5, most=99):
    return wrap(Net(weight, most), VP(), "x0", shape=(3, 4, 4), null={"label": 2})


def run(out, count=11, den=None, **options):
    return generate(den or model(), count, out, **{"steps": 2, "shard": 4, "batch": 2, **options})


def contents(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.name != ".lock"}


def test_samples_are_those_of_sample_with_classes_in_turn(tmp_path):
    made = run(tmp_path, seed=7, guides=[CFG(2.0)], shard=5)
    assert (made.samples, made.made, made.shards) == (11, 11, 3)
    shards = [load_file(file) for file in sorted(tmp_path.glob("*.safetensors"))]
    assert [len(s["x"]) for s in shards] == [5, 5, 1]
    labels = torch.cat([s["label"] for s in shards])
    assert labels.tolist() == [i % 2 for i in range(11)]
    want = sample(model(), 11, steps=2, seed=7, guides=[CFG(2.0)], cond={"label": labels}).x
    assert torch.equal(torch.cat([s["x"] for s in shards]), want)
    about = json.loads((tmp_path / "manifest.json").read_text())
    assert about["plan"]["hash"] == json.loads(fewstep.plan.files.dumps(make_plan(VP(), steps=2)))["hash"]
    assert (about["seed"], about["batch"], about["dtype"]) == (7, 2, "float32")
    assert {"fewstep", "torch", "numpy", "python"} == set(about["versions"])
    assert [s["batches"] for s in about["shards"]] == [[[2, 2], [1, 1]], [[2, 2], [1, 1]], [[1, 1]]]


def test_pictures_are_the_samples_in_bytes_with_the_class_beside(tmp_path):
    den = Latent(model(), lambda x: x, lambda z: 2 * z, (3, 4, 4))
    run(tmp_path, den=den, files="png", cond={"label": 1})
    entries = {}
    for file in sorted(tmp_path.glob("shard-*.tar")):
        with tarfile.open(file) as tar:
            entries |= {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    assert sorted(entries) == sorted(f"{i:09d}.{e}" for i in range(11) for e in ("png", "label"))
    x = sample(model(), 11, steps=2, cond={"label": 1}).x
    for i in range(11):
        picture = np.asarray(Image.open(io.BytesIO(entries[f"{i:09d}.png"])))
        want = ((2 * x[i] + 1) / 2 * 255).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(picture - want).max() <= 0.51
        assert entries[f"{i:09d}.label"] == b"1"


def killed_at(moment, out):
    """Run in a child that dies as by kill −9 at its moment-th call of fsync or replace; whether it lived to the end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    left = [moment]

    def dying(call):
        def count(*arguments):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return count

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    status = 1
    try:
        run(out)
        status = 0
    finally:
        os._exit(status)


def test_killed_before_every_single_write_it_ends_with_the_same_bytes(tmp_path):
    run(tmp_path / "whole")
    want, moment = contents(tmp_path / "whole"), 0
    while not killed_at(moment, tmp_path / str(moment)):
        run(tmp_path / str(moment))
        assert contents(tmp_path / str(moment)) == want, moment
        moment += 1
    assert moment == 21  # manifest 3, journal 3, three shards of 3 and 1, manifest 3


def test_killed_again_and_again_in_one_folder(tmp_path):
    run(tmp_path / "whole")
    for moment in (2, 5, 9, 4, 6):
        killed_at(moment, tmp_path / "torn")
    run(tmp_path / "torn")
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_kill_of_the_command(tmp_path):
    """The command itself, killed by the system when some shards stand."""
    options = ["--count", "40", "--steps", "2", "--shard", "4", "--batch", "4", "--seed", "3"]
    command = [FEWSTEP, "generate", *options, "--out"]
    for _ in range(5):  # a busy machine may let the command end before this process sees the second shard
        shutil.rmtree(tmp_path / "torn", ignore_errors=True)
        process = subprocess.Popen([*command, str(tmp_path / "torn")], stderr=subprocess.DEVNULL)
        while not (tmp_path / "torn" / "shard-0000001.safetensors").exists() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
        if (tmp_path / "torn" / "journal.jsonl").exists():
            break
    assert (tmp_path / "torn" / "journal.jsonl").exists()
    done = subprocess.run([*command, str(tmp_path / "torn")], check=True, capture_output=True, text=True)
    assert "40 samples in 10 shards" in done.stdout
    assert "40/40 samples" in done.stderr
    generate("mnist", 40, tmp_path / "whole", steps=2, shard=4, batch=4, seed=3)
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_a_line_that_a_kill_tore_is_thrown_away(tmp_path):
    run(tmp_path / "whole")
    for torn in ('{"index": 1, "fir', '{"index": 1}\n', "\x00\x00\n"):
        killed_at(12, tmp_path / "torn")
        with open(tmp_path / "torn" / "journal.jsonl", "a") as file:
            file.write(torn)
        run(tmp_path / "torn")
        assert contents(tmp_path / "torn") == contents(tmp_path / "whole")
        (tmp_path / "torn" / "manifest.json").unlink()
        for shard in (tmp_path / "torn").glob("shard-*"):
            shard.unlink()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"plan": make_plan(VP(), steps=3), "steps": None}, "plan was dpm-solver"),
        ({"den": model(0.25)}, "model was"),
        ({"count": 12}, "count was 11 and is 12"),
        ({"batch": 4}, "batch was 2 and is 4"),
        ({"shard": 2}, "shard was 4 and is 2"),
        ({"cond": {"label": 0}}, "cond was"),
        ({"guides": [CFG(3.0)]}, "guides was"),
        ({"files": "png"}, "files was"),
        ({"dtype": torch.float64}, "dtype was"),
    ],
)
def test_another_run_is_refused_and_nothing_is_touched(tmp_path, changed, said):
    run(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ArgumentError, match=said):
        run(tmp_path, **changed)
    assert contents(tmp_path) == before


def test_another_version_or_machine_is_refused(tmp_path, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(torch, "__version__", "0.1")
    with pytest.raises(ArgumentError, match="versions was"):
        run(tmp_path)


def test_sizes_that_were_left_open_are_those_of_the_folder(tmp_path):
    killed_at(12, tmp_path / "torn")
    made = run(tmp_path / "torn", shard=None, batch=None)
    assert made.batches == (2,)
    run(tmp_path / "whole")
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_two_processes_do_not_share_a_folder(tmp_path):
    with manifest.locked(tmp_path), pytest.raises(StorageError, match="another process"):
        run(tmp_path)
    run(tmp_path)


@pytest.mark.parametrize("moment", range(0, 14))
def test_a_full_disk_ends_it_cleanly(tmp_path, monkeypatch, moment):
    left, fsync = [moment], os.fsync

    def full(handle):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="is full"):
            run(tmp_path / "torn")
    assert not list((tmp_path / "torn").glob(".*.*"))  # no temporary file is left
    run(tmp_path / "torn")
    run(tmp_path / "whole")
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            run(tmp_path)
    finally:
        if root:
            os.seteuid(0)
    assert not list(tmp_path.iterdir())


def test_verify_sees_every_kind_of_damage(tmp_path):
    run(tmp_path)
    assert verify(tmp_path).whole
    first, second = sorted(tmp_path.glob("shard-*"))[:2]
    whole = first.read_bytes()
    for data, said in [
        (whole[:-1] + bytes([whole[-1] ^ 1]), "was changed"),
        (whole[:-1], "bytes instead of"),
        (None, "cannot be read"),
    ]:
        first.unlink() if data is None else first.write_bytes(data)
        found = verify(tmp_path)
        assert not found.whole
        assert said in str(found)
    first.write_bytes(whole)
    (tmp_path / "shard-0000009.safetensors").write_bytes(b"")
    assert "no shard of this run" in str(verify(tmp_path))
    (tmp_path / "shard-0000009.safetensors").unlink()
    second.write_bytes(whole)
    assert "was changed" in str(verify(tmp_path))


def test_verify_reads_the_manifest(tmp_path):
    with pytest.raises(StorageError, match="holds no run"):
        verify(tmp_path)
    run(tmp_path)
    file = tmp_path / "manifest.json"
    text = file.read_text()
    for broken in (text.replace('"seed": 0', '"seed": 1'), text[:-40], "[]", "null", "{}", "[" * 99999):
        file.write_text(broken)
        with pytest.raises(StorageError):
            verify(tmp_path)
        with pytest.raises(StorageError):
            run(tmp_path)
    about, records = (file.write_text(text), manifest.load(tmp_path))[1]
    for odd in ({**about, "shard": 0}, {**about, "files": []}, {k: v for k, v in about.items() if k != "plan"}):
        manifest.save(tmp_path, odd, records)
        with pytest.raises(StorageError, match="not a whole manifest"):
            verify(tmp_path)
    manifest.save(tmp_path, about, [*records[:2], records[1]])
    assert "told twice" in str(verify(tmp_path))


def test_an_unfinished_run_is_not_whole(tmp_path):
    killed_at(12, tmp_path)
    found = verify(tmp_path)
    assert (found.shards, found.of, found.whole, found.faults) == (1, 3, False, ())
    assert "makes the rest" in str(found)


def test_a_lost_shard_is_made_again_and_must_come_out_the_same(tmp_path):
    run(tmp_path)
    before, shard = contents(tmp_path), tmp_path / "shard-0000001.safetensors"
    shard.unlink()
    assert run(tmp_path).made == 4
    assert contents(tmp_path) == before
    about, records = manifest.load(tmp_path)
    records[1] = manifest.as_record({**vars(records[1]), "sha256": "0" * 64})
    manifest.save(tmp_path, about, records)
    shard.unlink()
    with pytest.raises(StorageError, match="came out otherwise"):
        run(tmp_path)


def test_short_memory_halves_the_batch_and_keeps_the_noises(tmp_path):
    made = run(tmp_path / "short", den=model(most=3), batch=8, shard=8)
    assert made.batches == (2,)
    about = json.loads((tmp_path / "short" / "manifest.json").read_text())
    assert [s["batches"] for s in about["shards"]] == [[[2, 4]], [[2, 1], [1, 1]]]
    x = torch.cat([load_file(f)["x"] for f in sorted((tmp_path / "short").glob("*.safetensors"))])
    assert torch.equal(x, sample(model(), 11, steps=2, cond={"label": [i % 2 for i in range(11)]}).x)
    for batch in (2, None):  # given, or to be measured
        with pytest.raises(ResourceError, match="one sample"):
            run(tmp_path / "none", den=model(most=0), batch=batch)


def test_an_error_of_the_network_is_not_taken_for_short_memory(tmp_path):
    with pytest.raises(NumericalError):
        run(tmp_path, den=model(float("nan")))
    assert not list(tmp_path.glob("shard-*"))


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": 2.5}, {"count": 10**30}, {"shard": -1}, {"batch": True}, {"seed": -1}, {"seed": "x"},
     {"files": "jpg"}, {"steps": 2, "plan": make_plan(VP(), steps=2)}, {"cond": {"label": []}}, {"engine": "dask"},
     {"address": "auto"}, {"workers": 2}, {"steps": None, "evaluations": "5"}, {"device": "none"}, {"device": None},
     {"dtype": torch.int64}, {"dtype": "float32"}, {"cond": [1]}, {"cond": {1: 1}}, {"cond": {"label": 2**70}},
     {"cond": {"label": ["a", "b"]}}, {"cond": {"label": [0.5]}}, {"guides": 3}, {"guides": [1]}, {"grid": "karas"},
     {"plan": "x", "steps": None}, {"plan": make_plan(VP(), steps=2), "steps": None, "solver": "heun"},
     {"plan": make_plan(VP(), steps=2), "steps": None, "grid": "karras"}, {"progress": 1}, {"files": []},
     {"plan": make_plan(fewstep.Flow(), steps=2), "steps": None}, {"count": 10**13, "shard": 10**13}],
)  # fmt: skip
@pytest.mark.parametrize("batch", [2, None])
def test_bad_arguments_are_refused_before_the_folder_is_made(tmp_path, wrong, batch):
    with pytest.raises(ArgumentError):
        run(tmp_path / "new", **{"batch": batch, **wrong})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("out", [None, 3, b"new", "new\0"])
def test_what_is_no_folder_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    for call in (run, verify):
        with pytest.raises(ArgumentError, match="out must be"):
            call(out)
    assert not list(tmp_path.iterdir())


def test_numpys_whole_numbers_and_arrays_are_taken(tmp_path):
    run(tmp_path / "plain", seed=3, cond={"label": [1, 0, 1]})
    run(tmp_path / "numpy", seed=np.int64(3), cond={"label": np.array([1, 0, 1])})
    assert contents(tmp_path / "plain") == contents(tmp_path / "numpy")


def test_classes_are_dealt_under_the_networks_own_name(tmp_path):
    net = Net()
    den = wrap(lambda x, time, class_labels: net(x, time, class_labels), VP(), "x0", shape=(3, 4, 4),
               null={"class_labels": 3})  # fmt: skip
    run(tmp_path, den=den)
    labels = torch.cat([load_file(f)["class_labels"] for f in sorted(tmp_path.glob("*.safetensors"))])
    assert labels.tolist() == [i % 3 for i in range(11)]


def test_a_folder_without_locks_is_refused_in_our_words(tmp_path, monkeypatch):
    def none(handle, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(manifest.fcntl, "flock", none)
    with pytest.raises(StorageError, match="No locks available"):
        run(tmp_path)


def test_a_journal_without_a_manifest_is_left_alone(tmp_path):
    killed_at(12, tmp_path)
    for file in [tmp_path / "manifest.json", *tmp_path.glob("shard-*")]:
        file.unlink()
    before = contents(tmp_path)
    with pytest.raises(StorageError, match="no manifest"):
        run(tmp_path, seed=5)
    assert contents(tmp_path) == before


def test_shards_without_a_manifest_are_left_alone(tmp_path):
    (tmp_path / "shard-0000000.safetensors").write_bytes(b"mine")
    with pytest.raises(StorageError, match="no manifest"):
        run(tmp_path)
    assert (tmp_path / "shard-0000000.safetensors").read_bytes() == b"mine"


SCALE = 2.0


def scaled(x):
    return x * SCALE


class Attribute(Net):
    """A network with numbers that are no parameters."""

    def __init__(self, gain=2.0, shift=0.0):
        super().__init__()
        self.gain = gain
        self.register_buffer("shift", torch.tensor(shift), persistent=False)


def test_fingerprints_see_what_is_no_parameter(monkeypatch):
    def of(gain=2.0, shift=0.0):
        return fingerprint(wrap(torch.nn.Sequential(Attribute(gain, shift)), VP(), "x0", shape=(3, 4, 4)))

    assert of() == of()
    assert len({of(), of(gain=3.0), of(shift=1.0)}) == 3
    members = [fingerprint(eval(f"lambda x: x in {{'a', {last!r}}}")) for last in "bbc"]
    assert members[0] == members[1] != members[2]

    def keyword(default):
        def net(x, *, gain=default):
            return x * gain

        return net

    assert fingerprint(keyword(1.0)) == fingerprint(keyword(1.0)) != fingerprint(keyword(2.0))
    before = [fingerprint(scaled), fingerprint(lambda x: scaled(x))]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert not {*before} & {fingerprint(scaled), fingerprint(lambda x: scaled(x))}


def test_fingerprints_see_numbers_and_code_and_nothing_else():
    same = [fingerprint(model()), fingerprint(model())]
    assert same[0] == same[1]
    one, two = 1.0, 2.0
    others = [
        fingerprint(model(0.25)), fingerprint(Latent(model(), lambda x: x, lambda z: z, (3, 4, 4))),
        fingerprint(lambda x: x + one), fingerprint(lambda x: x + two), fingerprint(lambda x: x - one),
        fingerprint(torch.zeros(2)), fingerprint(torch.zeros(2, dtype=torch.float64)), fingerprint(torch.zeros(1, 2)),
    ]  # fmt: skip
    assert len({*same, *others}) == 9
    code = (
        "import fewstep; from fewstep.generation.fingerprint import fingerprint as f; print(f(fewstep.load('mnist')))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    assert told == fingerprint(fewstep.load("mnist"))
