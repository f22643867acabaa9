"""Noise belongs to (seed, sample, draw): the same whatever the batch, and standard normal."""

import math
import time
from itertools import product

import pytest
import torch
from scipy import stats

from fewstep.errors import ArgumentError
from fewstep.noise import GUIDE, START, STEP, BrownianNoise, ComfyUINoise, KeyedNoise, draw


def keyed(samples, shape=(3, 8, 8), seed=0, cls=KeyedNoise, dtype=torch.float64):
    return cls(seed, samples, shape, dtype, "cpu")


def test_a_row_is_the_same_whatever_the_batch_and_the_order():
    whole, alone = keyed(range(16)), keyed([5])
    for index in (0, 3, 200, 1):
        assert torch.equal(whole.step(index, 0, 1)[5:6], alone.step(index, 0, 1))
    assert torch.equal(whole.start()[5:6], alone.start())


def test_seeds_samples_draws_and_families_differ():
    keys = product((0, 1), (0, 2**63), (0, 1), (START, STEP, GUIDE))
    draws = [draw(seed, [i], (64,), d, kind) for seed, i, d, kind in keys]
    flat = torch.stack(draws).flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlation.abs().max() < 0.6


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 8, 8), (3, 33, 31)])
def test_standard_normal(shape):
    noise = keyed(range(50), shape)
    values = torch.cat([noise.step(i, 0, 1).flatten() for i in range(max(2, 40000 // (50 * math.prod(shape))))])
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-4
    pairs = noise.step(0, 0, 1).flatten(1)
    if pairs.shape[1] > 100:
        half = pairs.shape[1] // 2
        assert abs(float((pairs[:, :half] * pairs[:, half : 2 * half]).mean())) < 5 / math.sqrt(50 * half)


def test_brownian_increments_add_up_on_any_grid():
    lams = [-3.0, -1.0, 0.5, 2.0]
    clock = [math.exp(2 * v) for v in lams]
    fine, coarse = keyed(range(3), cls=BrownianNoise), keyed(range(3), cls=BrownianNoise)
    parts = sum(fine.step(i, lams[i], lams[i + 1]) * math.sqrt(clock[i + 1] - clock[i]) for i in range(len(lams) - 1))
    whole = coarse.step(0, lams[0], lams[-1]) * math.sqrt(clock[-1] - clock[0])
    assert torch.allclose(parts, whole, atol=1e-3 * math.sqrt(clock[-1]))


def test_brownian_increments_are_independent_and_normal():
    noise = keyed(range(200), cls=BrownianNoise)
    a, b = noise.step(0, -2.0, 0.0), noise.step(1, 0.0, 1.0)
    assert float(a.var()) == pytest.approx(1, abs=0.03)
    assert float(b.var()) == pytest.approx(1, abs=0.03)
    assert abs(float((a * b).mean())) < 0.03


@pytest.mark.parametrize(("seed", "samples"), [(-1, [0]), (2**64, [0]), (0.5, [0]), (True, [0]), (0, [-1]), (0, ["a"])])
def test_bad_keys(seed, samples):
    with pytest.raises(ArgumentError, match="integer"):
        keyed(samples, seed=seed)


def test_drawing_costs_at_most_three_times_one_randn_of_the_batch():
    """The best of many, in processor time: what else runs on the machine only ever adds."""

    def best(draw):
        times = []
        for _ in range(15):
            began = time.process_time()
            draw()
            times.append(time.process_time() - began)
        return min(times)

    for samples, shape in ((16, (3, 64, 64)), (64, (4, 32, 32))):
        source = keyed(range(samples), shape, dtype=torch.float32)
        counter = iter(range(10**6))
        ours = best(lambda source=source, counter=counter: source.step(next(counter), 0.0, 0.0))
        theirs = best(lambda samples=samples, shape=shape: torch.randn(samples, *shape))
        assert ours <= 3 * theirs, f"{ours / theirs:.2f} times"


class TestComfyUI:
    """What its nodes draw, written here as they draw it."""

    def test_the_start_is_one_draw_of_the_batch_and_batch_index_skips(self):
        whole = keyed(range(4), (4, 8, 8), 7, ComfyUINoise, torch.float32).start()
        assert torch.equal(whole, torch.randn(4, 4, 8, 8, generator=torch.manual_seed(7)))
        skipped = keyed(range(2, 4), (4, 8, 8), 7, ComfyUINoise, torch.float32).start()
        generator = torch.manual_seed(7)
        one_by_one = [torch.randn(1, 4, 8, 8, generator=generator) for _ in range(4)]
        assert torch.equal(skipped, torch.cat(one_by_one[2:]))

    def test_steps_draw_in_their_order_from_the_next_seed_and_a_run_begins_anew(self):
        noise = keyed(range(3), (2, 5), 7, ComfyUINoise)
        generator = torch.Generator().manual_seed(8)
        want = [torch.randn(3, 2, 5, generator=generator).double() for _ in range(3)]
        for _ in range(2):
            noise.prepare(3)
            for index, draw_ in zip((0, 4, 5), want, strict=True):
                assert torch.equal(noise.step(index, 0, 1), draw_)
        assert torch.equal(noise.guide(0), keyed(range(3), (2, 5), 7).guide(0))

    def test_a_row_depends_on_its_batch(self):
        """Why it is for reproduction alone."""
        whole, alone = (keyed(range(n), (2, 5), 7, ComfyUINoise) for n in (3, 1))
        pairs = [(one.step(0, 0, 1), one.step(1, 0, 1)) for one in (whole, alone)]
        assert not torch.equal(pairs[0][1][:1], pairs[1][1])

    def test_far_samples_and_the_last_seed(self):
        with pytest.raises(ArgumentError, match="at most 4096"):
            keyed([10**12], (2,), 0, ComfyUINoise).start()
        assert keyed([0], (2,), 2**64 - 1, ComfyUINoise).step(0, 0, 1).isfinite().all()
