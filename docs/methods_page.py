"""Writes methods/<family>.md, a page a family, from the catalogue and the claims, each time the manual is built."""

import ast
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fewstep.catalog import Method, methods
from fewstep.measured import Claimed, claims

HERE = Path(__file__).parent
# Title, when to use it, and a picture that our own code drew.
FAMILIES = {
    "solvers": (
        "Solvers",
        "A solver decides how few evaluations suffice. Begin with `auto`, the tuned plan nearest to yours; else "
        "`unipc` or `dpm-solver++` from 6 evaluations on, `ipndm` below, `sde-dpm-solver++` or `er-sde` where samples "
        "should be spread as the data's are and 20 to 50 evaluations are at hand, `restart` where quality counts more "
        "than time. `ddim` is first order and goes with everything; `encode` runs it backwards.",
        "family-solvers.png",
    ),
    "loops": (
        "Loops",
        "What is not one table of coefficients: steps chosen from the data, chains that accept and reject, gradients "
        "through a whole run at constant memory, one sample over many workers. They are called by name, "
        "`sample(solver=…)`, as solvers are.",
        "family-loops.png",
    ),
    "bridges": (
        "Bridges",
        "For a network that was trained to restore: its path runs from clean data to the degraded picture. Wrap it "
        "with `wrap_bridge` and any solver, grid and guide is yours.",
        "bridges.png",
    ),
    "guidance": (
        "Guides",
        "A guide changes what the denoiser says; which go together, and what each costs, is in [Guides](../guides.md). "
        "`cfg` for prompts and classes, `cads` where high scales make all samples alike, `pag` and `sag` without any "
        "condition, `higs` at no further cost, `composition` for several conditions, `contrastive-energy` for an "
        "energy that is known only at the data.",
        "guides-cifar10.png",
    ),
    "restoration": (
        "Restorers",
        "Samples of what a picture may have been, given a degraded one. Which restorer fits which operator, noise and "
        "model is a table in [Restore](../restore.md); begin with `ddrm` or `diffpir` for linear operators, `dps` or "
        "`daps` for others, `resample` for latent models.",
        "restoration.jpg",
    ),
    "search": (
        "Search",
        "Towards a reward, with or without gradients, by spending more evaluations where they pay: see "
        "[Search](../reward.md). `fk-steering` with noise on the way, `zero-order` where only noises may change, "
        "`enkg` and `afdps` for measurements.",
        "search-mnist.png",
    ),
    "tuning": (
        "Tuners",
        "Say how many evaluations you can pay for, and get the plan that does best with them on your model: see "
        "[Tuning](../tuning.md). `worlds` needs no model and ships; `trajectory` learns from the model's own runs.",
        "family-tuning.png",
    ),
    "theory": (
        "Theory",
        "What a model has learnt, looked at: likelihood, dimension, the shape of its trajectories, samples that stand "
        "between modes.",
        "../principles/trajectory.png",
    ),
}  # fmt: skip


def _docstring(module: str) -> str:
    """What a module says of itself, read and not imported; its stars are no emphasis."""
    found = find_spec(module)
    assert found is not None
    assert found.origin is not None
    return (ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf8"))) or "").strip()


def _equations(text: str) -> str:
    """A docstring as Markdown: indented blocks become blocks of plain text, the rest is words."""
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        indented = line.startswith("    ") or (inside and not line.strip())
        if indented and not inside:
            out += ["", "```text"]
        if inside and not indented:
            while not out[-1].strip():
                out.pop()
            out += ["```", ""]
        inside = indented
        out.append(line[4:] if inside else re.sub(r"([*_<\[\]])", r"\\\1", line) if "`" not in line else line)
    if inside:
        out.append("```")
    return "\n".join(out)


def _claims(rows: Iterable[Claimed]) -> list[str]:
    lines = []
    for row in rows:
        verdict = "holds" if row.holds else "does not hold here"
        lines.append(f"- {row.says} *The paper:* {row.published}. *Ours* ({verdict}): {row.figure}. {row.why}".rstrip())
    return lines


def _module(module: str, rows: list[Method], measured: tuple[Claimed, ...]) -> list[str]:
    names = {row.name for row in rows}
    text = _docstring(module)
    first, _, rest = text.partition("\n")
    lines = [f"## {', '.join(f'`{name}`' for name in sorted(names))}", "", first, _equations(rest), ""]
    for row in rows:
        titles = "; ".join(row.papers)
        link = f"[{titles}](https://arxiv.org/abs/{row.arxiv})" if row.arxiv and titles else titles
        lines.append(f"- **`{row.name}`** {row.summary} {link}".rstrip())
    held = _claims(c for c in measured if c.method in names)
    return [*lines, *(["", "What was measured:", "", *held] if held else []), ""]


def page(family: str) -> str:
    """The page of one family."""
    title, when, picture = FAMILIES[family]
    rows = [m for m in methods() if m.family == family]
    lines = [f"# {title}", "", when, ""]
    if (HERE / "pictures" / picture).exists():
        lines += [f"![{title}, drawn by our own code](../pictures/{picture})", ""]
    for module in dict.fromkeys(row.module for row in rows):
        lines += _module(module, [row for row in rows if row.module == module], claims())
    return "\n".join(lines) + "\n"


def write_pages(_: Any = None) -> None:
    """Write docs/methods/*.md; a page that has not changed is left alone.

    Raises:
        KeyError: the catalogue has a family that FAMILIES does not describe.
    """
    folder = HERE / "methods"
    folder.mkdir(exist_ok=True)
    for family in sorted({m.family for m in methods()}):
        file, text = folder / f"{family}.md", page(family)
        if not file.exists() or file.read_text(encoding="utf8") != text:
            file.write_text(text, encoding="utf8")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
