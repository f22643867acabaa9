"""The rows of a program: what each step of a plan needs, made on the host once for one denoiser.

The told times go to the device, the coefficients become numbers, and, where nobody changes answers, the network's own
prediction is folded into them (x̂₀ = A·x + C·raw):

    M[to, asked] += B[to, slot]·A,      B[to, slot] *= C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.plan import Plan

Number = float | Tensor
Term = tuple[int, Number]
Writes = list[tuple[int, list[Term]]]


@dataclass(frozen=True)
class Question:
    """An ask, ready: the register, what the network is told, and x̂₀ = on_x·x + on_raw·raw at the path's α."""

    register: int
    told: Tensor
    on_x: Number
    on_raw: Number
    alpha: Number
    t: Tensor


@dataclass(frozen=True)
class Row:
    """A step, ready: terms (index into registers ⊕ answers ⊕ noises, coefficient) for each register written."""

    questions: list[Question]
    writes: Writes
    draws: int
    lam: tuple[float, float]
    t: Tensor
    t_next: Tensor


def rows_of(plan: Plan, denoiser: Denoiser, folds: bool, dtype: torch.dtype, device: torch.device | str) -> list[Row]:
    """The rows of a plan.

    Args:
        plan: the sampler.
        denoiser: says what the network is told, and how its answer tells x̂₀.
        folds: whether its prediction is folded into the coefficients.
        dtype: the dtype of the state.
        device: where it runs.

    Raises:
        ArgumentError: the network's prediction does not tell x̂₀ at one of the plan's times.
    """
    told = denoiser.told(plan.ask_times).to(device)
    told = told if dtype == torch.float64 else told.float()
    usual = type(denoiser).basis is Denoiser.basis
    if not (usual and _plain((told, plan.times, plan.ask_times, plan.M.value, plan.B.value, plan.N.value))):
        return _made(plan, denoiser, folds, dtype, device, told)
    # A plan never changes, so that what was made of it holds for every network that predicts and is told the same.
    kept: dict[Any, tuple[Tensor, list[Row]]] = plan.__dict__["_kept"]
    key = (denoiser.predicts, folds, dtype, str(device))
    if key not in kept or not torch.equal(kept[key][0], told):
        with torch.inference_mode(False):
            told = told.clone()
            kept[key] = (told, _made(plan, denoiser, folds, dtype, device, told))
    return kept[key][1]


def _plain(columns: Sequence[Tensor]) -> bool:
    """Whether all are lists of numbers, one for all samples, that nobody differentiates."""
    return all(column.ndim == 1 and not column.requires_grad for column in columns)


def _made(
    plan: Plan, denoiser: Denoiser, folds: bool, dtype: torch.dtype, device: torch.device | str, told: Tensor
) -> list[Row]:
    on_x, on_raw = denoiser.basis(plan.ask_times)
    for name, value in (("x", on_x), ("its answer", on_raw)):
        if not value.isfinite().all():
            raise ArgumentError(
                f"the network predicts {denoiser.predicts}, which does not tell x̂₀ at every time of the plan "
                f"(the factor on {name} is not finite): start the grid below t = 1"
            )
    alpha, lam = plan.path.alpha(plan.ask_times), plan.path.lam(plan.times.detach())
    columns = (on_x, on_raw, alpha, plan.M.value, plan.B.value, plan.N.value)
    # Numbers of the host are many times cheaper than tensors of one number, and the same to the last bit.
    plain = _plain(columns)
    a, c, at, *values = (column.tolist() if plain else list(column.unbind()) for column in columns)

    def ready(value: Number) -> Number:
        if isinstance(value, float):
            return value
        return float(value) if value.ndim == 0 and not value.requires_grad else value.to(device, dtype)

    questions: list[list[Question]] = [[] for _ in range(plan.steps)]
    numbers = [[ready(v) for v in column] for column in (a, c, at)]
    asked = zip(plan.asks.tolist(), told.unbind(), *numbers, plan.ask_times.unbind(), strict=True)
    for (step, register), its_told, its_a, its_c, its_alpha, t in asked:
        questions[step].append(Question(register, its_told, its_a, its_c, its_alpha, t))
    writes = []
    for step in _summed(plan, values, questions, (a, c) if folds else None):
        kept = [(to, {k: v for k, v in terms.items() if _counts(v)} or terms) for to, terms in step.items()]
        writes.append([(to, [(k, ready(v)) for k, v in terms.items()]) for to, terms in kept])
    _quicken(writes)
    draws = [0] * plan.steps
    for index, _, source in plan.N.index.tolist():
        draws[index] = max(draws[index], source + 1)
    ends = lam.tolist() if lam.ndim == 1 else [float("nan")] * len(lam)
    times = plan.times.unbind()
    return [
        Row(questions[i], writes[i], draws[i], (ends[i], ends[i + 1]), times[i], times[i + 1])
        for i in range(plan.steps)
    ]


def _summed(
    plan: Plan,
    values: Sequence[Sequence[Number]],
    questions: list[list[Question]],
    basis: tuple[Sequence[Number], Sequence[Number]] | None,
) -> list[dict[int, dict[int, Number]]]:
    """For each step and register written: the factor of every value that is read, the basis folded in if given."""
    size = len(plan.registers)
    first = [0]
    for some in questions:
        first.append(first[-1] + len(some))
    summed: list[dict[int, dict[int, Number]]] = [{} for _ in range(plan.steps)]

    def add(step: int, to: int, index: int, value: Number) -> None:
        terms = summed[step].setdefault(to, {})
        terms[index] = terms[index] + value if index in terms else value

    for (step, to, source), value in zip(plan.M.index.tolist(), values[0], strict=True):
        add(step, to, source, value)
    for (step, to, source), value in zip(plan.B.index.tolist(), values[1], strict=True):
        if basis is not None:
            place = first[step] + source
            add(step, to, questions[step][source].register, value * basis[0][place])
            value = value * basis[1][place]
        add(step, to, size + source, value)
    for (step, to, source), value in zip(plan.N.index.tolist(), values[2], strict=True):
        add(step, to, size + len(questions[step]) + source, value)
    return summed


def _counts(value: Number) -> bool:
    return value != 0 if isinstance(value, float) else value.requires_grad or bool(value.any())


def _quicken(writes: list[Writes]) -> None:
    """Make the first factor of every sum a tensor: a product with one takes half the time of one with a float."""
    heads = [terms for step in writes for _, terms in step if len(terms) > 1 and isinstance(terms[0][1], float)]
    made = torch.tensor([terms[0][1] for terms in heads], dtype=torch.float64).unbind()
    for terms, head in zip(heads, made, strict=True):
        terms[0] = (terms[0][0], head)
