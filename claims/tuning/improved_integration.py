"""IIA: what its paper claims of DDIM, EDM and DPM-Solver++ with fitted terms."""

from claims import Measured, claim
from claims.tuning.worlds import told_gains, tuned_errors, world
from fewstep import VE
from fewstep.tuning.problem import Problem
from fewstep.tuning.single import tuner_named

PAPER = "On Accelerating Diffusion-Based Sampling Process via Improved Integration Approximation"
PUBLISHED = {"towards": "step", "reweighted": 0}
NAMES = {1: "overlapping modes", 2: "separated modes", 3: "scales like pictures"}


def _errors(name: str, which: int, evaluations: int) -> tuple[float, float, float]:
    """The untuned error, that of what was fitted, and that of what `tune` makes of both, on noises not seen."""
    denoiser, start, ends = world(VE(), which)
    return tuned_errors(tuner_named(name, **PUBLISHED), Problem(denoiser, evaluations), start, ends, evaluations)


def _table(name: str, counts: tuple[int, ...]) -> tuple[str, list[bool], int]:
    """The figure, where the fit gains, and how often what `tune` makes of it is no worse."""
    told, wins, fine = [], [], 0
    for which, title in NAMES.items():
        rows = [(n, *_errors(name, which, n)) for n in counts]
        told.append(f"{title} {told_gains(rows)}")
        wins += [found < before for _, before, found, _ in rows]
        fine += sum(last <= before for _, before, _, last in rows)
    return f"median RMSE to the exact flow, VE, 64 dimensions, at evaluations: {'; '.join(told)}", wins, fine


@claim(
    paper=PAPER, method="iia-ddim", says="IIA-DDIM is better than DDIM below 25 evaluations.",
    figure="lower FID on CIFAR-10, CelebA and LSUN at 10 to 25 evaluations, in the paper's figures",
)  # fmt: skip
def iia_helps_ddim() -> Measured:
    figure, wins, _ = _table("iia-ddim", (5, 10, 20))
    return Measured(figure, all(wins))


@claim(
    paper=PAPER, method="iia-edm", says="IIA-EDM is better than EDM's Heun below 25 evaluations.",
    figure="lower FID on CIFAR-10, FFHQ, AFHQv2 and ImageNet-64 at 9 to 25 evaluations, in the paper's figures",
)  # fmt: skip
def iia_helps_edm() -> Measured:
    figure, wins, _ = _table("iia-edm", (9, 15, 23))
    return Measured(figure, all(wins))


@claim(
    paper=PAPER, method="biia-edm", says="The basic form gains too, and the advanced one gains more.",
    figure="BIIA-EDM between EDM and IIA-EDM in the paper's figures of FID against evaluations",
)  # fmt: skip
def the_advanced_form_beats_the_basic_one() -> Measured:
    told, holds = [], True
    for which, title in NAMES.items():
        plain, basic, _ = _errors("biia-edm", which, 15)
        advanced = _errors("iia-edm", which, 15)[1]
        told.append(f"{title} {plain:.3f}, {basic:.3f}, {advanced:.3f}")
        holds = holds and advanced < basic < plain
    figure = f"median RMSE to the exact flow, VE, 15 evaluations, EDM, basic, advanced: {'; '.join(told)}"
    return Measured(figure, holds)


@claim(
    paper=PAPER, method="iia-dpm-solver", says="DPM-Solver++ gains below 25 evaluations.",
    figure="lower FID for guided text-to-image with DPM-Solver++ at 10 evaluations, in the paper's table",
)  # fmt: skip
def iia_helps_dpm_solver() -> Measured:
    figure, wins, fine = _table("iia-dpm-solver", (5, 10, 20))
    why = (
        "Each step is fitted to the flow from where it stands, over all entries at once: the large directions decide, "
        "and what a step does to later ones is not seen. DPM-Solver++(2M) already has the term that is added to DDIM, "
        "with the weight that makes errors of a high order; from ten evaluations on that is better. Finer targets (40 "
        "parts) change nothing. A part of the fitted weights, as far as it pays on other noises, which `tune` takes, "
        f"is no worse at {fine} of {len(wins)}."
    )
    return Measured(figure, all(wins), "" if all(wins) else why)
