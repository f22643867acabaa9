"""The geometry of a sampler's way from noise to data.

In z = x/α against σ̄ = σ/α every path draws the same curve, dz/dσ̄ = (z − r)/σ̄, with r(σ̄) = x̂₀(x) the *denoising
trajectory*.  An Euler step lands between state and answer, z′ = (σ̄′/σ̄)·z + (1 − σ̄′/σ̄)·r, and dr/dσ̄ = −σ̄·d²z/dσ̄²: the
denoising trajectory carries the curvature.  On a data set y₁ … yₙ the best answer is the mean shift of bandwidth σ̄,

    r*(z) = Σᵢ softmaxᵢ(−‖z − yᵢ‖²/2σ̄²)·yᵢ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fewstep.catalog import method
from fewstep.denoisers import Denoiser
from fewstep.errors import ArgumentError
from fewstep.plan import Plan
from fewstep.sampling import stream


@dataclass(frozen=True)
class Trajectory:
    """Where a run was, and what the network believed there; d numbers a sample, float64 on the host.

    Args:
        levels: σ̄ of each state, falling, (states,).
        z: the states, (states, batch, d).
        r: the last answer before each state but the first, (states − 1, batch, d); r[i] belongs to levels[i].
    """

    levels: Tensor
    z: Tensor
    r: Tensor

    @staticmethod
    def _off_chord(points: Tensor) -> Tensor:
        chord = points[-1] - points[0]
        along = (points - points[0]) * chord
        share = along.sum(-1, keepdim=True) / chord.square().sum(-1, keepdim=True).clamp(min=1e-300)
        return (points - points[0] - share * chord).norm(dim=-1)

    def deviation(self) -> Tensor:
        """The distance of each state from the straight line between the first and the last, (states, batch)."""
        return self._off_chord(self.z)

    def answers_deviation(self) -> Tensor:
        """The same of the denoising trajectory, (states − 1, batch)."""
        return self._off_chord(self.r)

    def distance(self) -> Tensor:
        """How far each state is from the last, (states, batch)."""
        return (self.z - self.z[-1]).norm(dim=-1)

    def answers_distance(self) -> Tensor:
        """How far each answer is from the last, (states − 1, batch)."""
        return (self.r - self.r[-1]).norm(dim=-1)

    def bend(self) -> Tensor:
        """‖d²z/dσ̄²‖ = ‖dr/dσ̄‖/σ̄ between neighbouring answers, (states − 2, batch)."""
        levels = self.levels[: len(self.r), None]
        middle = (levels[1:] * levels[:-1]).sqrt()
        return self.r.diff(dim=0).norm(dim=-1) / (levels.diff(dim=0).abs() * middle)

    def cosine(self) -> Tensor:
        """The cosine between the direction of each step and the way to the end, (states − 1, batch)."""
        return torch.nn.functional.cosine_similarity(self.z[:-1] - self.r, self.z[:-1] - self.z[-1], dim=-1)

    def explained(self, components: int, off_chord: bool = False) -> Tensor:
        """The share of a trajectory's variance that its first principal components hold, (batch,).

        Args:
            components: how many, at least 1.
            off_chord: of the part normal to the chord alone.

        Raises:
            ArgumentError: a bad number of components.
        """
        self._check(components)
        points = self.z.transpose(0, 1)
        values = torch.linalg.svdvals(self._across() if off_chord else points - points.mean(1, keepdim=True)).square()
        return values[:, :components].sum(1) / values.sum(1)

    def projected(self, components: int = 2) -> Tensor:
        """Where each trajectory is beside its chord, along its first principal components, (batch, states, components).

        Args:
            components: how many, from 1 to the numbers of a sample.

        Raises:
            ArgumentError: a bad number of components.
        """
        self._check(components)
        across = self._across()
        return (across - across[:, :1]) @ torch.linalg.svd(across, full_matrices=False).Vh[:, :components].mT

    def _check(self, components: int) -> None:
        if not isinstance(components, int) or isinstance(components, bool) or not 1 <= components <= self.z.shape[2]:
            raise ArgumentError(f"components must be an integer from 1 to {self.z.shape[2]}, got {components!r}")

    def _across(self) -> Tensor:
        """The part of the states normal to the chord, about its mean, (batch, states, d)."""
        points = self.z.transpose(0, 1)
        chord = torch.nn.functional.normalize(points[:, -1] - points[:, 0], dim=-1)[:, None]
        points = points - (points * chord).sum(-1, keepdim=True) * chord
        return points - points.mean(1, keepdim=True)

    def plot(self, path: str | FilePath) -> None:
        """Draw deviation, distance, cosine and bend against σ̄, mean and spread over the samples; and the components."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 6.2), layout="constrained")
        # The last state and answer are the ends themselves, which a logarithm cannot show.
        kinds = {
            "distance from the chord": {"state": self.deviation(), "answer": self.answers_deviation()},
            "distance from the end": {"state": self.distance()[:-1], "answer": self.answers_distance()[:-1]},
            "1 − cosine to the end": {"state": (1 - self.cosine()[:-1]).clamp(min=1e-12)},
            "bend ‖d²z/dσ̄²‖": {"state": self.bend()},
        }
        panels = figure.subplots(2, 3)
        for axes, (title, curves) in zip(panels[:, :2].flat, kinds.items(), strict=True):
            for name, values in curves.items():
                seen = self.levels[: len(values)] > 0
                levels, values = self.levels[: len(values)][seen], values[seen]
                middle, spread = values.mean(1), values.std(1, correction=0)
                axes.plot(levels, middle, label=name)
                axes.fill_between(levels, (middle - spread).clamp(min=0), middle + spread, alpha=0.2)
            axes.set(title=title, xlabel="σ̄", xscale="log")
            axes.invert_xaxis()
            if title != "distance from the chord":
                axes.set_yscale("log")
            if len(curves) > 1:
                axes.legend(frameon=False)
        self._draw_components(panels[0, 2], panels[1, 2])
        for axes in panels.flat:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)

    def _draw_components(self, ways: Any, shares: Any) -> None:
        """The ways in the plane of their own two first components beside the chord, and what is left after more."""
        for way in self.projected(2):
            ways.plot(*way.mT, lw=0.9)
        ways.set(title="beside the chord", xlabel="first component", ylabel="second component")
        counts = range(1, min(6, self.z.shape[2] + 1))
        for name, off_chord in (("all", False), ("beside the chord", True)):
            left = [float((1 - self.explained(k, off_chord)).mean().clamp(min=1e-12)) for k in counts]
            shares.semilogy(counts, left, "o-", label=name)
        shares.set(title="variance that is left", xlabel="components")
        shares.set_xticks(counts)
        shares.legend(frameon=False)


@method(
    name="trajectory-geometry", papers=["A Geometric Perspective on Diffusion Models"], arxiv="2305.19947",
    family="theory", summary="The shape of a sampler's way: chord, curvature, principal components, its answers.",
)  # fmt: skip
def follow(denoiser: Denoiser, start: Tensor, plan: Plan, cond: Mapping[str, Any] | None = None) -> Trajectory:
    """Run a plan and keep its way.

    Args:
        denoiser: the model.
        start: (batch, *shape), the state at the plan's first time.
        plan: one evaluation a step, with one time for all; states where α = 0 have no z and are left out.
        cond: as in `sample`.

    Raises:
        ArgumentError: a plan with several evaluations a step, or with several times at once.
    """
    if plan.evaluations != plan.steps or plan.place or bool((plan.times.diff() >= 0).any()):
        raise ArgumentError("follow takes a plan with one evaluation a step and one time for all")
    alpha, sigma = plan.path.alpha(plan.times.detach()), plan.path.sigma(plan.times.detach())
    states, answers = [start], []
    for event in stream(denoiser, start=start, plan=plan, cond=cond):
        states.append(event.x)
        answers.append(event.x0)
    known = alpha > 0
    scaled = [x.flatten(1).double().cpu() / a for x, a, there in zip(states, alpha, known, strict=True) if there]
    believed = [r.flatten(1).double().cpu() for r, there in zip(answers, known[:-1], strict=True) if there]
    return Trajectory((sigma / alpha)[known], torch.stack(scaled), torch.stack(believed))


def mean_shift(data: Tensor, z: Tensor, bandwidth: float) -> Tensor:
    """One Gaussian mean-shift step: r*(z) = Σᵢ softmaxᵢ(−‖z − yᵢ‖²/2h²)·yᵢ.

    Args:
        data: y, (n, *shape).
        z: (batch, *shape).
        bandwidth: h, above 0.

    Raises:
        ArgumentError: other shapes, or a bandwidth that is not above 0.
    """
    if data.shape[1:] != z.shape[1:]:
        raise ArgumentError(f"data and z must be of one shape a row, got {tuple(data.shape)} and {tuple(z.shape)}")
    if not bandwidth > 0:
        raise ArgumentError(f"bandwidth must be above 0, got {bandwidth!r}")
    far = torch.cdist(z.flatten(1), data.flatten(1)).square()
    return ((-far / (2 * bandwidth**2)).softmax(1) @ data.flatten(1)).reshape(z.shape)
