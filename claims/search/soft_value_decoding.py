"""SVDD: the law of M candidates, learned and free values, and what released and printed rules do to the law."""

import torch

from claims import Measured, claim
from claims.search.bench import EXACT, MODEL, first, moments, plan, told, value
from claims.search.digits import NONE, is_a, model
from fewstep import sample
from fewstep.search import SVDD, FKSteering, fit_value

PAPER = "Derivative-Free Guidance in Continuous and Discrete Diffusion Models with Soft Value-Based Decoding"


@claim(
    paper=PAPER,
    method="svdd",
    says="Choosing every step among candidates by e^V samples the tilt p·e^{κr}, with V free or learned.",
    figure="a theorem for the exact law; both posterior-mean and Monte Carlo values work in its tables",
)
def candidates_tend_to_the_tilt() -> Measured:
    learned = fit_value(MODEL, first, plan=plan(50), trajectories=4000, iterations=600)
    methods = {
        "M = 2, V exact": SVDD(first, candidates=2, value=value),
        "M = 5": SVDD(first, candidates=5, value=value),
        "M = 20": SVDD(first, candidates=20, value=value),
        "M = 20, V from x̂₀": SVDD(first, candidates=20),
        "M = 20, V learned": SVDD(first, candidates=20, value=learned),
        "M = 20, argmax as released": SVDD(first, candidates=20, choice="argmax"),
    }
    laws = {
        name: moments(sample(MODEL, 1000, search=method, plan=plan(), dtype=torch.float64).x)
        for name, method in methods.items()
    }
    printed = SVDD(first, candidates=5, value=value, chains=10**4)
    laws["M = 5 and 10⁴ chains resampled as printed (SVDD-R)"] = moments(
        sample(MODEL, 1, search=printed, plan=plan(), dtype=torch.float64).particles
    )
    figure = f"P(x>0), mean and variance on two modes with r = x, {EXACT}, unsteered .402, −.300, 2.37: " + "; ".join(
        f"{name} {told(law)}" for name, law in laws.items()
    )
    why = (
        "M candidates give 1 − 1/M of the drift, so few of them steer too little. The released code takes the best "
        "candidate always: its law has nothing to do with κ and runs away where r has no maximum. Algorithm 2 as "
        "printed resamples the chains by e^V at every step without dividing by the V before, and runs away too: all "
        "of its chains are one."
    )
    off = [abs(laws[name][0] - 0.9255) for name in ("M = 2, V exact", "M = 5", "M = 20", "M = 20, V from x̂₀")]
    return Measured(figure, off[0] > off[1] > off[2] and max(off[2:]) < 0.05, why)


@claim(
    paper=PAPER,
    method="svdd",
    says="At equal cost it finds higher rewards than best-of-N and than particles resampled against one another.",
    figure="median best-of-N / SMC / SVDD: aesthetic 6.11/5.99/6.12; QED .835/.667/.848; enhancers 1.81/4.28/5.35",
)
def decoding_beats_the_best_of_n() -> Measured:
    reward, common = is_a(8), {"steps": 20, "cond": NONE, "seed": 3}
    methods = {
        "SVDD drawn": SVDD(reward, 2.0, 5),
        "SVDD argmax": SVDD(reward, 2.0, 5, choice="argmax"),
        "FK steering, κ = 2": FKSteering(reward, 2.0, 5, pick="best"),
        "best of 5": FKSteering(reward, 0.0, 5, weighings=1, pick="best"),
    }
    rate = {}
    for name, method in methods.items():
        scores = sample(model(), 20, search=method, **common).rewards.exp()
        rate[name] = float((scores > 0.5).double().mean())
    figure = "digits model without a class, r = log p(8|x), 20 runs of 5 × 20 evaluations, share of eights: " + (
        "; ".join(f"{name} {rate[name]:.0%}" for name in methods)
    )
    why = (
        "Far above best-of-N; from FK steering it cannot be told apart at 20 runs. The drawn choice samples the tilt "
        "instead of maximising; the paper's figures are those of the argmax."
    )
    return Measured(figure, rate["SVDD argmax"] >= max(rate["best of 5"], rate["FK steering, κ = 2"]), why)
