"""The same network, noise and times in diffusers' schedulers and in ours end at the same samples."""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler

from fewstep import VP, make_plan, sample, wrap

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}
PATH = VP.from_betas("scaled_linear")


def network():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double().requires_grad_(False)
    return lambda x, time: torch.tanh(layer(x)) + 0.1 * torch.cos(time.double() / 100).reshape(-1, 1, 1, 1) * x


@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize(
    ("solver", "peer"),
    [
        ("ddim", lambda: DDIMScheduler(**BETAS, clip_sample=False)),
        ("dpm-solver++", lambda: DPMSolverMultistepScheduler(**BETAS, lower_order_final=False)),
        ("heun", lambda: HeunDiscreteScheduler(**BETAS)),
    ],
    ids=["ddim", "dpm-solver++", "heun"],
)
def test_equal_to_diffusers(solver, peer, steps):
    net = network()
    den = wrap(net, PATH, "eps", shape=(2, 8, 8))
    start = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    ours = sample(den, start=start, plan=make_plan(PATH, solver, "trailing", steps)).x
    peer = peer()
    peer.set_timesteps(steps)
    x = start
    if solver == "heun":  # diffusers' Heun steps in the variance-exploding scale
        x = start / PATH.alpha(PATH.t_of_index(float(peer.timesteps[0])))
    for time in peer.timesteps:
        x = peer.step(net(peer.scale_model_input(x, time), time.double().expand(3)), time, x).prev_sample
    assert float((x - ours).norm() / ours.norm()) < 1e-5
