"""
My diffusers pipeline in 8 steps
================================

A pipeline keeps its prompt handling, its guidance and its decoder; only its scheduler is exchanged.  The pipeline here
is a tiny one with random weights, so that the recipe needs no download; a real one is
``diffusers.AutoPipelineForText2Image.from_pretrained("owner/name", revision="<commit>")``, and nothing else changes.
"""

# %%
# A pipeline, as diffusers gives it, with the scheduler that it came with.
import diffusers
import matplotlib.pyplot as plt
import torch

import fewstep.diffusers

torch.manual_seed(0)
unet = diffusers.UNet2DModel(
    sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)  # fmt: skip
pipe = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(clip_sample=False))
pipe.set_progress_bar_config(disable=True)


def run(steps):
    """The pipeline's pictures of one and the same noise, as a tensor in [0, 1]."""
    made = pipe(generator=torch.Generator().manual_seed(3), batch_size=4, num_inference_steps=steps, output_type="np")
    return torch.from_numpy(made.images)


# %%
# What 200 steps of its own scheduler make is the reference; then each scheduler gets 4 to 32.
reference = run(200)
ours = fewstep.diffusers.scheduler(pipe, solver="unipc")
theirs, counts, errors = pipe.scheduler, (4, 8, 16, 32), {}
for name, scheduler in (("diffusers' DDIM", theirs), ("fewstep's unipc", ours)):
    pipe.scheduler = scheduler
    errors[name] = [float((run(steps) - reference).square().mean().sqrt()) for steps in counts]
    print(name, [f"{error:.4f}" for error in errors[name]])

figure, axes = plt.subplots(figsize=(6, 3.6))
for name, found in errors.items():
    axes.loglog(counts, found, "o-", label=name)
axes.set_xticks(counts, counts)
axes.minorticks_off()
axes.set(xlabel="steps", ylabel="RMSE to 200 steps")
axes.legend(frameon=False)
figure.tight_layout()

# %%
# The scheduler is saved with the pipeline, plan and all, and ``from_pretrained`` brings it back.
# A plan that was tuned to the model goes the same way: ``scheduler(pipe, plan=fewstep.Plan.load("six.json"))``.
print(pipe.scheduler)
