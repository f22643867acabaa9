"""AutoDiffusion: candidates stay what they must be, a left-out layer is its shortcut, evolution gains and goes on."""

import random
import threading
from dataclasses import replace
from functools import cache

import pytest
import torch

import fewstep
from fewstep import VP, make_plan, sample, tune
from fewstep.denoisers.skipped_layers import layers_of, left_out, share_left_out, skipping
from fewstep.errors import ArgumentError, PlanError
from fewstep.metrics import frechet_distance
from fewstep.networks import build
from fewstep.plan import Plan
from fewstep.tuning.auto_diffusion import AutoDiffusion, Species, generation
from fewstep.tuning.problem import Problem
from fewstep.tuning.random_mixtures import mixtures


@cache
def world(path):
    """Twenty overlapping modes in 64 dimensions; made once a path, as the flow that comes with it takes its time."""
    return mixtures(path, 8, 1)[1][0]


def model(kind):
    torch.manual_seed(1)
    config = {"kind": "unet", "channels": 1, "classes": 2, "width": 8, "multipliers": [1, 2], "attention": [0, 2]}
    if kind == "dit":
        config = {"kind": "dit", "channels": 1, "classes": 2, "side": 8, "patch": 4, "width": 8, "depth": 3, "heads": 2}
    network = build(config)
    for parameter in network.parameters():  # fresh blocks are the identity
        torch.nn.init.normal_(parameter, std=0.2)
    return fewstep.wrap(network.requires_grad_(False), VP(), "v", shape=(1, 8, 8), null={"label": 2}, time="t")


def check(species, one, left=0):
    times, lists = one
    assert times[0] == species.count - 1
    assert list(times) == sorted(set(times), reverse=True)
    assert len(times) == len(lists) == species.steps
    assert sum(map(len, lists)) == left
    assert all(list(v) == sorted(set(v)) and set(v) <= set(range(species.layers)) for v in lists)


def test_candidates_stay_candidates():
    rng, species = random.Random(0), Species(5, 30, 4, 0.5)
    check(species, species.uniform())
    assert species.uniform()[0] == (29, 23, 17, 11, 5)
    for left in (0, 3, 20):
        for _ in range(40):
            one, other = species.drawn(rng, left), species.drawn(rng, max(0, left - 2))
            check(species, one, left)
            child, both = species.mutated(rng, other, left, 0.5), species.crossed(rng, one, other, left)
            check(species, child, left)
            check(species, both, left)
    still = species.mutated(rng, one, 20, 0.0)
    assert still == one
    fresh = species.mutated(rng, one, 20, 1.0)
    assert not set(fresh[0][1:]) & set(one[0][1:])


def test_generations_are_the_published_ones():
    rng, species = random.Random(0), Species(4, 100, 0, 0.25)
    first = generation(species, rng, {}, 50, 0)
    assert (len(first), len(set(first)), first[0]) == (50, 50, species.uniform())
    near = [len(set(one[0]) & set(species.uniform()[0])) for one in first]
    assert min(near[26:]) >= 1
    assert sum(near[26:]) / 24 > 2.5
    tried = {one: float(i) for i, one in enumerate(first)}
    second = generation(species, rng, tried, 50, 0)
    assert not set(second) & set(first)
    assert len(second) == 50
    parents = [set(one[0]) for one in first[:10]]
    assert sum(max(len(set(one[0]) & p) for p in parents) for one in second[:25]) / 25 > 2.3
    assert all(set(one[0]) <= set().union(*parents) for one in second[25:40])
    small = Species(2, 5, 0, 0.25)
    assert len(generation(small, rng, {}, 50, 0)) == 4


@pytest.mark.parametrize(("kind", "count"), [("unet", 11), ("dit", 3)])
def test_a_layer_that_is_left_out_is_its_shortcut(kind, count):
    denoiser = model(kind)
    layers = layers_of(denoiser)
    assert len(layers) == count
    x, t = torch.randn(2, 1, 8, 8), torch.full((2,), 0.5)
    plain = denoiser.net(x, t)
    for name, layer in layers.items():
        with left_out(layers, [name]):
            without = denoiser.net(x, t)
        assert not torch.allclose(without, plain)
        assert torch.equal(denoiser.net(x, t), plain)
        last = next(m for m in (getattr(layer, n, None) for n in ("conv2", "attention", "modulate")) if m is not None)
        last = getattr(last, "out", last) if kind == "unet" else layer.modulate
        kept = {k: v.clone() for k, v in last.state_dict().items()}
        for parameter in last.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.allclose(denoiser.net(x, t), without, atol=1e-6)
        last.load_state_dict(kept)


def test_contexts_nest_leave_no_trace_and_other_threads_are_untouched():
    denoiser = model("dit")
    layers, x, t, seen = layers_of(denoiser), torch.randn(1, 1, 8, 8), torch.ones(1), []
    first, second, _ = layers
    plain = denoiser.net(x, t)
    with left_out(layers, [first]):
        one = denoiser.net(x, t)
        with left_out(layers, [first, second]):
            assert not torch.equal(denoiser.net(x, t), one)
            thread = threading.Thread(target=lambda: seen.append(denoiser.net(x, t)))
            thread.start()
            thread.join()
        assert torch.equal(denoiser.net(x, t), one)
    assert torch.equal(seen[0], plain)
    assert not any("forward" in layer.__dict__ for layer in layers.values())


def test_sampling_a_plan_leaves_out_its_layers_at_its_times(tmp_path):
    denoiser = model("unet")
    whole = make_plan(VP(), "ddim", "uniform", 3)
    assert skipping(denoiser, whole.ask_times, whole.skips) is denoiser
    names = list(layers_of(denoiser))
    plan = replace(whole, skips=((), tuple(names[:2]), tuple(names[3:4])))
    assert plan != whole
    start = torch.randn(2, 1, 8, 8)
    x = start
    for i, left in enumerate(plan.skips):
        with left_out(layers_of(denoiser), left):
            x = sample(denoiser, start=x, plan=make_plan(VP(), "ddim", plan.times[i : i + 2])).x
    assert torch.allclose(sample(denoiser, start=start, plan=plan).x, x, atol=1e-6)
    assert not torch.allclose(sample(denoiser, start=start, plan=whole).x, x, atol=1e-3)
    assert share_left_out(denoiser, plan.skips) == pytest.approx(3 / 33)
    plan.save(str(tmp_path / "p.json"))
    again = Plan.load(str(tmp_path / "p.json"))
    assert (again, again.skips) == (plan, plan.skips)
    assert f"layers left out: answer 1: {names[0]}, {names[1]}; answer 2: {names[3]}" in str(again)
    with pytest.raises(ArgumentError, match="has no layers"):
        sample(denoiser, start=start, plan=replace(whole, skips=(("nothing",), (), ())))
    with pytest.raises(PlanError, match="asks 3 times and leaves out layers at 1"):
        replace(whole, skips=(("nothing",),))
    with pytest.raises(ArgumentError, match="leaving out layers needs"):
        layers_of(world(VP()))


def test_evolution_gains_on_noises_and_data_not_seen():
    denoiser = world(VP())
    plan = tune(denoiser, 4, method=AutoDiffusion(population=15, generations=4, samples=96), samples=32, settle=False)
    about = plan.source["tuned"]
    start, data = torch.randn(768, 64, dtype=torch.float64), denoiser.world.sample(768, 99)
    problem = Problem(denoiser, 4)
    uniform, found = (
        float(frechet_distance(problem.run(p, start), data)) for p in (make_plan(VP(), "ddim", "uniform", 4), plan)
    )
    assert found < 0.95 * uniform
    assert about["spent"] == 15 * 4 * 96 * 4
    values = [value for _, value in about["history"]]
    assert values == sorted(values, reverse=True)
    assert about["untuned"] == "ddim, uniform"


def test_it_is_judged_by_its_fitness_and_evolves_also_on_a_small_budget():
    denoiser = world(VP())
    data, method = denoiser.world.sample(256, 3), AutoDiffusion(samples=64, population=50, generations=5)
    plan = tune(denoiser, 4, method=method, data=data, budget=60 * 4 * 64, samples=16)
    about = plan.source["tuned"]
    assert about["measure"] == "Frechet distance to data"
    assert about["spent"] <= 60 * 4 * 64
    assert len(about["history"]) == 5  # ten candidates in each, not fifty in the first
    problem = Problem(denoiser, 4, data=data)
    ends = problem.run(plan, problem.starts(64, part=0))
    assert about["after"] == pytest.approx(float(frechet_distance(ends.float().double(), data[:64])), rel=1e-6)
    assert about["after"] <= about["before"]


def test_layers_are_left_out_in_the_end_and_a_kill_changes_nothing(tmp_path):
    denoiser = model("dit")
    data = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    tuner = AutoDiffusion(population=5, generations=4, samples=8, skip=0.3)
    options = {"method": tuner, "samples": 8, "data": data, "cond": {"label": [0, 1]}}
    whole = tune(denoiser, 4, **options)
    assert sum(map(len, whole.skips)) == round(0.3 * 12)

    def die(line):
        if line.startswith("generation 3"):
            raise KeyboardInterrupt

    file = tmp_path / "e.safetensors"
    with pytest.raises(KeyboardInterrupt):
        tune(denoiser, 4, checkpoint=file, tell=die, **options)
    again = tune(denoiser, 4, checkpoint=file, **options)
    assert again == whole
    assert again.source["tuned"]["spent"] == whole.source["tuned"]["spent"]
    little = tune(denoiser, 4, budget=200, **options).source["tuned"]
    assert 100 < little["spent"] <= 200


def test_bad_arguments_are_refused():
    for options, message in (
        ({"population": 4}, "population must"),
        ({"rate": 0.0}, "rate must"),
        ({"skip": 1.0}, "skip"),
    ):
        with pytest.raises(ArgumentError, match=message):
            AutoDiffusion(**options)
