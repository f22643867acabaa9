"""A write that fails leaves the old file whole and nothing beside it, whoever writes."""

import os
import stat

import pytest
import torch

from fewstep import VP, make_plan, sample, wrap
from fewstep.atomic import write_atomically
from fewstep.networks.weights import write_tensors
from fewstep.plan import Plan
from fewstep.solvers.empirical_statistics import ModelStatistics
from fewstep.solvers.tuned import read_tables, shipped_tables, write_tables

LAM = torch.tensor([-1.0, 1.0], dtype=torch.float64)


def plan(path, number):
    make_plan(VP(), "ddim", steps=number).save(path)
    return lambda: Plan.load(path).steps


def tables(path, number):
    write_tables(path, shipped_tables()[:number])
    return lambda: len(read_tables(path))


def statistics(path, number):
    ModelStatistics(LAM, *(torch.full((2,), float(number), dtype=torch.float64) for _ in range(3))).save(path)
    return lambda: int(ModelStatistics.load(path).l[0])


def picture(path, number):
    sample(wrap(lambda x, t: x, VP(), "x0", shape=(1, 2, 2)), steps=number).save(path)
    return lambda: path.read_bytes()


def tensors(path, number):
    write_tensors(path, {"w": torch.full((2,), float(number))}, {"format": "f", "version": 1})
    return lambda: path.read_bytes()


@pytest.mark.parametrize("write", [plan, tables, statistics, picture, tensors])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_beside_it(write, moment, tmp_path, monkeypatch):
    path = tmp_path / "file"
    read = write(path, 1)
    first = read()

    def full(*_):
        # By then the new bytes are on their way, and none of them in the old file.
        assert len(list(tmp_path.iterdir())) == 2
        raise OSError("no space left on device")

    monkeypatch.setattr(os, moment, full)
    with pytest.raises(OSError, match="no space left"):
        write(path, 2)
    monkeypatch.undo()
    assert read() == first
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    write(path, 2)
    assert read() != first
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_link_is_followed_and_keeps_pointing(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"one", b"two"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content


def test_what_is_no_file_is_written_as_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"content")
        assert os.read(reader, 99) == b"content"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_no_folder_is_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", b"")
    assert not (tmp_path / "missing").exists()
