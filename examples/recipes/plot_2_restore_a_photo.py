"""
Restore a photo
===============

A box in the middle of a picture is hidden, the rest is noisy.  A restorer draws several pictures that agree with what
is left: their mean is the best guess, their deviation says where the guess is loose.
"""

# %%
# The picture is drawn from the model itself here, so that the recipe needs no file; of yours,
# ``fewstep restore broken.png --mask known.png`` does the same.
import matplotlib.pyplot as plt

import fewstep
from fewstep.metrics import psnr
from fewstep.pictures import grid_of
from fewstep.restoration import Gaussian, Mask, Measurement

model = fewstep.load("mnist")
picture = fewstep.sample(model, 1, steps=10, seed=2, cond={"label": 3}).x
seen = Measurement.simulate(Mask.box(28, 28, 8, 8, 12), picture, Gaussian(0.05))

# %%
# Every method of family restoration is called the same way; ``evaluations`` is what one sample may cost.
results = {}
for method, options in (("ddrm", {}), ("diffpir", {}), ("dps", {})):
    results[method] = fewstep.restore(model, seen, method, evaluations=30, samples=8, cond={"label": 10}, **options)
    print(f"{method:8} {float(psnr(results[method].mean, picture)):.1f} dB, {results[method].stats.seconds:.2f} s")

figure, axes = plt.subplots(len(results), 4, figsize=(7, 5.4))
for row, (method, result) in zip(axes, results.items(), strict=True):
    spread = result.std / result.std.max() * 2 - 1
    shown = {"what is seen": seen.operator.A_adjoint(seen.y), "one sample": result.x[:1], "mean of 8": result.mean}
    for place, (title, image) in zip(row, {**shown, "deviation": spread}.items(), strict=True):
        place.imshow(grid_of(image.reshape(1, 1, 28, 28), model.limits, 1), cmap="gray", interpolation="nearest")
        place.set(xticks=[], yticks=[], title=title)
    row[0].set_ylabel(method)
figure.tight_layout()
