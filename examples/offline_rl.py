"""Offline reinforcement learning by exact energy guidance: a better policy from recorded behaviour alone.

Pendulum-v1 of gymnasium is recorded under a poor behaviour policy.  Then, without touching the environment again:

1. a diffusion model learns the behaviour, p(action | state);
2. a critic Q learns from the record, its target weighing actions that the model itself would take by e^{β·Q};
3. contrastive energy prediction learns the exact guidance from p(a | s) to p(a | s)·e^{β·Q(s, a)};

and the guided model is the new policy.  Run it with `python examples/offline_rl.py`; it takes about a minute.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fewstep import VP, make_plan, sample, wrap
from fewstep.denoisers import Denoiser
from fewstep.guidance import ContrastiveEnergy, EnergyNetwork, train_energy

PATH = VP()
SUPPORT, SUPPORT_STEPS, DISCOUNT, STRENGTH = 8, 8, 0.97, 4.0
Policy = Callable[[Tensor, int], Tensor]  # (states (n, 3), number of the step) → actions (n, 1) in [−1, 1]
Critic = Callable[[Tensor, Tensor], Tensor]  # (states (…, 3), actions (…, 1)) → (…)


@dataclass(frozen=True)
class Record:
    """Transitions of several episodes side by side, step after step.

    states (n, 3): cos and sin of the angle, and a quarter of the speed; actions (n, 1) in [−1, 1]; rewards (n,);
    last (episodes, 3): the states after the last step.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    last: Tensor


def roll(policy: Policy, episodes: int, seed: int = 0) -> tuple[Record, Tensor]:
    """Whole episodes of 200 steps under a policy: the record, and each episode's return."""
    import gymnasium

    envs = gymnasium.make_vec("Pendulum-v1", num_envs=episodes, vectorization_mode="sync")
    seen, _ = envs.reset(seed=[seed + i for i in range(episodes)])
    rows: list[tuple[Tensor, ...]] = []
    for step in range(200):
        state = _state(seen)
        action = policy(state, step).clamp(-1, 1)
        seen, reward, *_ = envs.step(2 * action.numpy())
        rows.append((state, action, torch.tensor(np.array(reward), dtype=torch.float32)))
    envs.close()
    states, actions, rewards = (torch.stack(part) for part in zip(*rows, strict=True))
    return Record(states.flatten(0, 1), actions.flatten(0, 1), rewards.flatten(), _state(seen)), rewards.sum(0)


def _state(seen: np.ndarray) -> Tensor:
    return torch.tensor(np.array(seen), dtype=torch.float32) / torch.tensor([1.0, 1.0, 4.0])


def behaviour(seed: int = 0, skilled: float = 0.4) -> Policy:
    """A policy that swings the pendulum up and balances it in a share of its steps, and else does anything."""
    generator = torch.Generator().manual_seed(seed)

    def act(state: Tensor, step: int) -> Tensor:
        cos, sin, speed = state[:, 0], state[:, 1], 4 * state[:, 2]
        pump = torch.sign(speed) * torch.sign(7.5 * (1 - cos) - speed.square() / 2 * 0.5 + 0.5)
        balance = -(8 * torch.atan2(sin, cos) + 2 * speed) / 2
        good = torch.where(cos > 0.85, balance, pump).clamp(-1, 1)
        anything = 2 * torch.rand(len(state), generator=generator) - 1
        chosen = torch.where(torch.rand(len(state), generator=generator) < skilled, good, anything)
        return (chosen + 0.1 * torch.randn(len(state), generator=generator))[:, None].clamp(-1, 1)

    return act


class Behaviour(nn.Module):
    """v = α·ε − σ·x₀ of an action, from the noisy action, the time and the state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = EnergyNetwork(1, {"state": 3}, width=96)

    def forward(self, x: Tensor, time: Tensor, state: Tensor) -> Tensor:
        return self.body(x, time, state=state)[:, None]


def learn_behaviour(record: Record, steps: int = 1500, seed: int = 0) -> Denoiser:
    """The diffusion model of actions given states."""
    torch.manual_seed(seed)
    net = Behaviour()
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(len(record.actions), (512,))
        t, noise = torch.rand(512, 1, dtype=torch.float64), torch.randn(512, 1)
        alpha, sigma, actions = PATH.alpha(t).float(), PATH.sigma(t).float(), record.actions[rows]
        noisy, target = alpha * actions + sigma * noise, alpha * noise - sigma * actions
        optimiser.zero_grad()
        (net(noisy, t, record.states[rows]) - target).square().mean().backward()
        optimiser.step()
        fall.step()
    return wrap(net.requires_grad_(False), PATH, "v", shape=(1,))


def support(model: Denoiser, states: Tensor) -> Tensor:
    """Actions that the model would take, (n, SUPPORT, 1)."""
    plan = make_plan(PATH, "dpm-solver++", steps=SUPPORT_STEPS)
    each = states.repeat_interleave(SUPPORT, 0)
    actions = sample(model, len(each), plan=plan, cond={"state": each}, seed=0).x
    return actions.reshape(len(states), SUPPORT, 1).clamp(-1, 1)


def learn_critic(record: Record, actions: Tensor, steps: int = 2000, seed: int = 0) -> Critic:
    """Q(state, action) of the guided policy, from `actions`: supported ones at the record's states, then at its last.

    Episodes end by the clock alone, so every state goes on; Q is in units of a step's reward.
    """
    torch.manual_seed(seed)
    after, follows = torch.cat([record.states, record.last])[len(record.last) :], actions[len(record.last) :]
    net = nn.Sequential(nn.Linear(4, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 1))
    slow = copy.deepcopy(net).requires_grad_(False)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)

    def ask(which: nn.Module, states: Tensor, actions: Tensor) -> Tensor:
        return which(torch.cat([states, actions], -1))[..., 0]

    for _ in range(steps):
        rows = torch.randint(len(record.rewards), (256,))
        values = ask(slow, after[rows][:, None].expand(-1, SUPPORT, -1), follows[rows])
        next_value = ((STRENGTH * values).softmax(1) * values).sum(1)
        target = (1 - DISCOUNT) * record.rewards[rows] + DISCOUNT * next_value
        optimiser.zero_grad()
        (ask(net, record.states[rows], record.actions[rows]) - target).square().mean().backward()
        optimiser.step()
        with torch.no_grad():
            for kept, new in zip(slow.parameters(), net.parameters(), strict=True):
                kept.lerp_(new, 0.01)
    return lambda states, actions: ask(slow, states, actions)


def learn_guidance(record: Record, actions: Tensor, critic: Critic, loss: str = "contrastive") -> EnergyNetwork:
    """The intermediate energy of E = −Q, from the supported actions (n, SUPPORT, 1) at the record's states."""
    actions = actions[: len(record.states)]
    energies = -critic(record.states[:, None].expand(-1, SUPPORT, -1), actions)
    # Q is told in units of its deviation over the actions of a state, so that β means the same for every reward.
    energies = (energies - energies.mean(1, keepdim=True)) / energies.std(1).mean()

    def groups(generator: torch.Generator) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        rows = torch.randint(len(actions), (256,), generator=generator)
        return actions[rows], energies[rows], {"state": record.states[rows]}

    torch.manual_seed(0)
    net = EnergyNetwork(1, {"state": 3}, width=96)
    train_energy(net, PATH, groups, strength=STRENGTH, loss=loss, steps=600, rate=5e-3)
    return net.requires_grad_(False)


def policy_of(model: Denoiser, value: EnergyNetwork | None = None, scale: float = 1.0) -> Policy:
    """The model as a policy, guided or not."""
    plan = make_plan(PATH, "dpm-solver++", steps=SUPPORT_STEPS)
    guides = [] if value is None else [ContrastiveEnergy(value, scale, told=("state",))]
    return lambda state, step: sample(model, len(state), plan=plan, cond={"state": state}, guides=guides, seed=step).x


def compare(episodes: int = 20) -> dict[str, Tensor]:
    """The returns of the recorded behaviour, of the model that learnt it, and of the guided model by loss and scale."""
    record, recorded = roll(behaviour(), 60)
    model = learn_behaviour(record)
    actions = support(model, torch.cat([record.states, record.last]))
    critic = learn_critic(record, actions)
    returns = {"recorded": recorded, "model": roll(policy_of(model), episodes, 1000)[1]}
    for loss, scale in (("contrastive", 1.0), ("contrastive", 3.0), ("mse", 1.0)):
        policy = policy_of(model, learn_guidance(record, actions, critic, loss), scale)
        returns[f"{loss}, scale {scale:g}"] = roll(policy, episodes, 1000)[1]
    return returns


if __name__ == "__main__":
    for name, each in compare().items():
        print(f"{name:22} return {float(each.mean()):7.0f} ± {float(each.std()) / len(each) ** 0.5:.0f}")
