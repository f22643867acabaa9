"""AutoDiffusion: an evolution of the times that a sampler visits, and of the layers that it leaves out there.

A candidate is a set of training times, one a step, and a list of layers left out at each.  Its fitness is the Fréchet
distance of samples from fixed noises to data; lower is better.  The first generation is the uniform grid, random grids
and mutations of the uniform one; a later one has

    mutations    of a parent: each time is replaced, with a probability, by one that is not used
    crossovers   of two parents: each place from either
    random       candidates

and the parents are the best of all that were ever tried.  No candidate is tried twice.  Layers come in after the times,
and more of them every generation, up to the share that is wanted.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers.skipped_layers import layers_of
from fewstep.errors import ArgumentError
from fewstep.metrics import frechet_distance
from fewstep.paths import DiscreteVP, Path
from fewstep.plan import Plan
from fewstep.planning import make_plan
from fewstep.tuning.levels import intervals
from fewstep.tuning.problem import Problem, Tuner

Candidate = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
# The published generation: 25 mutations and 15 crossovers of 50, 10 parents; the uniform grid's own mutations are few.
MUTATED, CROSSED, PARENTS, FIRST_RATE, TRIES = 0.5, 0.3, 0.2, 0.1, 10
FEWEST = 5


@dataclass(frozen=True)
class Species:
    """What candidates of one search are like, and how they breed.

    Args:
        steps: of a candidate.
        count: of times to choose from, numbered from 0 (the cleanest) to count − 1 (t = 1, where all begin).
        layers: that may be left out.
        rate: the probability that a mutation replaces an entry.
    """

    steps: int
    count: int
    layers: int
    rate: float

    def uniform(self) -> Candidate:
        """Even times, nothing left out."""
        return tuple(self.count * (self.steps - i) // self.steps - 1 for i in range(self.steps)), ((),) * self.steps

    def drawn(self, rng: random.Random, left_out: int) -> Candidate:
        """Any times, and so many layers left out anywhere."""
        times = sorted(rng.sample(range(self.count - 1), self.steps - 1), reverse=True)
        places = rng.sample(range(self.steps * self.layers), left_out)
        return (self.count - 1, *times), self._lists(places)

    def mutated(self, rng: random.Random, parent: Candidate, left_out: int, rate: float) -> Candidate:
        """Entries replaced, each with a probability, by ones that are not used."""
        times = self._filled(rng, {t for t in parent[0][1:] if rng.random() >= rate}, set(parent[0]))
        kept = [place for place in self._places(parent) if rng.random() >= rate]
        return times, self._topped(rng, kept, left_out)

    def crossed(self, rng: random.Random, one: Candidate, other: Candidate, left_out: int) -> Candidate:
        """Each place from either; a time that comes twice is replaced, so that no step is lost."""
        times = {rng.choice(pair) for pair in zip(one[0][1:], other[0][1:], strict=True)}
        lists = tuple(rng.choice(pair) for pair in zip(one[1], other[1], strict=True))
        return self._filled(rng, times, set()), self._topped(rng, self._places(((), lists)), left_out)

    def _filled(self, rng: random.Random, times: set[int], avoided: set[int]) -> tuple[int, ...]:
        while len(times) < self.steps - 1:
            free = [t for t in range(self.count - 1) if t not in times and t not in avoided]
            times |= {rng.choice(free or [t for t in range(self.count - 1) if t not in times])}
        return (self.count - 1, *sorted(times, reverse=True))

    def _topped(self, rng: random.Random, kept: list[int], left_out: int) -> tuple[tuple[int, ...], ...]:
        kept = rng.sample(kept, min(len(kept), left_out))
        free = [place for place in range(self.steps * self.layers) if place not in kept]
        return self._lists(kept + rng.sample(free, left_out - len(kept)))

    def _places(self, candidate: Candidate) -> list[int]:
        return [i * self.layers + layer for i, layers in enumerate(candidate[1]) for layer in layers]

    def _lists(self, places: list[int]) -> tuple[tuple[int, ...], ...]:
        lists: list[list[int]] = [[] for _ in range(self.steps)]
        for place in sorted(places):
            lists[place // self.layers].append(place % self.layers)
        return tuple(map(tuple, lists))


def generation(
    species: Species, rng: random.Random, tried: dict[Candidate, float], size: int, left_out: int
) -> list[Candidate]:
    """The candidates of the next generation, none of them tried before.

    Args:
        species: what they are like.
        rng: what is drawn from.
        tried: the fitness of all so far; empty for the first generation.
        size: how many are wanted; fewer come where the space is used up.
        left_out: layers that each leaves out in all.
    """
    found: list[Candidate] = []

    def want(count: int, make: Callable[[], Candidate]) -> None:
        for _ in range(TRIES * count):
            if count <= 0 or len(found) >= size:
                return
            one = make()
            if one not in tried and one not in found:
                found.append(one)
                count -= 1

    if not tried:
        uniform = species.uniform()
        want(1, lambda: uniform)
        want(size // 2, lambda: species.drawn(rng, left_out))
        want(size - len(found), lambda: species.mutated(rng, uniform, left_out, FIRST_RATE))
    else:
        parents = sorted(tried, key=lambda one: (tried[one], one))[: max(2, round(PARENTS * size))]
        want(round(MUTATED * size), lambda: species.mutated(rng, rng.choice(parents), left_out, species.rate))
        want(round(CROSSED * size), lambda: species.crossed(rng, rng.choice(parents), rng.choice(parents), left_out))
    want(size - len(found), lambda: species.drawn(rng, left_out))
    return found


@method(
    name="autodiffusion",
    papers=[
        "AutoDiffusion: Training-Free Optimization of Time Steps and Architectures for Automated Diffusion Model "
        "Acceleration"
    ],
    arxiv="2309.10438", family="tuning",
    summary="An evolution of times, and of layers left out, by the Frechet distance of samples to data.",
)  # fmt: skip
@dataclass(frozen=True)
class AutoDiffusion(Tuner):
    """A solver at the times, and without the layers, that an evolution finds.

    Args:
        solver: of the catalogue, deterministic.
        population: candidates a generation, at least 5; 50 as published.  Fewer where the budget is short of that many
            in every generation, so that it evolves.
        generations: at least 1; 10 as published.
        rate: the probability that a mutation replaces an entry, in (0, 1].
        samples: that a fitness is measured on; 1,000 to 5,000 as published for pictures.
        skip: the share of all layers of all steps that is left out in the end, in [0, 1); 0.1 as published, in the
            second half of the generations.
        features: what the distance is measured in, a batch to (batch, d); the samples themselves unless given.

    Raises:
        ArgumentError: a parameter out of its range.
    """

    solver: str = "ddim"
    population: int = 50
    generations: int = 10
    rate: float = 0.25
    samples: int = 256
    skip: float = 0.0
    features: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for name, least in (("population", FEWEST), ("generations", 1), ("samples", 2)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ArgumentError(f"{name} must be an integer of at least {least}, got {getattr(self, name)!r}")
        if not 0 < self.rate <= 1 or not 0 <= self.skip < 1:
            raise ArgumentError(f"rate must lie in (0, 1] and skip in [0, 1), got {self.rate!r} and {self.skip!r}")

    def __call__(self, problem: Problem) -> Plan:
        """The plan of the fittest; where the budget ends, of those that were tried with the most layers left out."""
        names = list(layers_of(problem.denoiser)) if self.skip else []
        path = problem.denoiser.path
        count = len(path.betas) if isinstance(path, DiscreteVP) else 1000
        steps = intervals(path, self.solver, problem.evaluations)
        species = Species(steps, count, len(names), self.rate)
        tried = self._evolved(problem, species, names)
        most = max(sum(map(len, one[1])) for one in tried)
        fittest = min((one for one in tried if sum(map(len, one[1])) == most), key=lambda one: (tried[one], one))
        return self._plan(path, species, fittest, names)

    def measure(self, plan: Plan) -> str:
        """The fitness."""
        return "Frechet distance to data"

    def judged(self, problem: Problem, plan: Plan, n: int, part: int) -> Tensor:
        """The Fréchet distance to data of as many other samples as a fitness is measured on, (1,)."""
        return self._distance(problem, plan, problem.starts(self.samples, part)).reshape(1)

    def judging_cost(self, problem: Problem, n: int, plans: int) -> int:
        """A run of each."""
        return problem.clean_cost(self.samples) + plans * problem.run_cost(problem.evaluations, self.samples)

    def _distance(self, problem: Problem, plan: Plan, start: Tensor) -> Tensor:
        ends = problem.run(plan, start).float().double()
        return frechet_distance(ends, problem.clean(self.samples), self.features)

    def _evolved(self, problem: Problem, species: Species, names: list[str]) -> dict[Candidate, float]:
        """The fitness of every candidate that was tried."""
        start = problem.starts(self.samples, part=1)
        problem.clean(self.samples)  # counted before the rounds that the rest allows
        kept = [
            ((tuple(times), tuple(map(tuple, lists))), value) for times, lists, value in problem.state.get("all", [])
        ]
        tried: dict[Candidate, float] = {}
        each = problem.run_cost(problem.evaluations, self.samples)
        whole = problem.affordable("the evolution", self.generations * self.population, each)
        size = max(FEWEST, whole // self.generations)
        for number in range(self.generations):
            rng = random.Random(f"{problem.seed} {number}")
            left_out = self._left_out(number, species)
            for one in generation(species, rng, dict(tried), size, left_out):
                if len(tried) < len(kept):
                    assert kept[len(tried)][0] == one
                    tried[one] = kept[len(tried)][1]
                    continue
                if tried and not problem.left(each):
                    return tried
                plan = self._plan(problem.denoiser.path, species, one, names)
                tried[one] = float(self._distance(problem, plan, start))
                problem.keep(all=[[*c, value] for c, value in tried.items()])
            best = min(value for c, value in tried.items() if sum(map(len, c[1])) == left_out)
            problem.record(best)
            problem.tell(f"generation {number + 1} of {self.generations}: best distance {best:.4g}")
        return tried

    def _left_out(self, number: int, species: Species) -> int:
        """Layers that a candidate of this generation leaves out: none in the first half, then more and more."""
        whole, half = self.skip * species.steps * species.layers, self.generations // 2
        return round(whole * max(0, number + 1 - half) / max(1, self.generations - half))

    def _plan(self, path: Path, species: Species, one: Candidate, names: list[str]) -> Plan:
        times = torch.tensor([*one[0], -1], dtype=torch.float64) + 1
        plan = make_plan(path, self.solver, times / species.count)
        if not any(one[1]):
            return plan
        return replace(plan, skips=tuple(tuple(names[layer] for layer in layers) for layers in one[1]))

    def untuned(self, problem: Problem) -> Plan:
        """The same solver on the uniform grid, with all layers."""
        return make_plan(problem.denoiser.path, self.solver, "uniform", evaluations=problem.evaluations)

    def least(self, problem: Problem) -> int:
        """The data, where none are given, and one candidate."""
        return problem.clean_cost(self.samples) + problem.run_cost(problem.evaluations, self.samples)
