"""FK steering: the exact tilt, its rate, the bias of printed rules, and best-of-N at equal evaluations."""

import math
import warnings

import torch
from torch import Tensor

from claims import Measured, claim
from claims.search.bench import EXACT, MODEL, TILT, first, moments, plan, told, value
from claims.search.digits import NONE, is_a, model
from fewstep import VP, sample
from fewstep.search import CollapseWarning, FKSteering
from fewstep.worlds import GaussianMixture

PAPER = "A General Framework for Inference-time Scaling and Steering of Diffusion Models"


@claim(
    paper=PAPER,
    method="fk-steering",
    says="Potentials whose product is e^{κr} make the particles' law tend to p·e^{κr}.",
    figure="a statement of the method; max, sum and difference are offered as such potentials",
)
def particles_tend_to_the_tilt() -> Measured:
    rates = []
    for k in (4, 16, 64, 256):
        method = FKSteering(first, particles=k, below=0.5)
        out = sample(MODEL, 64, search=method, plan=plan(60, "sde-dpm-solver++"), dtype=torch.float64)
        means = (out.weights.shares * out.particles[..., 0]).sum(1)
        rates.append(float((means - TILT.target.mean).square().mean().sqrt()))
    slope = math.log(rates[-1] / rates[1]) / math.log(16)
    laws = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        for name, method in {
            "difference, V exact": FKSteering(first, particles=10**4, value=value),
            "difference, V from x̂₀": FKSteering(first, particles=10**4),
            "max": FKSteering(first, particles=10**4, potential="max"),
            "sum": FKSteering(first, particles=10**4, potential="sum"),
            "max as released": FKSteering(first, particles=10**4, potential="max", ending="running"),
        }.items():
            out = sample(MODEL, 1, search=method, plan=plan(), dtype=torch.float64)
            laws[name] = moments(out.particles, out.weights.shares)
    figure = (
        f"P(x>0), mean and variance of 10⁴ particles on two modes with r = x, {EXACT}: "
        + "; ".join(f"{name} {told(law)}" for name, law in laws.items())
        + f". RMSE of a run's mean with 4, 16, 64, 256 particles: {', '.join(f'{r:.3f}' for r in rates)} (slope from "
        f"16 on {slope:.2f})"
    )
    why = (
        "Holds for the difference. Max and sum have the right limit too, but their last potential takes back all the "
        "others gave, so ten weighings leave them far off at 10⁴ particles; as released, the running value stands for "
        "r(x₀) and no number of particles helps."
    )
    good = all(abs(laws[f"difference, V {v}"][1] - 1.438) < 0.05 for v in ("exact", "from x̂₀"))
    return Measured(figure, good and abs(slope + 0.5) < 0.15, why)


@claim(
    paper=PAPER,
    method="fk-steering",
    says="Steering finds higher rewards than drawing as many samples and keeping the best, without training.",
    figure="k = 4 on text-to-image models: ImageReward and prompt fidelity above best-of-4 at equal network calls",
)
def steering_beats_the_best_of_n() -> Measured:
    world = GaussianMixture([0.5, 0.5], torch.tensor([[-1.0] * 4, [1.0] * 4]), torch.full((2, 1), 0.15))
    goal = torch.tensor([2.0, 1.6, 0.4, 1.0])

    def near(x: Tensor) -> Tensor:
        return -(x - goal).square().sum(1)

    lines, better = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        for k in (4, 16, 64):
            methods = [FKSteering(near, 2.0, k, weighings=w, pick="best") for w in (10, 1)]
            found = [sample(world.denoiser(VP()), 200, steps=40, search=m).rewards.mean() for m in methods]
            lines.append(f"k = {k}: {float(found[0]):.2f} against {float(found[1]):.2f}")
            better.append(bool(found[0] > found[1]))
        steering, best = (FKSteering(is_a(8), 2.0, 4, weighings=w, pick="best") for w in (6, 1))
        common = {"steps": 20, "cond": NONE, "seed": 3}
        rate = [float((sample(model(), 16, search=m, **common).rewards.exp() > 0.5).double().mean())
                for m in (steering, best)]  # fmt: skip
    figure = (
        f"reward −|x − b|² of the best particle, steered against best-of-k at equal evaluations, 4 numbers, b far out; "
        f"{'; '.join(lines)}. Shipped digits model without a class, r = log p(8|x), k = 4, 20 steps, 16 runs: "
        f"{rate[0]:.0%} against {rate[1]:.0%} are an 8"
    )
    why = "On one dimension with an easy reward there is no gain; it needs rewards that are rare under the model."
    return Measured(figure, all(better) and rate[0] >= rate[1], why)
