"""Every coefficient of a plan against numerical quadrature.

Put a function f of λ alone in the denoiser's place.  The exact step, with a share of fresh noise τ (0 is the
probability flow, 1 the reverse equation), is

    x′ = (σ′/σ)·e^{−τ²h}·x + σ′·∫ (1 + τ²)·e^{u}·e^{−τ²(λ′−u)}·f(u) du      over [λ, λ′],   h = λ′ − λ,

up to noise of mean 0, and what a plan does instead is arithmetic on its table: no network, no sampling.
"""

import math
from collections.abc import Callable

import torch
from scipy.integrate import quad
from torch import Tensor

from fewstep.errors import ArgumentError
from fewstep.plan import Plan


def table_states(plan: Plan, answers: list[float], start: float = 0.0) -> list[float]:
    """Register x before every step and after the last when the network's answers are given numbers; noise left out."""
    registers = [0.0] * len(plan.registers)
    registers[0] = start
    if "one" in plan.registers:
        registers[plan.registers.index("one")] = 1.0
    states, asked = [start], 0
    for step in plan:
        told = answers[asked : asked + len(step.asks)]
        asked += len(step.asks)
        new = list(registers)
        for to, entries in step.writes.items():
            values = {"M": registers, "B": told, "N": [0.0] * 99}
            new[to] = sum(float(value) * values[kind][source] for kind, source, value in entries)
        registers = new
        states.append(registers[0])
    return states


def quadrature_errors(plan: Plan, answer: Callable[[float], float] = math.sin, tau: float = 0.0) -> Tensor:
    """How far each step of a plan is from the exact step when x̂₀ = answer(λ): float64 (moves,), signed.

    A row at which the time stands still, such as the second of Heun's two, belongs to the move before it.

    Of a method of order p it falls like h^{p+1} when the grid is refined; of an exponential method of order p it is
    rounding for every polynomial of degree below p, the first steps aside.

    Args:
        plan: with one time for all, ending at a finite λ.
        answer: f(λ).
        tau: the share of fresh noise that the plan's equation has, at least 0.

    Raises:
        ArgumentError: a plan with times within a sample, or that begins or ends where λ is infinite.
    """
    if plan.place:
        raise ArgumentError(f"the plan must have one time for all, its times have the place {tuple(plan.place)}")
    lam, sigma = plan.path.lam(plan.times).tolist(), plan.path.sigma(plan.times).tolist()
    if not all(map(math.isfinite, lam)):
        raise ArgumentError("the plan must begin and end where λ is finite; make it on times within (0, 1)")
    states = table_states(plan, [answer(float(v)) for v in plan.path.lam(plan.ask_times)])
    errors: list[float] = []
    for i in range(plan.steps):
        end, h = lam[i + 1], lam[i + 1] - lam[i]
        if h == 0 and errors:
            errors[-1] += states[i + 1] - states[i]
            continue

        def kernel(u: float, end: float = end) -> float:
            return (1 + tau**2) * math.exp((1 + tau**2) * (u - end)) * answer(u)

        # σ′·e^{λ′} = α′, so the integral stays near 1.
        exact = float(plan.path.alpha(plan.times[i + 1])) * quad(kernel, lam[i], end, epsabs=1e-13, epsrel=1e-12)[0]
        carried = sigma[i + 1] / sigma[i] * math.exp(-(tau**2) * h) * states[i]
        errors.append(states[i + 1] - carried - exact)
    return torch.tensor(errors, dtype=torch.float64)
