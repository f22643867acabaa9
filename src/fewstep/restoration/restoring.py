"""Restoring: samples of x₀ that agree with a measurement, by any method of the catalogue's family "restoration"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import Method, methods
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError, NumericalError, some_of, unknown
from fewstep.grids import Grid
from fewstep.guidance import Guide
from fewstep.restoration.base import RestorationGuide, RestorationLoop
from fewstep.restoration.decoded import decoded
from fewstep.restoration.measurement import Measurement
from fewstep.results import Output
from fewstep.sampling import sample
from fewstep.solvers import Solver

# Samples so many times farther from 0 than data have diverged.
FAR = 1e4


@dataclass(frozen=True, repr=False)
class Restored(Output):
    """What `restore` gives back: an Output whose samples stand row by row of the measurement.

    Args:
        measurement: what was restored; sample b·S + s belongs to its row b, of S samples a row.
        latents: of a latent model, the states that the samples x were decoded from.
    """

    measurement: Measurement | None = None
    latents: Tensor | None = None

    def _by_row(self) -> Tensor:
        assert self.measurement is not None
        return self.x.reshape(len(self.measurement.y), -1, *self.x.shape[1:])

    @property
    def mean(self) -> Tensor:
        """The mean over the samples of each row, (rows, *shape)."""
        return self._by_row().mean(1)

    @property
    def std(self) -> Tensor:
        """The standard deviation over the samples of each row, (rows, *shape); 0 for one sample."""
        return self._by_row().std(1, correction=min(1, self._by_row().shape[1] - 1))


def _row(name: str) -> tuple[Method, Any]:
    """(the catalogue's row of a restorer, its class)."""
    rows = {m.name: m for m in methods() if m.family == "restoration"}
    if not isinstance(name, str) or name not in rows:
        raise unknown("restoration method", name, rows)
    return rows[name], getattr(import_module(rows[name].module), rows[name].symbol)


def budget_of(name: str) -> int:
    """The network evaluations a sample that a method spends unless told how many: those of its paper.

    Raises:
        ArgumentError: the name is unknown; the nearest names are offered.
    """
    row, made = _row(name)
    return int(dict(row.arguments).get("steps", made.budget))


def restorer_named(name: str, measurement: Measurement, **parameters: Any) -> RestorationGuide | RestorationLoop:
    """The method of that name in the catalogue, for a measurement.

    Args:
        name: as in `fewstep catalog`, family restoration.
        measurement: what the samples must agree with.
        parameters: parameters that differ from the catalogue's row.

    Raises:
        ArgumentError: the name or a parameter is unknown; the nearest names are offered.
    """
    row, made = _row(name)
    try:
        restorer: RestorationGuide | RestorationLoop = made(measurement, **{**dict(row.arguments), **parameters})
    except TypeError as error:
        own = [f.name for f in fields(made) if f.init and f.name != "measurement"]
        others = sorted(parameters.keys() - set(own))
        if others:
            its = f"the method's own parameters are {', '.join(own) or 'none'}"
            raise ArgumentError(f"neither restore nor method {name!r} takes {others[0]!r}; {its}") from error
        raise ArgumentError(f"method {name!r}: {error}") from error
    return restorer


def _check(denoiser: object, measurement: object, samples: object, evaluations: object) -> None:
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError(f"denoiser must be a fewstep denoiser (see fewstep.wrap), got {type(denoiser).__name__}")
    if not isinstance(measurement, Measurement):
        raise ArgumentError(f"measurement must be a Measurement, got {type(measurement).__name__}")
    for name, value in (("samples", samples), ("evaluations", 1 if evaluations is None else evaluations)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ArgumentError(f"{name} must be an integer of at least 1, got {value!r}")


def _refuse_far(x: Tensor, limits: tuple[float, float]) -> None:
    """Refuse samples that are so far from where data lie that the run can only have diverged."""
    reach = max(abs(limits[0]), abs(limits[1]))
    far = x.detach().flatten(1).abs().amax(1)
    bad = (far > FAR * reach).nonzero().flatten().tolist()
    if bad:
        raise NumericalError(
            f"the samples {some_of(bad, len(x))} diverged, to {float(far.max()):.1e} where data lie within ±{reach:g}: "
            "take more evaluations or a smaller scale"
        )


def _on_grid(
    loop: RestorationLoop, method: str, solver: str | Solver | None, grid: str | Grid | None
) -> RestorationLoop:
    """A loop on another grid, where it has one to choose."""
    if solver is not None or (grid is not None and not hasattr(loop, "grid")):
        takes = "no solver" if hasattr(loop, "grid") else "no solver and no grid"
        raise ArgumentError(f"method {method!r} has a loop of its own, so it takes {takes}")
    of_its_own: Any = loop
    return loop if grid is None else replace(of_its_own, grid=grid)


def restore(
    denoiser: Denoiser,
    measurement: Measurement,
    method: str = "dps",
    *,
    evaluations: int | None = None,
    samples: int = 1,
    seed: int = 0,
    first: int = 0,
    solver: str | Solver | None = None,
    grid: str | Grid | None = None,
    guides: Sequence[Guide] = (),
    cond: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **parameters: Any,
) -> Restored:
    """Draw samples that agree with a measurement.

    Args:
        denoiser: the model.
        measurement: y and how it was made; each row is restored by itself.
        method: a name of the catalogue's family "restoration".
        evaluations: network evaluations a sample; what the paper spends unless given.
        samples: how many samples a row, at least 1.
        seed, first: sample i of all rows depends on (seed, first + i) alone.
        solver, grid: what a method that is a guide runs on instead of its paper's choice; of the methods with a loop
            of their own ddrm and ddnm+ take a grid.
        guides: further guides, such as CFG(2.0).
        cond: conditions by the network's names.
        dtype, device: of the state.
        parameters: parameters of the method.

    Returns:
        The samples, and their mean and deviation for each row.

    Raises:
        ArgumentError: a bad argument, before the first evaluation.
        NumericalError: the network answered with NaN or Inf, or the samples diverged.
    """
    _check(denoiser, measurement, samples, evaluations)
    if grid is not None and not isinstance(grid, str) and not callable(grid):
        raise ArgumentError(f"grid must be a name or a grid such as grids.Karras(), got {grid!r}")
    measurement.check(denoiser.picture_shape, denoiser.limits)
    seen = replace(measurement.repeated(samples), y=measurement.repeated(samples).y.to(device, dtype))
    seen = decoded(seen, denoiser)
    restorer = restorer_named(method, seen, **parameters)
    common: dict[str, Any] = {"cond": cond, "seed": seed, "first": first, "dtype": dtype, "device": device}
    rows = samples * len(measurement.y)
    if isinstance(restorer, RestorationGuide):
        plan = restorer.plan(denoiser.path, evaluations or restorer.budget, solver, grid)
        out = sample(denoiser, rows, plan=plan, guides=[*guides, *restorer.guides()], **common)
    else:
        loop = _on_grid(restorer, method, solver, grid)
        loop = loop if evaluations is None else loop.spending(evaluations)
        out = loop(denoiser, rows, guides=guides, **common)
    with torch.no_grad():
        pictures = denoiser.decode(out.x) if denoiser.latent else out.x
    _refuse_far(pictures, denoiser.limits)
    latents = out.x if denoiser.latent else None
    return Restored(**{**vars(out), "x": pictures, "latents": latents, "measurement": measurement})
