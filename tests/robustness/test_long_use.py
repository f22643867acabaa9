"""A thousand calls: memory does not grow, and nothing of one run is left for the next."""

import gc
import os

import pytest
import torch

import fewstep
from fewstep.guidance import CFG, HiGS
from fewstep.worlds import GaussianMixture


def resident():
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_does_not_grow_over_a_thousand_calls():
    denoiser = fewstep.wrap(lambda x, t, label: 0.1 * x, fewstep.VP(), "x0", shape=(3, 16, 16), null={"label": 0})
    world = GaussianMixture([1.0], torch.zeros(1, 8).double(), torch.ones(1, 1).double()).denoiser(fewstep.VP())
    solvers = ["ddim", "unipc", "ddpm", "dpm-solver++", "heun"]

    def call(number):
        solver = solvers[number % 5]
        guides = [CFG(2.0), HiGS()] if number % 3 == 0 else []
        fewstep.sample(denoiser, 4, solver=solver, steps=2 + number % 4, seed=number, guides=guides, cond={"label": 1})
        if number % 10 == 0:
            fewstep.sample(world, 2, solver=solver, steps=3, start=torch.randn(2, 8))

    for number in range(200):
        call(number)
    gc.collect()
    before, objects = resident(), len(gc.get_objects())
    for number in range(1000):
        call(200 + number)
    gc.collect()
    assert len(gc.get_objects()) - objects < 500
    assert resident() - before < 8 * 2**20


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++", "unipc", "heun", "sde-dpm-solver++"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.float16, 2e-2),
                                                (torch.bfloat16, 0.15)])  # fmt: skip
def test_every_precision_is_as_near_as_it_can_be(solver, dtype, allowed):
    """The same noises and the same plan in float64; a coefficient that was rounded on its way would show."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    denoiser = GaussianMixture([0.3, 0.3, 0.4], means, torch.full((3, 1), 0.2)).denoiser(fewstep.VP())
    plan = fewstep.make_plan(denoiser.path, solver, steps=12)
    exact, rounded = (
        fewstep.sample(denoiser, 16, plan=plan, dtype=kind, seed=1).x.double() for kind in (torch.float64, dtype)
    )
    assert float((rounded - exact).square().mean().sqrt()) <= allowed
