"""USF and S³: what their paper claims of samplers whose steps choose their own parts."""

import math

import torch

from claims import Measured, claim
from claims.tuning.worlds import world
from fewstep import VP, make_plan, tune
from fewstep.tuning.problem import Problem
from fewstep.tuning.solver_search import CONSTANT, SolverSearch, constant, plan_at

PAPER = "A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models"
NAMES = {1: "overlapping modes", 2: "separated modes", 3: "scales like pictures"}


@claim(
    paper=PAPER,
    method="usf",
    says="Samplers that were found beat the best known ones at very few evaluations.",
    figure="CIFAR-10, FID at 5 evaluations 6.86; at 10, 2.69 (code's later version: 5.40 at 5, UniPC 23.62)",
)
def found_samplers_beat_constant_ones() -> Measured:
    told, holds = [], True
    for which, name in NAMES.items():
        denoiser, start, ends = world(VP(), which)
        problem = Problem(denoiser, 5)
        plans = [plan_at(VP(), constant(choice, 5), 5) for choice in CONSTANT]
        plans += [make_plan(VP(), solver, "logsnr", 5) for solver in ("unipc", "dpm-solver++3m", "deis", "ipndm")]
        best = min(problem.error(plan, start, ends) for plan in plans)
        found = tune(denoiser, 5, method=SolverSearch(), seed=1, settle=False)
        error, spent = problem.error(found, start, ends), found.source["tuned"]["spent"]
        told.append(f"{name} {best:.3f} → {error:.3f} ({spent} evaluations spent)")
        holds = holds and error < best
    figure = "median RMSE to the exact flow, VP, 64 dimensions, 5 evaluations, best of nine constant samplers → found: "
    return Measured(figure + "; ".join(told), holds)


@claim(
    paper=PAPER,
    method="usf",
    says="A cheap measure of a sampler ranks samplers well enough to search by it.",
    figure="the paper's search ranks by the FID of few samples and by a predictor; its figures were not at hand",
)
def few_noises_rank_samplers() -> Measured:
    denoiser, start, ends = world(VP(), 1)
    generator, steps = torch.Generator().manual_seed(0), 5
    places = []
    for _ in range(40):
        place = dict(constant(CONSTANT[int(torch.randint(len(CONSTANT), (1,), generator=generator))], steps))
        for i in range(steps - 1):
            place[f"gap {i}"] = math.exp(float(torch.empty(1).uniform_(-0.9, 0.9, generator=generator)))
        places.append(place)
    problem = Problem(denoiser, steps)
    ranks = []
    for rows in (slice(0, 4), slice(16, 64)):
        errors = [problem.error(plan_at(VP(), place, steps), start[rows], ends[rows]) for place in places]
        ranks.append(torch.tensor(errors).argsort().argsort().double())
    correlation = float(torch.corrcoef(torch.stack(ranks))[0, 1])
    figure = f"rank correlation of the error on 4 noises with that on 48 others, 40 random samplers: {correlation:.3f}"
    return Measured(figure, correlation > 0.8)
