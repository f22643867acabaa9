"""Reads the Markdown pages that benchmarks write: headings, words and tables."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from fewstep.errors import ArgumentError

# Not the beginning of a version such as 0.42.1.
NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?![.,]?\d)")


@dataclass
class Table:
    """A table as it stands on the page.

    Args:
        heading: the heading that it stands under.
        header: the names of its columns.
        rows: the cells, as many a row as there are columns.
    """

    heading: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def column(self, *parts: str) -> int | None:
        """The number of the first column whose name holds one of these, in their order."""
        return next((i for part in parts for i, name in enumerate(self.header) if part in name), None)

    def numbers(self, column: int) -> list[float | None]:
        """What the cells of a column begin with, read as numbers; None where they are none."""
        return [number(row[column]) for row in self.rows]


@dataclass
class Page:
    """What one benchmark wrote.

    Args:
        name: the file's, without its ending.
        title: the page's first heading.
        words: the paragraphs before the first table: date, commit, device, what was measured.
        tables: in the page's order.
    """

    name: str
    title: str
    words: list[str]
    tables: list[Table]


def number(cell: str) -> float | None:
    """The number that a cell begins with, such as 55.5 of "**55.5** (2.7×)"; None where it begins with none."""
    found = NUMBER.match(cell.strip(" *`~<"))
    return float(found[0].replace("−", "-").replace(",", "")) if found else None


def plain(cell: str) -> str:
    """A cell without the marks of Markdown."""
    return re.sub(r"[*`]", "", cell).strip()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_page(file: Path) -> Page:
    """The page in a Markdown file.

    Raises:
        ArgumentError: the file cannot be read, or a row has more cells than its table has columns.
    """
    try:
        lines = file.read_text(encoding="utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"cannot read {file}: {error}") from error
    page, heading = Page(file.stem, file.stem, [], []), ""
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("# "):
            page.title = line[2:]
        elif line.startswith("#"):
            heading = line.lstrip("# ")
        elif not line.startswith("|"):
            if line.strip() and not page.tables and not line.startswith("!["):
                page.words.append(line)
        elif not before.startswith("|"):
            page.tables.append(Table(heading, _cells(line)))
        elif not set(line) <= set("|-: "):
            table, row = page.tables[-1], _cells(line)
            if len(row) > len(table.header):
                raise ArgumentError(f"{file}: a row has {len(row)} cells for {len(table.header)} columns: {line}")
            table.rows.append(row + [""] * (len(table.header) - len(row)))
    return page
