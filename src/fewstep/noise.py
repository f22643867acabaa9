"""Noise that belongs to (seed, sample, draw): counter-based, and the same whatever the batch.

Draw d of sample i under seed s is a piece of the Philox-4×64 stream with key (s, i), at (d·⌈size/8⌉, 0, 0, kind),
turned into normal numbers by Box and Muller, two from each 64-bit word:

    ξ = √(−2 log u₁)·(cos 2πu₂, sin 2πu₂),      u₁, u₂ uniform on (0, 1) with 23 and 32 bits.

Nothing is remembered between draws, so that any draw of any sample can be made again alone, on any device, in any
order.  Neighbouring draws stand next to one another in the stream, so that small ones are made together: opening a
stream costs more than filling a small draw.

`KeyedNoise` gives an independent draw a step.  `BrownianNoise` gives the increments of one Brownian path a sample: a
step from t to t′ then sees W(c(t′)) − W(c(t)) of the same path whatever the grid, so that 8 steps compare with 16.
`ComfyUINoise` draws a batch at once as ComfyUI does, only to make its pictures again: a row then depends on its batch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewstep.errors import ArgumentError

# Numbers that are made together: enough that opening a stream (8 µs) is small beside filling it.
TOGETHER = 16384
# A counter of Philox-4×64 gives four words, so eight numbers.
PER_COUNT = 8
START, STEP, TREE, GUIDE = range(4)
# Samples that ComfyUI's noise draws in vain at most; its own batches have 64.
MOST_SKIPPED = 4096


def _normals(raw: Tensor) -> Tensor:
    """Standard normal float32 numbers, two from each 64-bit word of the last axis; the words are used up."""
    words = raw.view(torch.int32)
    half = words.shape[-1] // 2
    radius = words[..., :half].bitwise_right_shift_(9).float().add_(2**22 + 0.5).mul_(2.0**-23)
    radius = radius.log_().mul_(-2).sqrt_()
    angle = words[..., half:].float().mul_(2 * math.pi * 2.0**-32)
    return torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], -1)


def draw(
    seed: int, samples: Sequence[int], shape: Sequence[int], index: int, kind: int = STEP, *, count: int = 1
) -> Tensor:
    """Draws `index` … `index + count − 1` of every sample: float32 (len(samples), count, *shape), on the host.

    Args:
        seed: any integer in [0, 2⁶⁴).
        samples: the numbers of the samples, each in [0, 2⁶⁴).
        shape: the shape of one sample.
        index: the number of the first draw, from 0.
        kind: which family of draws: START, STEP, TREE or GUIDE; families are independent.
        count: how many draws; the numbers do not depend on how many are made together.
    """
    size = math.prod(shape)
    room = -(-size // PER_COUNT)
    words = count * room * PER_COUNT // 2
    raw = np.empty((len(samples), count, words // count), np.int64)
    counter = np.array([index * room, 0, 0, kind], np.uint64)
    keys = np.array([(seed, sample) for sample in samples], np.uint64)
    for row, key in enumerate(keys):
        raw[row].reshape(-1)[:] = np.random.Philox(key=key, counter=counter).random_raw(words).view(np.int64)
    numbers = _normals(torch.from_numpy(raw))
    numbers = numbers if size % PER_COUNT == 0 else numbers[..., :size]
    return numbers.reshape(len(samples), count, *shape)


def check_key(seed: object, samples: Sequence[object]) -> None:
    """Refuse a seed or a sample number that is not an integer in [0, 2⁶⁴)."""
    for what, value in [("seed", seed), *(("sample number", s) for s in samples)]:
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < 2**64:
            raise ArgumentError(f"{what} must be an integer from 0 to 2**64 - 1, got {value!r}")


class KeyedNoise:
    """An independent standard normal draw for every (seed, sample, step).

    Args:
        seed: any integer in [0, 2⁶⁴).
        samples: the numbers of the samples; row i of what is drawn belongs to samples[i] alone.
        shape: the shape of one sample.
        dtype: the dtype of what is handed out; the numbers are the same for all, float32 rounded.
        device: where it is handed out; blocks are made on the host and moved whole.
    """

    def __init__(
        self, seed: int, samples: Sequence[int], shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> None:
        check_key(seed, samples)
        self.seed, self.samples, self.shape = seed, list(samples), tuple(shape)
        self.dtype, self.device = dtype, device
        self._together = max(1, TOGETHER // max(math.prod(shape), 1))
        self._wanted: int | None = None
        self._held: dict[int, tuple[int, tuple[Tensor, ...]]] = {}

    def _draw(self, index: int, kind: int) -> Tensor:
        """Draw `index`; steps are made and moved several at a time, guides' draws each alone."""
        first, held = self._held.get(kind, (0, ()))
        if not first <= index < first + len(held):
            count = 1
            if kind == STEP:
                left = self._together if self._wanted is None else max(1, self._wanted - index)
                count = min(self._together, left)
            made = draw(self.seed, self.samples, self.shape, index, kind, count=count)
            first, held = index, made.to(self.device, self.dtype).unbind(1)
            self._held[kind] = (first, held)
        return held[index - first]

    def start(self) -> Tensor:
        """The noise that the run starts from: (samples, *shape)."""
        return draw(self.seed, self.samples, self.shape, 0, START)[:, 0].to(self.device, self.dtype)

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """Draw number `index`; the two half-log-SNRs of the step do not matter here."""
        return self._draw(index, STEP)

    def prepare(self, count: int) -> None:
        """Say that a run makes `count` step draws; where the device is not the host, make them now.

        So the loop copies nothing.  At most 1 GiB is held; a run that needs more copies again each time that much is
        used up.
        """
        self._wanted = count
        if torch.device(self.device).type == "cpu" or count == 0:
            return
        size = len(self.samples) * math.prod(self.shape) * torch.finfo(self.dtype).bits // 8
        self._together = max(1, min(count, 2**30 // max(size, 1)))
        self._draw(0, STEP)

    def guide(self, index: int) -> Tensor:
        """Draw number `index` of the guides' own family."""
        return self._draw(index, GUIDE)


class BrownianNoise(KeyedNoise):
    """Normalised increments of one Brownian path a sample, so that grids of any fineness see the same path.

    The path is W(c) with the clock c = e^{2λ}, in which the noise of the exact reverse equation accumulates:

        ξ = (W(c′) − W(c))/√(c′ − c).

    W is found by halving the interval λ ∈ [−20, 20] down to 2⁻²⁰ of it, one keyed draw a halving; a step costs 20
    draws, and times beyond the interval stand at its ends.
    """

    REACH, DEPTH = 20.0, 20

    def __init__(
        self, seed: int, samples: Sequence[int], shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> None:
        super().__init__(seed, samples, shape, dtype, device)
        self._last: tuple[float, float, Tensor] | None = None

    def _node(self, number: int) -> Tensor:
        return draw(self.seed, self.samples, self.shape, number, TREE)[:, 0].double()

    def _value(self, lam: float) -> tuple[float, float, Tensor]:
        """(lam, clock, W) at the tree's point nearest below `lam`."""
        if self._last is not None and self._last[0] == lam:
            return self._last
        low, high = -self.REACH, self.REACH
        c_low, c_high = math.exp(2 * low), math.exp(2 * high)
        w_low = self._node(0) * math.sqrt(c_low)
        w_high = w_low + self._node(1) * math.sqrt(c_high - c_low)
        if lam >= self.REACH:
            return lam, c_high, w_high
        node = 1
        for _ in range(self.DEPTH):
            middle = (low + high) / 2
            c = math.exp(2 * middle)
            share = (c - c_low) / (c_high - c_low)
            spread = math.sqrt((c - c_low) * (c_high - c) / (c_high - c_low))
            w = w_low + share * (w_high - w_low) + spread * self._node(node + 1)
            if lam >= middle:
                low, c_low, w_low, node = middle, c, w, 2 * node + 1
            else:
                high, c_high, w_high, node = middle, c, w, 2 * node
        return lam, c_low, w_low

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """The normalised increment from half-log-SNR `lam` to `lam_next`.

        A step that does not go forward on the clock (a restart's jump up) gets an independent draw instead.
        """
        _, c, before = self._value(lam)
        self._last = _, c_next, after = self._value(lam_next)
        if c_next <= c:
            return self._draw(index, STEP)
        return ((after - before) / math.sqrt(c_next - c)).to(self.dtype).to(self.device)


def comfyui_generator(seed: int, device: torch.device | str) -> torch.Generator:
    """What ComfyUI draws the noise of steps from: on the CPU, where the start was drawn too, that of the next seed."""
    on_host = torch.device(device).type == "cpu"
    return torch.Generator(device).manual_seed((seed + on_host) % 2**64)


class ComfyUINoise(KeyedNoise):
    """ComfyUI's noise: from one generator a batch, so that row i depends on the batch and on the device.

    The start is one draw of (samples, *shape) from `torch.manual_seed(seed)` on the CPU; samples that do not begin at 0
    are drawn one by one after those before them, as its `batch_index` skips them.  Steps draw (samples, *shape) in
    their order on the run's device (`comfyui_generator`), as its ancestral samplers do; its SDE samplers take a
    Brownian tree of torchsde instead, which is not this.  Guides have the keyed draws of ours.
    """

    _generator: torch.Generator | None = None

    def start(self) -> Tensor:
        """The noise that the run starts from: (samples, *shape)."""
        generator, count, last = torch.Generator().manual_seed(self.seed), len(self.samples), max(self.samples)
        if self.samples == list(range(count)):
            return torch.randn(count, *self.shape, generator=generator).to(self.device, self.dtype)
        if last >= MOST_SKIPPED:
            raise ArgumentError(f"noise='comfyui' draws all samples before: at most {MOST_SKIPPED}, got number {last}")
        drawn = [torch.randn(1, *self.shape, generator=generator) for _ in range(last + 1)]
        return torch.cat([drawn[number] for number in self.samples]).to(self.device, self.dtype)

    def prepare(self, count: int) -> None:
        """Nothing is drawn ahead; the run's draws begin anew."""
        self._generator = comfyui_generator(self.seed, self.device)

    def step(self, index: int, lam: float, lam_next: float) -> Tensor:
        """The next draw, whichever its number."""
        if self._generator is None:
            self.prepare(0)
        return torch.randn(len(self.samples), *self.shape, generator=self._generator, device=self.device).to(self.dtype)
