"""What the guides do to the pictures of the shipped models: quality, diversity, recall, rarity and cost.

Real pictures are represented by what ships of them: the moments of the features of all 10,000 test pictures for the
Fréchet distance, the features of 1,000 of them for precision, recall and neighbours.  Sets that are compared begin from
the same noises; what stands after ± is the deviation of a difference over bootstraps of both sets together.  Tables go
to guided_pictures.md beside this file, set by set, so that an interrupted run keeps what it measured.

    python benchmarks/guided_pictures.py [mnist | cifar10 …]
"""

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewstep
from fewstep.guidance import CADS, CFG, PAG, SAG, Guide, HiGS, SelfGuidedMinority, embedded_labels, minority_score
from fewstep.metrics import gaussian_frechet, precision_recall
from fewstep.networks.features import load_features
from fewstep.networks.reference import load_reference

COUNT, STEPS, AT_ONCE, DRAWS, NONE = 300, 10, 50, 30, 10
HIGH = 5.0


@dataclass(frozen=True)
class Group:
    """Sets that are compared with their first one.

    Args:
        title: what is asked.
        sets: (name, guides) of each.
        labelled: whether all classes are asked for in turn, else none.
        embedded: whether the network is told embeddings, as CADS needs.
    """

    title: str
    sets: Sequence[tuple[str, list[Guide]]]
    labelled: bool = False
    embedded: bool = False


def annealed(low: float, high: float) -> Any:
    """The scale of dynamic CFG: as CADS's γ(t), from CFG of the high scale to none."""
    return lambda t: 1 + (HIGH - 1) * ((high - t) / (high - low)).clamp(0, 1)


GROUPS = [
    Group("Diversity at a high guidance scale", [
        (f"CFG of {HIGH:g}", [CFG(HIGH)]),
        ("no guidance", []),
        ("dynamic CFG", [CFG(annealed(0.6, 0.9))]),
        *((f"CFG of {HIGH:g}, CADS of {s:g}", [CFG(HIGH), CADS("label", s)]) for s in (0.1, 0.25, 1.0)),
    ], labelled=True, embedded=True),
    Group("Without a class", [
        ("none", []), ("HiGS", [HiGS()]),
        *((f"PAG of {s:g}", [PAG(s)]) for s in (1.0, 3.0)),
        *((f"PAG of {s:g}, all layers", [PAG(s, place="")]) for s in (1.0,)),
        *((f"SAG of {s:g}", [SAG(s)]) for s in (0.3, 0.8)),
        *((f"self-guided minority of {w:g}", [SelfGuidedMinority(w, t_noise=0.6, every=2)]) for w in (0.1, 0.4)),
    ]),
    Group("With a class, CFG of 2", [
        ("CFG of 2", [CFG(2.0)]), ("CFG of 2, HiGS", [CFG(2.0), HiGS()]),
    ], labelled=True),
]  # fmt: skip


@dataclass
class Judge:
    """A shipped model, its classifier and what real pictures look like to it."""

    name: str
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model, self.classifier = fewstep.load(self.name), load_features(self.name)
        self.real = load_reference(self.name)
        self.labels = torch.arange(COUNT) % 10

    def drawn(self, group: Group, guides: list[Guide]) -> tuple[Tensor, float, float]:
        """(pictures, evaluations a picture, seconds of the processor)."""
        model, told = self.model, self.labels if group.labelled else torch.full((COUNT,), NONE)
        if group.embedded:
            model, table = embedded_labels(model)
            told = table[told]
        parts, evaluations, began = [], 0.0, time.process_time()
        for first in range(0, COUNT, AT_ONCE):
            cond = {"label": told[first : first + AT_ONCE]}
            out = fewstep.sample(
                model, AT_ONCE, solver="ddim", steps=STEPS, guides=guides, cond=cond, first=first, seed=0
            )
            parts.append(out.x.clamp(-1, 1))
            evaluations = out.stats.evaluations
        return torch.cat(parts), evaluations, time.process_time() - began

    def distance(self, features: Tensor) -> float:
        """The Fréchet distance of features to the real pictures'."""
        rows = features.double()
        return float(gaussian_frechet(rows.mean(0), torch.cov(rows.T), self.real.mean, self.real.covariance))

    def nearer(self, plain: Tensor, guided: Tensor) -> tuple[float, float]:
        """How much nearer the guided features are than the plain ones, and the doubt in it."""
        generator = torch.Generator().manual_seed(0)
        found = []
        for _ in range(DRAWS):
            rows = torch.randint(COUNT, (COUNT,), generator=generator)
            found.append(self.distance(plain[rows]) - self.distance(guided[rows]))
        return self.distance(plain) - self.distance(guided), float(torch.tensor(found).std())

    def spread(self, features: Tensor, labels: Tensor) -> float:
        """The mean distance of two pictures of one class, in features."""
        means = []
        for k in range(10):
            mine = features[labels == k]
            means.append(torch.cdist(mine, mine).sum() / (len(mine) * (len(mine) - 1)))
        return float(torch.stack(means).mean())

    def rows(self, group: Group) -> list[str]:
        """The table of a group."""
        head = ["", "Fréchet distance", "nearer by", "precision", "recall"]
        head += ["spread within a class", "read as asked"] if group.labelled else ["mean certainty", "minority score"]
        head += ["distance to 5 nearest real", "evaluations", "time"]
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        fewstep.sample(self.model, AT_ONCE, steps=1, cond={"label": NONE})  # the first call of all is slow
        first: tuple[Tensor, float] | None = None
        for name, guides in group.sets:
            x, evaluations, seconds = self.drawn(group, guides)
            features, sure = self.classifier(x), self.classifier.classify(x)
            first = first or (features, seconds)
            gain, doubt = self.nearer(first[0], features)
            precision, recall = precision_recall(self.real.features, features)
            near = torch.cdist(features, self.real.features).topk(5, largest=False).values.mean()
            cells = [f"{self.distance(features):.3f}", f"{gain:+.3f} ± {doubt:.3f}" if features is not first[0] else ""]
            cells += [f"{float(precision):.2f}", f"{float(recall):.2f}"]
            if group.labelled:
                right = (sure.argmax(1) == self.labels).float().mean()
                cells += [f"{self.spread(features, self.labels):.2f}", f"{right:.0%}"]
            else:
                seen = x[:200]
                score = minority_score(self.model, seen, 0.6, draws=2, label=torch.full((len(seen),), NONE))
                cells += [f"{sure.amax(1).mean():.2f}", f"{score.mean():.4f}"]
            cells += [f"{near:.2f}", f"{evaluations:g}", f"{seconds / first[1]:.2f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
            print(self.name, lines[-1], flush=True)
        return lines


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        "# What guides do to the pictures of the shipped models", "",
        f"{date.today()}, commit {commit or 'unknown'}, {platform.machine()} CPU, torch {torch.__version__}; {COUNT} "
        f"pictures a set, {STEPS} steps of ddim, one thread, its processor time as a ratio to the table's first "
        "row. Features are the shipped classifiers', so the distances compare with one another only.", "",
    ]  # fmt: skip
    for name in names:
        judge = Judge(name)
        real = judge.spread(judge.real.features, judge.real.labels)
        lines += [f"## {name}", "", f"Spread within a class of real pictures: {real:.2f}.", ""]
        for group in GROUPS:
            lines += [f"**{group.title}.**", "", *judge.rows(group), ""]
            (Path(__file__).parent / "guided_pictures.md").write_text("\n".join(lines), encoding="utf8")


if __name__ == "__main__":
    main(sys.argv[1:] or ["mnist", "cifar10"])
