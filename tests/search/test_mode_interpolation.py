"""The filter against mode interpolation: on an exact denoiser that is smoothed as a network would smooth it."""

import numpy as np
import pytest
import torch

from fewstep import VP, sample, wrap
from fewstep.errors import ArgumentError
from fewstep.search import RandomSearch
from fewstep.search.mode_interpolation import Reject, mind_changes
from fewstep.worlds import GaussianMixture

MODES = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
PATH = VP.from_betas(torch.linspace(0.001, 0.2, 1000, dtype=torch.float64))
WORLD = GaussianMixture([1.0] * 3, MODES, torch.full((3, 1), 0.05**2)).denoiser(PATH)


def smoothed(width):
    """E over ξ of x̂₀(x + width·ξ): the step between two modes, rounded.  Read off a fine table a level."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    nodes, weights = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    places = torch.linspace(-6, 9, 1501, dtype=torch.float64)

    def x0(x, t):
        near = places + width * nodes[:, None]
        answers = WORLD(near.reshape(-1, 1), t[0]).reshape(near.shape)
        return torch.from_numpy(np.interp(x.numpy(), places.numpy(), (weights @ answers).numpy()))

    return wrap(x0, PATH, "x0", shape=(1,), time="t")


def doubtful(x):
    return (x - MODES.T).abs().min(1).values > 6 * 0.05


def test_the_variance_by_hand():
    answers = torch.tensor([[5.0, 5.0], [1.0, 2.0], [3.0, 2.0]]).reshape(3, 2, 1)
    assert torch.allclose(mind_changes(answers, 2), torch.tensor([1.0, 0.0]))
    assert torch.allclose(mind_changes(answers, 3), torch.tensor([8 / 3, 2.0]))


def test_a_smoothed_denoiser_invents_samples_between_neighbours_and_the_filter_drops_them():
    # Only the last levels tell the two apart, so the way there may be short.
    times = torch.cat([torch.linspace(1, 0.06, 30), torch.linspace(0.059, 0.001, 59), torch.zeros(1)]).double()
    options = {"solver": "ddpm", "grid": times, "dtype": torch.float64, "seed": 1}
    clean = sample(WORLD, 1000, **options).x
    net = smoothed(0.12)
    out = sample(net, 6000, keep="answers", **options)
    bad = doubtful(out.x)
    assert not bool(doubtful(clean).any())
    assert int(bad.sum()) >= 8
    assert bool(((out.x[bad] > 1) & (out.x[bad] < 3)).all())
    changes = mind_changes(out.answers)
    assert float((changes[bad] > changes.quantile(0.96)).double().mean()) > 0.6
    kept = sample(net, 480, reject=Reject(0.96), **options)
    small = changes[:500].argsort()[:480].sort().values
    assert torch.allclose(kept.x, out.x[:500][small])
    assert [number for _, number in kept.seeds] == sorted({number for _, number in kept.seeds})
    again = sample(net, 1, first=kept.seeds[7][1], **options)
    assert torch.allclose(again.x[0], kept.x[7])
    assert kept.stats.evaluations == -(-out.stats.evaluations * 500 // 480)


def test_conditions_are_dealt_out_and_all_may_be_kept():
    den = wrap(lambda x, t, z: x + z[:, None], VP(), "x0", shape=(1,))
    out = sample(den, 4, reject=Reject(0.5, 2), steps=3, cond={"z": [1, 2, 3, 4]})
    assert out.x.shape == (4, 1)
    whole = sample(den, 4, reject=Reject(1.0, 2), steps=3, cond={"z": [1, 2, 3, 4]})
    assert torch.equal(whole.x, sample(den, 4, steps=3, cond={"z": [1, 2, 3, 4]}).x)


def test_bad_arguments():
    for name, bad in (("kept", 0.0), ("kept", 1.5), ("window", 1), ("window", 2.5)):
        with pytest.raises(ArgumentError, match=name):
            Reject(**{name: bad})
    with pytest.raises(ArgumentError, match="window"):
        sample(WORLD, 2, steps=3, reject=Reject())
    for rows in ([1, 2, 3], torch.arange(3)):
        with pytest.raises(ArgumentError, match="3 rows for 4 samples"):
            sample(WORLD, 4, steps=3, reject=Reject(0.5, 2), cond={"z": rows})
    with pytest.raises(ArgumentError, match="start"):
        sample(WORLD, start=torch.zeros(2, 1), reject=Reject())
    for mistaken in ({"search": Reject()}, {"reject": RandomSearch(lambda x: x.flatten(1).sum(1))}):
        with pytest.raises(ArgumentError, match=r"must be a (search of fewstep\.search|filter such as Reject)"):
            sample(WORLD, 2, steps=12, **mistaken)
    with pytest.raises(ArgumentError, match="reject must be a filter"):
        sample(WORLD, 2, reject=0.96)
