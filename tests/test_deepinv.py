"""Denoisers of deepinv as ours and ours as theirs: the exact answer at the same noise in other units."""

import pytest
import torch

from fewstep import VE, VP, Flow, sample
from fewstep.deepinv import from_deepinv, to_deepinv
from fewstep.errors import ArgumentError
from fewstep.worlds import Gaussian

MEAN, SPREAD = 0.2, 0.3
WORLD = Gaussian(torch.full((4,), MEAN, dtype=torch.float64), SPREAD**2 * torch.eye(4, dtype=torch.float64))


def exact(y, sigma):
    """E[x | y] in [0, 1] of the same Gaussian there: mean (0.2 + 1)/2, deviation 0.3/2."""
    sigma = torch.as_tensor(sigma, dtype=y.dtype).reshape(-1, 1)
    gain = (SPREAD / 2) ** 2 / ((SPREAD / 2) ** 2 + sigma**2)
    return 0.6 + gain * (y - 0.6)


def noisy(n=5):
    return torch.rand(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("path", [VP(), VE(), Flow()], ids=lambda p: p.kind)
@pytest.mark.parametrize("sigma", [0.03, 0.4, torch.tensor([0.01, 0.1, 0.2, 0.5, 1.0])], ids=["low", "high", "each"])
def test_ours_as_theirs(path, sigma):
    module = to_deepinv(WORLD.denoiser(path))
    assert isinstance(module, torch.nn.Module)
    assert torch.allclose(module(noisy(), sigma), exact(noisy(), sigma), rtol=1e-6)


@pytest.mark.parametrize("path", [None, VP(), Flow()], ids=["ve", "vp", "flow"])
def test_theirs_as_ours(path):
    asked = []
    den = from_deepinv(lambda y, sigma: asked.append(sigma.shape) or exact(y, sigma), (4,), path)
    own = WORLD.denoiser(den.path)
    x = 2 * noisy() - 1
    for t in (0.2, 0.7, torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])[:, None]):
        assert torch.allclose(den(x, t), own(x, t), rtol=1e-6)
    assert set(asked) == {(5,)}
    options = {"steps": 6, "start": x * den.path.sigma(1.0) if path is None else x}
    grid = {} if path is None else {"grid": torch.linspace(0.95, 0, 7, dtype=torch.float64)}
    options = options if path is None else {"start": x}
    assert torch.allclose(sample(den, **options, **grid).x, sample(own, **options, **grid).x, rtol=1e-6)


def test_where_there_is_no_data_it_cannot_be_asked():
    den = from_deepinv(exact, (4,), Flow())
    with pytest.raises(ArgumentError, match="below t = 1"):
        sample(den, 2, steps=4)


def test_there_and_back_is_the_same():
    den = WORLD.denoiser(VP())
    again = from_deepinv(to_deepinv(den), (4,), VP())
    assert torch.allclose(again(noisy(), 0.4), den(noisy(), 0.4), rtol=1e-9)


def test_the_weights_are_theirs_to_see():
    import fewstep

    net = torch.nn.Linear(4, 4)
    module = to_deepinv(fewstep.wrap(lambda x, t: net(x), VP(), "x0", shape=(4,)))
    assert not list(module.parameters())

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x, t):
            return self.inner(x)

    assert len(list(to_deepinv(fewstep.wrap(Net(), VP(), "x0", shape=(4,))).parameters())) == 2


def test_bad_arguments():
    module = to_deepinv(WORLD.denoiser(VP()))
    with pytest.raises(ArgumentError, match="shape"):
        module(torch.zeros(2, 3), 0.1)
    for bad in (-0.1, torch.tensor([0.1, 0.2]), float("nan")):
        with pytest.raises(ArgumentError, match="sigma"):
            module(noisy(), bad)
    with pytest.raises(ArgumentError, match="denoiser"):
        to_deepinv(lambda x, s: x)
    with pytest.raises(ArgumentError, match="callable"):
        from_deepinv(3, (4,))
    with pytest.raises(ArgumentError, match="limits"):
        from_deepinv(exact, (4,), limits=(1.0, 0.0))
    with pytest.raises(ArgumentError, match="answered with shape"):
        from_deepinv(lambda y, sigma: y[:, :2], (4,))(noisy(), 0.5)
