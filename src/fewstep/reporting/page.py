"""Writes the report: one HTML file, its scripts and styles within it."""

from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from fewstep.atomic import write_atomically
from fewstep.errors import ArgumentError, require
from fewstep.measured import Claimed, claims
from fewstep.pages import head
from fewstep.reporting.charts import charts, claims_chart
from fewstep.reporting.tables import Page, Table, plain, read_page

MORE = """
body{max-width:72rem}nav{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:1rem 0}
.wide{overflow-x:auto}details{margin:.4rem 0 1.6rem}summary{cursor:pointer;opacity:.8}td,th{white-space:nowrap}
.claims td,.claims th{white-space:normal;text-align:left;vertical-align:top;padding-top:.7rem}
.claims .ours{min-width:18rem}.claims .date{white-space:nowrap}
input{font:inherit;padding:.4rem .7rem;width:min(28rem,100%);box-sizing:border-box}
input{border:1px solid #8888;border-radius:6px;background:transparent;color:inherit}
@media(max-width:44rem){.claims thead{display:none}.claims td{display:block;padding:.1rem 0}
.claims tr{display:block;padding:.6rem 0;border-bottom:1px solid #8884}.claims tr[hidden]{display:none}}
"""
SEARCH = """
document.getElementById("search").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const row of document.querySelectorAll(".claims tbody tr"))
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
});
"""


def write_report(folder: Path, out: Path) -> Path:
    """Write the report of the pages that benchmarks wrote, and of the claims that ship.

    Args:
        folder: where the Markdown pages of benchmarks are.
        out: the HTML file.

    Raises:
        ArgumentError: the folder does not exist, or a page in it cannot be read.
        MissingExtraError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise require("plotly", "report") from error
    if not folder.is_dir():
        raise ArgumentError(f"the folder of the benchmarks' pages must exist, got {folder}")
    pages = [page for file in sorted(folder.glob("*.md")) if (page := read_page(file)).tables]
    measured = claims()
    links = [*((page.name, page.title) for page in pages), ("claims", "Claims")]
    parts = [
        head("fewstep: what was measured", MORE, get_plotlyjs()),
        "<h1>What was measured</h1>",
        f"<p class=lead>{len(measured)} claims of papers and {len(pages)} benchmarks; {date.today().isoformat()}.</p>",
        "<nav>", *(f'<a href="#{name}">{escape(title)}</a>' for name, title in links), "</nav>",
        *(part for page in pages for part in _page(page)), *_claims(measured), f"<script>{SEARCH}</script></html>",
    ]  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, "\n".join(parts).encode())
    return out


def _html(figure: Any) -> str:
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    )


def _claims(measured: tuple[Claimed, ...]) -> list[str]:
    rows = [
        f"<tr><td><code>{escape(c.method)}</code><br>{escape(c.paper)}<td>{escape(c.says)}"
        f"<td>{escape(c.published)}<td class=ours><b>{'Holds' if c.holds else 'Does not hold'}.</b> "
        f"{escape(c.figure)}. {escape(c.why)}<td class=date>{escape(c.date)}</tr>"
        for c in measured
    ]
    held = sum(c.holds for c in measured)
    return [
        "<h2 id=claims>Claims</h2>",
        f"<p>A sentence of each paper beside what we measured: {held} of {len(measured)} point the same way.</p>",
        _html(claims_chart(measured)),
        '<p><input id=search type=search placeholder="a method, a paper, a word" aria-label="search the claims"></p>',
        "<div class=wide><table class=claims><thead><tr><th>method<th>the paper says<th>its figure<th>ours<th>date</tr>"
        "</thead><tbody>",
        *rows,
        "</tbody></table></div>",
    ]  # fmt: skip


def _page(page: Page) -> list[str]:
    words = escape(plain(" ".join(page.words)))
    return [f'<h2 id="{page.name}">{escape(page.title)}</h2>', f"<p>{words}</p>",
            *(part for table in page.tables for part in _table(table))]  # fmt: skip


def _table(table: Table) -> list[str]:
    heading = [f"<h3>{escape(table.heading)}</h3>"] if table.heading else []
    cells = ["<tr>" + "".join(f"<td>{escape(plain(cell))}" for cell in row) + "</tr>" for row in table.rows]
    header = "<tr>" + "".join(f"<th>{escape(plain(name))}" for name in table.header) + "</tr>"
    return [
        *heading, *map(_html, charts(table)), "<details><summary>the numbers</summary><div class=wide><table>", header,
        *cells, "</table></div></details>",
    ]  # fmt: skip
