"""The batch that fits a memory, from what a probe took."""

import pytest
import torch

from fewstep.generation import memory

MIB = 2**20


def drawing(each, asked):
    def run(count):
        asked.append(count)
        torch.ones(count * each // 4).sum()

    return run


@pytest.mark.skipif(not memory.Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux")
def test_the_peak_is_what_the_work_held():
    def hole_in_the_heap():
        """Leaves a hole, resident, that the next 50 MiB fit into: the block above it keeps it from the system."""
        once = torch.ones(31 * MIB // 4)
        del once  # from here on glibc takes blocks of 30 MiB from its heap
        hole, above = [torch.ones(30 * MIB // 4) for _ in range(4)], torch.ones(2 * MIB // 4)
        hole.clear()
        return above

    above = hole_in_the_heap()
    assert memory.peak_of(lambda: torch.ones(50 * MIB // 4).sum(), "cpu") == pytest.approx(50 * MIB, rel=0.2)
    assert len(above)


@pytest.mark.parametrize(("free", "batch"), [(10**12, 64), (700 * MIB, 8), (1, 1)])
def test_the_batch_takes_at_most_half_of_what_is_free(monkeypatch, free, batch):
    monkeypatch.setattr(memory, "peak_of", lambda work, device: (work(), 4 * 40 * MIB)[1])
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    asked = []
    assert memory.fitting_batch(drawing(1000, asked), "cpu") == batch
    assert asked == [1, 4]
    assert memory.fitting_batch(drawing(1000, asked), "cpu", sharing=2) == max(1, batch // (1 if batch == 64 else 2))


def test_a_probe_that_does_not_fit_is_halved(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**12)
    asked = []

    def run(count):
        asked.append(count)
        if count > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    assert memory.fitting_batch(run, "cpu") == 64
    assert asked == [1, 4, 1, 2, 1, 1]
    with pytest.raises(ValueError, match="own"):
        memory.fitting_batch(lambda count: (_ for _ in ()).throw(ValueError("its own")), "cpu")


def test_what_is_free_is_told():
    assert 2**20 < memory.free_bytes("cpu") < 2**50
