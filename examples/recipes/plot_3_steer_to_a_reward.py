"""
Steer to a reward
=================

Any function of a picture can be a reward: a classifier, a simulator, a person.  Steering keeps several particles a
sample and lets those with promise go on; it needs no gradient of the reward.
"""

# %%
# The reward: the probability at which a classifier reads a 7.  The model is not told any class.
import matplotlib.pyplot as plt

import fewstep
from fewstep.networks.features import load_features
from fewstep.pictures import grid_of
from fewstep.search import FKSteering, RandomSearch

model = fewstep.load("mnist")
judge = load_features("mnist").network


def seven(x):
    return judge(x).softmax(1)[:, 7]


# %%
# Plain sampling, the best of 4, and 4 particles steered at the same number of evaluations.
same = {"steps": 20, "seed": 0, "cond": {"label": 10}}
runs = {
    "plain": fewstep.sample(model, 8, solver="ddpm", **same),
    "best of 4": fewstep.sample(model, 8, search=RandomSearch(seven, 4), **same),
    "steered": fewstep.sample(model, 8, search=FKSteering(seven, strength=5.0, particles=4, pick="best"), **same),
}
for name, out in runs.items():
    print(f"{name:10} mean reward {float(seven(out.x).mean()):6.2f}, {out.stats.evaluations} evaluations a sample")

figure, axes = plt.subplots(3, 1, figsize=(6, 3.2))
for place, (name, out) in zip(axes, runs.items(), strict=True):
    place.imshow(grid_of(out.x, model.limits, 8), cmap="gray")
    place.set(xticks=[], yticks=[])
    place.set_ylabel(name, rotation=0, ha="right", va="center")
figure.tight_layout()
