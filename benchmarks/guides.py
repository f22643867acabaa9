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
from every_guide import Kit, chain, every_guide
from torch import Tensor

import fewstep
from fewstep.denoisers import Denoiser
from fewstep.guidance import CADS, CFG, PAG, SAG, Guide, UpsampleGuidance, embedded_labels
from fewstep.networks.features import load_features

BATCH, STEPS, RUNS = 8, 10, 5
# The table also stands in the manual, between these.
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- guides -->", "<!-- end of guides -->"
MODEL = fewstep.load("mnist")
JUDGE = load_features("mnist").network
LABEL: Mapping[str, Any] = {"label": 3}


def log_prob(x: Tensor, t: Any = None) -> Tensor:
    """log p(3 | x) of the shipped classifier, a network of a tenth of the model's weights."""
    return logits(x).log_softmax(1)[:, 3]


def logits(x: Tensor, t: Any = None) -> Tensor:
    return JUDGE(x.float())


@dataclass(frozen=True)
class Run:
    """Guides on a denoiser, and what the same is without the last of them."""

    guides: list[Guide]
    denoiser: Denoiser = MODEL
    cond: Mapping[str, Any] = field(default_factory=lambda: LABEL)
    note: str = ""

    def seconds(self, guides: list[Guide]) -> tuple[float, float]:
        """(seconds of the processor, evaluations a step) of a run with these guides."""
        began = time.process_time()
        out = fewstep.sample(self.denoiser, BATCH, solver="ddim", steps=STEPS, guides=guides, cond=self.cond, seed=0)
        return time.process_time() - began, out.stats.evaluations / STEPS

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
    told, table = embedded_labels(MODEL)
    return Run([CFG(2.0), CADS("label")], told, {"label": table[3].expand(BATCH, -1)}, "beside CFG")


def twice_as_large() -> Run:
    """Upsample guidance at 56×56, against the plain run at 56×56."""
    large = copy.copy(MODEL)
    large.shape = (1, 56, 56)
    return Run([UpsampleGuidance(2)], large, note="at 56×56, against the plain run of that size")


NOTES = {
    "annealed-mcmc": "2 rounds of hmc, 3 leapfrogs each, every state of two experts and its density; 10 is the default",
    "autoguidance": "the weak model as large as the strong one",
    "composition": "a further condition and a further model",
    "contrastive-energy": "an energy as large as the classifier",
    "density-control": "one gradient through the network",
    "density-noise": "two gradients through the network",
    "factorized": "two components",
    "flowchef": "two gradients of the loss a step",
    "self-guided-minority": "every 2nd step guided; 5th is the default",
    "steered": "two losses, whose gradients go through the network",
    "tiramisu": "784 pixels of 8 levels, 8 states",
}
# Those that need another model, and what goes together.
OTHERS = {
    "cads": by_embedding(), "upsample-guidance": twice_as_large(),
    "cfg and pag": Run([CFG(2.0), PAG(1.0)], note="three answers in one batch"),
    "cfg and sag": Run([CFG(2.0), SAG(0.5, of_null=True)], note="two answers in one batch, then one"),
}  # fmt: skip


def runs() -> dict[str, Run]:
    """Every guide of the catalogue at work, and the pairs."""
    kit = Kit(MODEL, log_prob, logits, {"label": 5}, "label", 1500.0, chain(784, 8, 8))
    found = {name: Run([guides[1]], note=NOTES.get(name, "")) for name, guides in every_guide(kit).items()}
    return dict(sorted({**found, **OTHERS}.items()))


def main() -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"{date.today()}, commit {commit or 'unknown'}, {platform.machine()} CPU, torch {torch.__version__}; {BATCH} "
        f"samples, {STEPS} steps of ddim, processor time, the least of {RUNS} runs.",
        "",
        "| guide | evaluations a step | time, no guide = 1 | |",
        "|---|---|---|---|",
    ]
    for name, run in runs().items():
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
