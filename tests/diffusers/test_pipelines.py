"""What whole pipelines are asked beside texts: embeddings, an image to begin from, a number of pictures."""

import diffusers
import pytest
import torch
from tiny import start, text
from whole import KINDS, near, stable_diffusion

import fewstep.diffusers as ours
from fewstep import CFG, sample

pytest.importorskip("transformers")

SIZE = {"height": 8, "width": 8}


@pytest.fixture
def pipe(tmp_path):
    """Stable Diffusion without its text encoder."""
    pipe = stable_diffusion(tmp_path / "tokenizer")
    parts = {**pipe.components, "text_encoder": None, "tokenizer": None}
    made = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def words(batch=1):
    return {"prompt_embeds": text()[:batch], "negative_prompt_embeds": text()[1 : 1 + batch] * 0.5}


def both(pipe, solver, call):
    """The latents with the pipeline's own scheduler and with ours."""
    with torch.no_grad():
        theirs = call(pipe)
        pipe.scheduler = ours.scheduler(pipe, solver)
        mine = call(pipe)
    assert theirs.std() > 1e-3
    return mine, theirs


def test_image_to_image(pipe):
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    # diffusers' multistep solver begins in the middle with the history of nobody too.
    picture = start(1).clamp(-1, 1)

    def call(pipe):
        return pipe(
            **words(), image=picture, strength=0.6, num_inference_steps=10, guidance_scale=1.0, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip

    assert near(*both(pipe, "dpm-solver++", call))


def test_embeddings_from_a_folder_and_in_our_own_loop(pipe, tmp_path):
    pipe.scheduler = ours.scheduler(pipe, "unipc", "trailing")
    pipe.save_pretrained(tmp_path / "pipe")
    again = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "pipe", text_encoder=None, tokenizer=None)
    again.set_progress_bar_config(disable=True)
    latents = start(1, (4, 8, 8))
    with torch.no_grad():
        images = again(
            **words(), num_inference_steps=4, guidance_scale=3.0, latents=latents, output_type="latent", **SIZE
        ).images
    den = ours.load_model(tmp_path / "pipe")
    cond, null = {"encoder_hidden_states": text()[:1]}, {"encoder_hidden_states": text()[1:] * 0.5}
    out = sample(den, start=latents, plan=again.scheduler.plan, cond=cond, guides=[CFG(3.0, null)])
    assert near(images, out.x)


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_pictures_that_a_pipeline_draws_itself(name, tmp_path):
    """Noise from the pipeline's own generators: two pictures, each with its own."""
    kind = KINDS[name]
    pipe = kind.make(tmp_path)
    pipe.set_progress_bar_config(disable=True)

    def call(pipe):
        drawn = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return pipe(**kind.call, num_images_per_prompt=2, generator=drawn, output_type="latent").images

    mine, theirs = both(pipe, kind.solver, call)
    assert len(mine) == 2
    assert near(mine, theirs)
