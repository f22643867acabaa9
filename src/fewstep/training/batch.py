"""The batch of a step, and the network's answer to it: what every loss begins and ends with."""

import torch
from torch import Tensor, nn

from fewstep.training.config import AnyConfig


def first_draws(config: AnyConfig, images: Tensor, step: int) -> tuple[torch.Generator, Tensor, Tensor]:
    """(the generator of a step, which images it takes, those in [−1, 1] and half of them mirrored where asked).

    Latents, which are floating-point, are taken as they are.
    """
    generator = torch.Generator().manual_seed(config.seed * 2**32 + step)
    pick = torch.randint(len(images), (config.batch,), generator=generator)
    x0 = images[pick].float() if images.is_floating_point() else images[pick].float() / 127.5 - 1
    if config.flip:
        mirror = torch.rand(config.batch, generator=generator) < 0.5
        x0[mirror] = x0[mirror].flip(-1)
    return generator, pick, x0


def answer(network: nn.Module, precision: str, device: str, *inputs: Tensor) -> Tensor:
    """The network's answer in float32, computed on the device in `precision`."""
    inputs = tuple(part.to(device) for part in inputs)
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
        return network(*inputs).float()
