"""Writes methods.md, one table a family, from the catalogue, each time the manual is built."""

from pathlib import Path
from typing import Any

from fewstep.catalog import methods


def write_page(_: Any = None) -> None:
    """Write docs/methods.md."""
    lines = ["# Methods", "", "Every method of the catalogue; `fewstep catalog` prints the same.", ""]
    family = ""
    for method in sorted(methods(), key=lambda m: (m.family, m.name)):
        if method.family != family:
            family = method.family
            lines += [f"## {family.capitalize()}", "", "| name | what it does | paper |", "|---|---|---|"]
        papers = "; ".join(method.papers)
        link = f"[{papers}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else papers
        lines.append(f"| `{method.name}` | {method.summary} | {link} |")
    text = "\n".join(lines) + "\n"
    page = Path(__file__).with_name("methods.md")
    if not page.exists() or page.read_text(encoding="utf8") != text:
        page.write_text(text, encoding="utf8")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
