"""
Tune and ship a plan
====================

Say how many evaluations a sample may cost, and get the plan that does best with them on your model.  It is a small file
of numbers: it prints, it goes beside your weights, and it runs in a diffusers pipeline too.
"""

# %%
# GITS measures how the model's own trajectories bend, and puts the steps where they do.
import matplotlib.pyplot as plt

import fewstep

model = fewstep.load("cifar10-lowrank")
cond = {"label": list(range(10))}
plan = fewstep.tune(model, evaluations=6, method="gits", samples=10, cond=cond, seed=0)
print(fewstep.tune.report(plan))

# %%
# It is kept as JSON, refuses a model of another path, and is what it was when it is read again.
plan.save("six.json")
again = fewstep.Plan.load("six.json")
assert again == plan

# %%
# Judged on noises that the tuning did not see, beside the plans that ship (``auto``) and untuned ones.
result = fewstep.compare(
    model, ["ddim", "dpm-solver++", "auto"], [6], plans={"tuned here": again}, n=10, seed=1, cond=cond
)
print(result)

figure, axes = plt.subplots(figsize=(6, 3))
rows = sorted(result.rows, key=lambda row: row.error)
axes.barh([f"{row.solver}, {row.evaluations}" for row in rows], [row.error for row in rows])
axes.set(xlabel="median RMSE to the exact flow, 6 evaluations")
figure.tight_layout()
