"""What each guide costs: evaluations and time of a run of the shipped digits model, as ratios to no guide.

Every figure is the least of several runs, all in one process, where the guides take turns; the plain run's turn comes
with each, and the ratio is to the least of its own neighbours.  One call of the network with the rows of two answers
takes less than two calls, so that a guide may cost less time than evaluations.  The table goes to guides.md beside this
file and to the page of the manual.

    python benchmarks/guides.py
"""

import copy
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fewstep
from fewstep.denoisers import Denoiser
from fewstep.guidance import (
    CADS,
    CFG,
    PAG,
    SAG,
    AnnealedMCMC,
    Autoguidance,
    ClassifierGuidance,
    Composition,
    ContrastiveEnergy,
    DensityControl,
    DensityGuidance,
    DensityNoise,
    EpsilonScaling,
    ExpertGuidance,
    Factorized,
    FixedComponent,
    FlowChef,
    Guide,
    HiGS,
    MinorityGuidance,
    SelfGuidedMinority,
    Steered,
    SteeredLinear,
    Thresholding,
    TractableSteering,
    UpsampleGuidance,
)  # fmt: skip
from fewstep.guidance.factorized import frequency_bands
from fewstep.guidance.latent_tree import fit_latent_tree
from fewstep.networks.features import load_features

BATCH, STEPS, RUNS = 8, 10, 5
# The table also stands in the manual, between these.
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- guides -->", "<!-- end of guides -->"
MODEL = fewstep.load("mnist")
JUDGE = load_features("mnist").network
BANDS = frequency_bands(1.5)
CIRCUIT = fit_latent_tree(torch.randint(8, (32, 784), generator=torch.Generator().manual_seed(0)), 8, rounds=1)
LABEL: Mapping[str, Any] = {"label": 3}


def loss(x0: Tensor) -> Tensor:
    """−log p(3 | x̂₀) of the shipped classifier, a network of a tenth of the model's weights."""
    return -JUDGE(x0.float()).log_softmax(1)[:, 3]


@dataclass(frozen=True)
class Run:
    """Guides on a denoiser, and what the same is without the last of them."""

    guides: list[Guide]
    denoiser: Denoiser = MODEL
    cond: Mapping[str, Any] = field(default_factory=lambda: LABEL)
    note: str = ""

    def seconds(self, guides: list[Guide]) -> tuple[float, float]:
        """(seconds, evaluations a step) of a run with these guides."""
        began = time.perf_counter()
        out = fewstep.sample(self.denoiser, BATCH, solver="ddim", steps=STEPS, guides=guides, cond=self.cond, seed=0)
        return time.perf_counter() - began, out.stats.evaluations / STEPS

    def measured(self) -> tuple[float, float]:
        """(evaluations, time), as ratios to the same run without guides."""
        plain, guided, evaluations = float("inf"), float("inf"), 0.0
        for _ in range(RUNS):
            plain = min(plain, self.seconds([])[0])
            seconds, evaluations = self.seconds(self.guides)
            guided = min(guided, seconds)
        return evaluations, guided / plain


def by_embedding() -> Run:
    """CADS beside CFG, with the embedding of the label in its place."""
    plain: Any = MODEL
    net = copy.deepcopy(plain.net)
    table = net.condition.label.weight.detach()
    net.condition.label = nn.Identity()
    told = fewstep.wrap(net, plain.path, plain.predicts, shape=plain.shape, time=plain.told, null={"label": table[10]})
    return Run([CFG(2.0), CADS("label")], told, {"label": table[3].expand(BATCH, -1)}, "beside CFG")


def twice_as_large() -> Run:
    """Upsample guidance at 56×56, against the plain run at 56×56."""
    large = copy.copy(MODEL)
    large.shape = (1, 56, 56)
    return Run([UpsampleGuidance(2)], large, note="at 56×56, against the plain run of that size")


RUNS_OF: dict[str, Run] = {
    "annealed-mcmc": Run([AnnealedMCMC(rounds=2, size=0.05)], note="2 rounds of ula; 10 is the default"),
    "autoguidance": Run([Autoguidance(MODEL, 2.0)], note="the weak model as large as the strong one"),
    "cads": by_embedding(),
    "cfg": Run([CFG(2.0)]),
    "cfg and pag": Run([CFG(2.0), PAG(1.0)], note="three answers in one batch"),
    "cfg and sag": Run([CFG(2.0), SAG(0.5, of_null=True)], note="two answers in one batch, then one"),
    "classifier-guidance": Run([ClassifierGuidance(lambda x, t: -loss(x))]),
    "composition": Run([Composition(((0.5, {"label": 5}),))], note="one further condition"),
    "contrastive-energy": Run([ContrastiveEnergy(lambda x, t: -loss(x))], note="an energy as large as the classifier"),
    "density-guidance": Run([DensityGuidance(0.4)]),
    "density-control": Run([DensityControl(1500.0, 3.0)], note="one gradient through the network"),
    "density-noise": Run([DensityNoise(0.3, (-9, 9))], note="two gradients through the network"),
    "epsilon-scaling": Run([EpsilonScaling(1.005)]),
    "factorized": Run([Factorized(BANDS, [{"label": 5}])], note="two components"),
    "factorized-fixed": Run([FixedComponent(BANDS[0], torch.zeros(1, 28, 28))]),
    "flowchef": Run([FlowChef(loss, 4.0)]),
    "higs": Run([HiGS()]),
    "minority": Run([MinorityGuidance(lambda x, t: JUDGE(x.float()))]),
    "pag": Run([PAG(1.0)]),
    "ppap": Run([ExpertGuidance([JUDGE, JUDGE], lambda logits: logits.log_softmax(1)[:, 3])]),
    "sag": Run([SAG(0.5)]),
    "self-guided-minority": Run([SelfGuidedMinority(0.1)], note="every 5th step guided, the default"),
    "steered": Run([Steered(((10.0, loss),))], note="the gradient goes through the network"),
    "steered-linear": Run([SteeredLinear(lambda x: x[..., :14], lambda y: nn.functional.pad(y, (0, 14)),
                                         torch.zeros(1))]),
    "thresholding": Run([Thresholding()]),
    "tiramisu": Run([TractableSteering(CIRCUIT, torch.zeros(1), torch.arange(28) < 14)],
                    note="784 pixels of 8 levels, 8 states"),
    "upsample-guidance": twice_as_large(),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"{date.today()}, commit {commit or 'unknown'}, {platform.machine()} CPU, torch {torch.__version__}; {BATCH} "
        f"samples, {STEPS} steps of ddim, the least of {RUNS} runs.",
        "",
        "| guide | evaluations a step | time, no guide = 1 | |",
        "|---|---|---|---|",
    ]
    for name, run in RUNS_OF.items():
        evaluations, ratio = run.measured()
        lines.append(f"| {name} | {evaluations:g} | {ratio:.2f} | {run.note} |")
        print(lines[-1])
    table = "\n".join(lines)
    text = f"# Cost of the guides, digits model, one core\n\n{table}\n"
    (Path(__file__).parent / "guides.md").write_text(text, encoding="utf8")
    before, rest = PAGE.read_text(encoding="utf8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf8")


if __name__ == "__main__":
    main()
