"""
Write a guide
=============

A guide changes what the denoiser says.  It names its level, writes the one hook of that level, and then works with
every solver, plan and model.  This one asks that a picture's mean colour be what we say.
"""

# %%
# A guide of level ``answer`` gets x̂₀ and gives back x̂₀′.  Its memory, were there any, would be made by ``init`` and go
# through ``state``, never into the guide: two runs may share it.
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

import fewstep
from fewstep.errors import ArgumentError
from fewstep.pictures import grid_of


@dataclass(frozen=True)
class Palette(fewstep.Guide):
    """Moves the mean colour of x̂₀ towards `colour` by the share `scale`, which at 0 changes nothing."""

    level = "answer"
    colour: tuple[float, float, float]
    scale: float = 0.5

    def __post_init__(self):
        if not 0 <= self.scale <= 1:
            raise ArgumentError(f"scale must lie in [0, 1], got {self.scale!r}")

    def answer(self, ask, x0, state):
        wanted = torch.tensor(self.colour, dtype=x0.dtype, device=x0.device)[:, None, None]
        return x0 + self.scale * (wanted - x0.mean((2, 3), keepdim=True)), state


# %%
# It goes with any other guide, here with classifier-free guidance; the list's order holds within a level.
model = fewstep.load("cifar10-lowrank")
cond = {"label": [8] * 8}
dusk, sea = (0.3, -0.1, -0.4), (-0.4, -0.1, 0.3)
runs = {
    "no guide": [], "dusk": [Palette(dusk)], "sea": [Palette(sea)], "sea and CFG": [fewstep.CFG(1.5), Palette(sea)],
}  # fmt: skip
figure, axes = plt.subplots(len(runs), 1, figsize=(6, 3.8))
for place, (name, guides) in zip(axes, runs.items(), strict=True):
    out = fewstep.sample(model, 8, solver="unipc", steps=10, guides=guides, cond=cond, seed=2)
    mean = [f"{v:+.2f}" for v in out.x.mean((0, 2, 3))]
    print(f"{name:12} mean colour {mean}, {out.stats.evaluations} evaluations")
    place.imshow(grid_of(out.x, model.limits, 8), interpolation="nearest")
    place.set(xticks=[], yticks=[])
    place.set_ylabel(name, rotation=0, ha="right", va="center")
figure.tight_layout()
