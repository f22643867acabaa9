"""Contrastive energy prediction against mixtures whose intermediate energy is known exactly."""

import math

import pytest
import torch

from fewstep import VP, Flow, make_plan, sample
from fewstep.errors import ArgumentError
from fewstep.guidance import EnergyNetwork, train_energy
from fewstep.guidance.contrastive_energy import ContrastiveEnergy, energy_loss
from fewstep.worlds import Gaussian, GaussianMixture

PATH = VP()
CENTRE, WIDTH = 1.2, 0.6
# A known case: −∂E_t/∂x at these places at λ = 0.2, exact and of E[E | x_t].
PLACES, EXACT, AVERAGED = (-1.0, 0.3, 1.5), (3.3935, 0.7574, -0.4872), (4.1188, 3.2688, -0.9680)


def world_and_target():
    world = GaussianMixture([0.5, 0.3, 0.2], torch.tensor([[-1.5], [0.5], [2.0]]), torch.tensor([[0.2], [0.1], [0.4]]))
    return world, world.posterior(torch.eye(1), torch.tensor([CENTRE]), WIDTH)


def energy(x0):
    return 0.5 * (x0[..., 0] - CENTRE).square() / WIDTH**2


def slope_at(value, places=PLACES):
    x = torch.tensor(places, dtype=torch.float64)[:, None].requires_grad_()
    return torch.autograd.grad(value(x).sum(), x)[0][:, 0]


@pytest.mark.parametrize("path", [VP(), Flow()], ids=lambda p: p.kind)
def test_the_exact_energy_makes_the_tilted_sampler(path):
    world, target = world_and_target()

    def value(x, t):
        return target.log_density(x, path, t) - world.log_density(x, path, t)

    options = {"steps": 8, "seed": 1, "dtype": torch.float64}
    got = sample(world.denoiser(path), 16, guides=[ContrastiveEnergy(value, interval=(0, 1))], **options).x
    want = sample(target.denoiser(path), 16, **options).x
    # On the flow the run begins where α = 0 and the gradient is a limit, met up to e^{−8}.
    assert torch.allclose(got, want, atol=1e-8 if path == VP() else 2e-3)
    half = sample(world.denoiser(path), 16, guides=[ContrastiveEnergy(value, 0.5)], **options).x
    assert (half - want).abs().max() > 0.1


def best_of_a_kind(kind, count=30_000):
    """The gradient at PLACES of the function that one loss prefers at λ = 0.2, among smooth ones."""
    world, _ = world_and_target()
    t = PATH.t_of_lam(torch.tensor(0.2, dtype=torch.float64))
    x0 = world.sample(count, seed=1)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = PATH.alpha(t) * x0 + PATH.sigma(t) * noise
    centres = torch.linspace(-4, 4, 15, dtype=torch.float64)
    constant = [] if kind == "contrastive" else [torch.ones(1)]

    def features(x):
        near = torch.exp(-0.5 * (x - centres).square() / 0.8**2)
        return torch.cat([near, x, x.square(), *(c.double().expand(len(x), 1) for c in constant)], 1)

    seen, logs = features(x), -energy(x0)[None]
    weights = torch.zeros(seen.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=80, line_search_fn="strong_wolfe")

    def lowered():
        optimiser.zero_grad()
        loss = energy_loss((seen @ weights)[None], logs, kind) + 1e-9 * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(lowered)
    return slope_at(lambda x: features(x) @ weights.detach())


def test_the_contrastive_loss_finds_the_exact_energy_and_the_mean_squared_error_another():
    world, target = world_and_target()
    t = PATH.t_of_lam(torch.tensor(0.2, dtype=torch.float64))
    exact = slope_at(lambda x: target.log_density(x, PATH, t) - world.log_density(x, PATH, t))
    assert torch.allclose(exact, torch.tensor(EXACT, dtype=torch.float64), atol=2e-4)
    assert torch.allclose(best_of_a_kind("contrastive"), exact, rtol=0.1, atol=0.08)
    assert torch.allclose(best_of_a_kind("mse"), torch.tensor(AVERAGED, dtype=torch.float64), rtol=0.1, atol=0.08)


def test_the_energy_of_the_answer_is_another_function():
    """E(x̂₀), as DPS has it: known values at the same places, far from the exact ones."""
    world, _ = world_and_target()
    t = PATH.t_of_lam(torch.tensor(0.2, dtype=torch.float64))
    slope = slope_at(lambda x: -energy(world.denoise(x, PATH, t)))
    assert torch.allclose(slope, torch.tensor((4.9057, 2.5129, -1.1101), dtype=torch.float64), atol=2e-4)


def test_losses_in_closed_form():
    logs = torch.tensor([[0.0, -1.0, -3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    values = torch.tensor([[0.2, 0.1, 0.0], [2.0, 0.0, 1.0]], dtype=torch.float64)
    by_hand = torch.nn.functional.cross_entropy(values, logs.softmax(1))
    assert torch.allclose(energy_loss(values, logs), by_hand)
    assert torch.allclose(energy_loss(values + 5, logs - 7), by_hand)
    entropy = -(logs.softmax(1) * logs.log_softmax(1)).sum(1).mean()
    assert torch.allclose(energy_loss(logs + 3, logs), entropy)
    assert float(energy_loss(logs, logs, "mse")) == 0
    assert float(energy_loss(logs.log_softmax(1) + math.log(3), logs, "exponential")) == pytest.approx(0, abs=1e-20)
    assert float(energy_loss(logs[1:] * 0, logs[1:], "exponential")) == pytest.approx(0, abs=1e-20)


def test_training_with_a_condition_learns_the_closed_form():
    """x₀ ~ N(0, 1) and E = −c·x₀: f is β·c·α·x and a constant."""

    def groups(generator):
        x0, c = torch.randn(8, 64, 1, generator=generator), 2 * torch.rand(8, 1, generator=generator) - 1
        return x0, -(c[..., None] * x0)[..., 0], {"c": c}

    torch.manual_seed(0)
    net = train_energy(EnergyNetwork(1, {"c": 1}, 32, 2), PATH, groups, strength=1.5, steps=400, rate=5e-3)
    t = PATH.t_of_lam(torch.tensor(1.0, dtype=torch.float64))
    for c in (-0.8, 0.5):
        told = torch.full((3, 1), c, dtype=torch.float64)
        want = torch.full((3,), 1.5 * c * float(PATH.alpha(t)), dtype=torch.float64)
        got = slope_at(lambda x, told=told: net(x, t, c=told).double(), (-0.7, 0.0, 0.7))
        assert torch.allclose(got, want, atol=0.2)
    den = Gaussian(torch.zeros(1), 1.0).denoiser(PATH)
    start, plan = torch.zeros(2, 1, dtype=torch.float64), make_plan(PATH, "ddim", steps=10)

    class Told(type(den)):
        def raw(self, x, told, c=None):
            return super().raw(x, told)

    den.__class__ = Told
    cond = {"c": torch.tensor([[0.8], [-0.8]], dtype=torch.float64)}
    x = sample(den, start=start, plan=plan, guides=[ContrastiveEnergy(net, told=("c",))], cond=cond).x
    # The target is N(β·c, 1), of which a start at 0 ends at the mean but for what VP has at t = 1.
    assert torch.allclose(x[:, 0], 1.5 * cond["c"][:, 0], atol=0.3)


def test_bad_arguments_are_refused():
    values = torch.zeros(2, 3)
    with pytest.raises(ArgumentError, match="contrastive"):
        energy_loss(values, values, "contrastve")
    with pytest.raises(ArgumentError, match="groups, K"):
        energy_loss(values, values[:, :2])
    with pytest.raises(ArgumentError, match="at least 2"):
        energy_loss(values[:, :1], values[:, :1])
    net = EnergyNetwork(1, width=4, depth=1)

    def wrong(generator):
        return torch.zeros(2, 3, 1), torch.zeros(6), {}

    with pytest.raises(ArgumentError, match="energies"):
        train_energy(net, PATH, wrong)
    with pytest.raises(ArgumentError, match="steps"):
        train_energy(net, PATH, wrong, steps=0)
    with pytest.raises(ArgumentError, match="rise within"):
        train_energy(net, PATH, wrong, times=(0.0, 1.0))
    world, _ = world_and_target()
    with pytest.raises(ArgumentError, match="stat"):
        sample(world.denoiser(PATH), 1, steps=2, guides=[ContrastiveEnergy(net, told=("stat",))])
    with pytest.raises(ArgumentError, match="one number a sample"):
        sample(world.denoiser(PATH), 1, steps=2, guides=[ContrastiveEnergy(lambda x, t: x)])
