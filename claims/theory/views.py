"""The views are one: likelihood by the flow, scores of one law, and what scores tell of dimension."""

import torch

from claims import Measured, claim
from claims.worlds import twenty_modes
from fewstep import VE, VP, Flow
from fewstep.analysis import Gauged, fokker_planck_residual, log_likelihood, score_dimension
from fewstep.worlds import Gaussian, GaussianMixture

PRINCIPLES = "The Principles of Diffusion Models"
OVERVIEW = "An Overview of Diffusion Models: Applications, Guided Generation, Statistical Rates and Optimization"


@claim(
    paper=PRINCIPLES,
    method="flow-likelihood",
    says="The flow of the score gives the exact likelihood of data.",
    figure="a theorem",
)
def the_flow_knows_the_likelihood() -> Measured:
    world = twenty_modes()
    x = world.sample(4, seed=1).double()
    off = []
    for path in (VP(), VE(), Flow()):
        got = log_likelihood(world.denoiser(path), x, 200)
        off.append(float((got - world.log_density(x, path, 0.0)).abs().max()))
    figure = "20 modes in 64 dimensions, largest error in nats on VP, VE and Flow: " + ", ".join(
        f"{v:.4f}" for v in off
    )
    return Measured(figure, max(off) < 0.05)


@claim(
    paper=PRINCIPLES,
    method="fokker-planck",
    says="Scores of one law under noise obey the equation of Fokker and Planck; what is left over tells an error.",
    figure="an identity; 5e-8 by finite differences",
)
def what_is_left_over_tells_the_error() -> Measured:
    means = torch.tensor([[-0.6, 0.5], [0.8, -0.1]], dtype=torch.float64)
    den = GaussianMixture([0.3, 0.7], means, torch.full((2, 1), 0.1)).denoiser(VP())
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left = []
    for share in (0.0, 0.01, 0.03, 0.1):
        wrong = Gauged(den, lambda x, t, s, share=share: share * s)
        left.append(float(fokker_planck_residual(wrong, x, 0.4).median()))
    figure = "relative residual with scores too large by 0, 1, 3 and 10 %: " + ", ".join(f"{v:.2g}" for v in left)
    return Measured(figure, left[0] < 1e-4 and left == sorted(left) and left[1] > 1e-3)


@claim(
    paper=OVERVIEW,
    method="score-dimension",
    says="Near data on a plane the scores span what is across it, and grow as (D − d)/h.",
    figure="E‖s‖² = (D − d)/h + O(1); the number of large singular values is D − d",
)
def scores_span_the_normal_space() -> Measured:
    found, sizes = [], []
    for d, outside in ((1, 6), (4, 12), (10, 20), (20, 64)):
        spectrum = torch.cat([torch.logspace(0, -1, d), torch.zeros(outside - d)]).double()
        den = Gaussian(torch.zeros(outside), torch.diag(spectrum)).denoiser(VP())
        generator = torch.Generator().manual_seed(d)
        x = spectrum.sqrt() * torch.randn(3, outside, dtype=torch.float64, generator=generator)
        dims, values = score_dimension(den, x)
        found += [abs(int(v) - d) / d for v in dims]
        sizes.append(float(values.square().sum(1).mean()) / (outside - d))
    figure = (
        f"planes of 1, 4, 10 and 20 dimensions in 6 to 64: {sum(v == 0 for v in found)} of {len(found)} right; "
        f"h·E‖s‖²/(D − d) " + ", ".join(f"{v:.2f}" for v in sizes)
    )
    return Measured(figure, max(found) <= 0.1 and all(abs(v - 1) < 0.1 for v in sizes))
