"""At which step each band of frequencies is made: what Beta Sampling's U-shaped density of times rests on.

With X_i the Fourier transform of sample's i-th state and B a band of frequencies,

    change_i(B) = E Σ_{k ∈ B} |X_{i+1}(k) − X_i(k)|² / Σ_j E Σ_{k ∈ B} |X_{j+1}(k) − X_j(k)|².

Of the answers x̂₀ of natural pictures, low frequencies change most at the first steps and high ones at the last.
"""

import torch
from torch import Tensor

from fewstep.errors import ArgumentError


def spectral_change(states: Tensor, bands: int = 4) -> Tensor:
    """The share of each step in the whole change of each band of frequencies.

    Args:
        states: (steps, batch, *shape), at least two steps, such as `sample(…, keep="answers").answers`; the frequencies
            are those of the last axis of flat samples, or of the last two of pictures.
        bands: rings of equal width in |k|, lowest first; at least 2, and none may be empty.

    Returns:
        float64 (steps − 1, bands); every column sums to 1.

    Raises:
        ArgumentError: too few steps, or a band that holds no frequency.
    """
    if states.ndim < 3 or len(states) < 2:
        raise ArgumentError(f"states must be (steps, batch, *shape) with at least 2 steps, got {tuple(states.shape)}")
    if not isinstance(bands, int) or isinstance(bands, bool) or bands < 2:
        raise ArgumentError(f"bands must be an integer of at least 2, got {bands!r}")
    axes = (-1,) if states.ndim == 3 else (-2, -1)
    power = torch.fft.fftn(states.double().diff(dim=0), dim=axes).abs().square()
    squares = [torch.fft.fftfreq(states.shape[axis], dtype=torch.float64).square() for axis in axes]
    radius = (squares[0] if len(axes) == 1 else squares[0][:, None] + squares[1]).sqrt().flatten()
    ring = (radius / 0.5 * bands).long().clamp(max=bands - 1)
    if len(ring.unique()) < bands:
        raise ArgumentError(f"samples of shape {tuple(states.shape[2:])} have too few frequencies for {bands} bands")
    each = power.reshape(len(power), -1, len(ring)).mean(1)
    change = torch.stack([each[:, ring == b].sum(1) for b in range(bands)], 1)
    return change / change.sum(0)
