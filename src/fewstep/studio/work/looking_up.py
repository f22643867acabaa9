"""The catalogue, searched: a method's papers, its equation, and the claims about it beside what we measured."""

import ast
from html import escape
from importlib.util import find_spec
from pathlib import Path

from fewstep.catalog import Method, methods
from fewstep.errors import unknown
from fewstep.measured import Claimed, claims
from fewstep.studio.guides import offered

# The tab where a family's methods can be tried.
TRIED_IN = {"solvers": "sample", "guidance": "sample", "restoration": "restore", "tuning": "tune"}


def families() -> list[str]:
    """The families of the catalogue."""
    return sorted({m.family for m in methods()})


def found(text: str, family: str = "") -> list[Method]:
    """The methods in which every word of a text occurs: in the name, the papers, the summary or the arXiv number.

    Args:
        text: words; all methods if empty.
        family: only of this one, if given.
    """
    words = text.lower().split()
    kept = []
    for m in methods():
        where = " ".join((m.name, m.family, m.summary, m.arxiv, *m.papers)).lower()
        if (not family or m.family == family) and all(word in where for word in words):
            kept.append(m)
    first = text.lower().strip()
    return sorted(kept, key=lambda m: not (first and m.name.startswith(first)))


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        ArgumentError: there is none; the nearest are offered.
    """
    row = next((m for m in methods() if m.name == name), None)
    if row is None:
        raise unknown("method", name, [m.name for m in methods()])
    return row


def equation_of(method: Method) -> str:
    """The lines of its module's introduction that are set apart: the update as an equation."""
    spec = find_spec(method.module)
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf8"))) or ""
    parts = [part for part in text.split("\n\n") if part.startswith("    ")]
    return "\n\n".join("\n".join(line[4:] for line in part.splitlines()) for part in parts)


def tried_in(method: Method) -> str:
    """The tab where it can be tried, or nothing."""
    tab = TRIED_IN.get(method.family, "")
    return "" if method.family == "guidance" and method.name not in offered() else tab


def method_html(method: Method) -> str:
    """All about a method."""
    link = f"https://arxiv.org/abs/{method.arxiv}"
    papers = [escape(title) for title in method.papers]
    if method.arxiv:
        found_at = f'<a href="{link}" target="_blank" rel="noreferrer">arXiv {escape(method.arxiv)}</a>'
        papers[:1] = [f"{papers[0]} · {found_at}" if papers else found_at]
    equation = equation_of(method)
    parts = [
        f"<h3>{escape(method.name)}</h3><p>{escape(method.summary)}</p>",
        f"<h4>Paper</h4><ul>{''.join(f'<li>{one}</li>' for one in papers)}</ul>" if papers else "",
        f'<h4>Equation</h4><pre class="wide" tabindex="0">{escape(equation)}</pre>' if equation else "",
        *(_claim_html(c) for c in claims() if c.method == method.name),
        f"<p class=note>{escape(method.family)} · <code>{escape(method.module)}.{escape(method.symbol)}</code></p>",
    ]
    if not tried_in(method):
        parts.append(f"<p class=note>{_why_not(method)}</p>")
    return f'<article class="method">{"".join(parts)}</article>'


def _claim_html(claim: Claimed) -> str:
    verdict = "holds" if claim.holds else "does not hold"
    why = f" {escape(claim.why)}" if claim.why else ""
    return (
        f"<h4>Claim</h4><p>{escape(claim.says)}</p><dl><dt>the paper</dt><dd>{escape(claim.published)}</dd>"
        f"<dt>ours</dt><dd>{escape(claim.figure)}</dd>"
        f'<dt>verdict</dt><dd class="{"good" if claim.holds else "bad"}"><b>{verdict}.</b>{why}</dd></dl>'
        f"<p class=note>Measured on {escape(claim.date)}, {escape(claim.device)}; again: "
        f"<code>python -m claims {escape(claim.name)}</code></p>"
    )


def _why_not(method: Method) -> str:
    said = {
        "guidance": "This guide needs a model, a loss or a condition of your own, so it is used from Python.",
        "bridges": "This needs a model that was trained from degraded pictures, so it is used from Python.",
        "search": "A search needs a reward of your own, so it is used from Python.",
        "loops": "This runs without a plan made beforehand, so it is used from Python: "
        f"<code>fewstep.sample(den, solver={escape(repr(method.name))})</code>.",
    }
    return said.get(method.family, "This is used from Python.")
