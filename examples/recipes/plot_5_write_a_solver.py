"""
Write a solver in 30 lines
==========================

A solver turns a path and times into a table of coefficients.  The table is a plan: it checks itself, prints, saves, and
runs with every model and every guide.  This one extrapolates the last two answers in λ, the half-log-SNR.
"""

# %%
# Over a step of length h in λ, with the step before it h⁻, a state moves by
#
# .. math:: x' = \tfrac{\sigma'}{\sigma} x + \bigl(\alpha' - \tfrac{\sigma'}{\sigma}\alpha\bigr)
#           \bigl[(1 + e)\,\hat x_0 - e\,\hat x_0^-\bigr], \qquad e = \tfrac{h}{2 h^-},
#
# with e = 0 in the first step, which has no answer before it, and in the last, whose h is infinite.
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

import fewstep
from fewstep.analysis.convergence import convergence_errors, measured_order
from fewstep.errors import PlanError
from fewstep.plan import Builder, Plan


@dataclass(frozen=True)
class Extrapolation:
    """Extrapolate the last two answers in λ."""

    sign: int = 1
    order: int = 2
    stochastic: bool = False

    def __call__(self, path, times, source=None):
        alpha, sigma, h = path.alpha(times), path.sigma(times), path.lam(times).diff()
        ratio = sigma[1:] / sigma[:-1]
        extra = torch.cat([torch.zeros(1, dtype=torch.float64), h[1:] / (2 * h[:-1])])
        extra = torch.where(sigma[1:] > 0, extra, 0.0)
        gain = alpha[1:] - ratio * alpha[:-1]
        builder = Builder(times, ("x", "before"))
        builder.ask("x")
        builder.add("x", "x", ratio)
        builder.add("x", 0, gain * (1 + extra))
        builder.add("x", "before", -self.sign * gain * extra)
        builder.add("before", 0, 1.0)
        return Plan.build(path, builder, order=self.order, source=dict(source or {}))


# %%
# It runs at once, and prints as the table that it is.
plan = fewstep.make_plan(fewstep.VP(), Extrapolation(), "logsnr", steps=4)
print(plan)

# %%
# A wrong sign does not survive: with one fixed answer the table must land on (α, σ) of every time.
try:
    fewstep.make_plan(fewstep.VP(), Extrapolation(sign=-1), "logsnr", steps=4)
except PlanError as error:
    print(error)

# %%
# Its order is measured where the answer is exact.  The decorator ``@fewstep.catalog.method(...)`` and a file in
# ``src/fewstep/solvers`` are all that is left to do; every test of the family then runs on it.
counts, solvers = (10, 20, 40, 80), {"ours": Extrapolation(), "ddim": "ddim", "heun": "heun"}
figure, axes = plt.subplots(figsize=(6, 3.6))
for name, solver in solvers.items():
    print(f"{name}: order {measured_order(solver, fewstep.VP()):.2f}")
    axes.loglog(counts, convergence_errors(solver, fewstep.VP(), counts), "o-", label=name)
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.set(xlabel="steps", ylabel="RMSE to the exact flow")
axes.legend(frameon=False)
figure.tight_layout()
