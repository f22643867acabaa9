"""PAHI: the exact optima of linear maps, collapse without a pull, prompts told apart, and the untrained method."""

import pytest
import torch

from fewstep import VE, VP, sample
from fewstep.errors import ArgumentError, NumericalError
from fewstep.search import Reward
from fewstep.search.preference_inversion import PAHI, OneHot
from fewstep.worlds import Gaussian, GaussianMixture

PATH = VE(3.0)
WORLD = Gaussian(torch.tensor([0.5, -1.0]), torch.diag(torch.tensor([1.0, 0.25])))
MODEL = WORLD.denoiser(PATH)
# One ddim step to 0 answers E[x₀ | x_T], linear in the noise: M = 3·c/(c + 9).
SLOPE = 3 * torch.tensor([1.0, 0.25]) / (torch.tensor([1.0, 0.25]) + 9)


def parts(fitted, told=None):
    mean, log_deviation = fitted.noise(torch.zeros(1, 1) if told is None else told)
    return mean[0].detach(), log_deviation[0].exp().detach()


def test_a_linear_reward_shifts_the_noise_and_keeps_its_width():
    a = torch.tensor([1.0, -2.0])
    fitted = PAHI(lambda x: x @ a, pull=0.5, iterations=300, batch=64).fit(MODEL)
    mean, deviation = parts(fitted)
    assert torch.allclose(mean, SLOPE * a / 0.5, atol=0.02)
    assert torch.allclose(deviation, torch.ones(2), atol=0.04)


def test_a_quadratic_reward_has_its_exact_optimum():
    goal, base = torch.tensor([1.5, -1.0]), torch.tensor([0.5, -1.0]) * 9 / (torch.tensor([1.0, 0.25]) + 9)
    fitted = PAHI(lambda x: -0.5 * (x - goal).square().sum(1), pull=0.05, iterations=400, batch=64).fit(MODEL)
    mean, deviation = parts(fitted)
    assert torch.allclose(mean, SLOPE * (goal - base) / (SLOPE**2 + 0.05), atol=0.06)
    assert torch.allclose(deviation, (0.05 / (0.05 + SLOPE**2)).sqrt(), atol=0.05)
    collapsed = PAHI(lambda x: -0.5 * (x - goal).square().sum(1), pull=0.0, iterations=400, batch=64).fit(MODEL)
    assert float(parts(collapsed)[1][0]) < 0.15


def test_the_untrained_noise_is_the_plain_sampler():
    fitted = PAHI(lambda x: x[:, 0], iterations=1, rate=1e-12).fit(MODEL)
    plain = sample(MODEL, 4, solver="ddim", steps=1, seed=3)
    assert torch.allclose(sample(MODEL, 4, search=fitted, steps=1, seed=3).x, plain.x, atol=1e-6)


def test_a_noise_for_each_prompt_beats_one_for_all():
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 0.5), component_labels=[0, 1])
    den, cond = world.denoiser(VP()), {"label": [0, 1] * 8}
    reward = Reward(lambda x, label: -(x[:, 0] - 3 * (2.0 * label - 1)).square(), ("label",))
    found = {
        name: sample(den, 16, search=PAHI(reward, features, 0.05, 150, 32), steps=3, cond=cond, dtype=torch.float64)
        for name, features in (("each", OneHot(2)), ("all", None))
    }
    assert float(found["each"].rewards.mean()) > float(found["all"].rewards.mean()) + 0.5
    assert found["each"].stats.evaluations == 3 + 150 * 32 * 3 // 16
    assert found["each"].stats.rewards == 1 + 150 * 32 // 16


def test_bad_input_is_refused():
    for bad in ({"pull": -1.0}, {"iterations": 0}, {"batch": 0}, {"rate": 0.0}, {"reward": None}):
        with pytest.raises(ArgumentError):
            PAHI(**{"reward": lambda x: x[:, 0], **bad})
    for reward, error, says in (
        (lambda x: x[:, 0].detach(), ArgumentError, "differentiable"),
        (lambda x: x, ArgumentError, "one number a row"),
        (lambda x: x[:, 0] * torch.nan, NumericalError, "not finite"),
    ):
        with pytest.raises(error, match=says):
            PAHI(reward, iterations=2).fit(MODEL)
    with pytest.raises(ArgumentError, match="label"):
        PAHI(lambda x: x[:, 0], OneHot(2)).fit(MODEL)
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        OneHot(2)({"label": torch.tensor([0, 2])}, 2)
    for bad in (lambda: OneHot(0), lambda: PAHI(lambda x: x[:, 0], "label")):
        with pytest.raises(ArgumentError):
            bad()
    with pytest.raises(ArgumentError, match="deterministic"):
        PAHI(lambda x: x[:, 0]).fit(MODEL, solver="ddpm", steps=2)
    with pytest.raises(ArgumentError, match="takes no start"):
        sample(MODEL, search=PAHI(lambda x: x[:, 0]), start=torch.zeros(1, 2), steps=1)
