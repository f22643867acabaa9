"""The report: tables are read as they stand, each is drawn by its columns, and the page needs no network."""

import re
from pathlib import Path

import pytest

import fewstep
from fewstep.errors import ArgumentError
from fewstep.reporting import write_report
from fewstep.reporting.charts import charts
from fewstep.reporting.tables import Table, number, read_page

PAGE = """# Errors of things

2026-01-02, commit abc, some device.

## a world

| evaluations | best peer | error | ours | error | peer / ours | auto |
|---|---|---|---|---|---|---|
| 5 | `DPM++` | 0.07 | ipndm | 0.035 | 2.0 | 0.01 |
| 10 | `DPM++` | 0.02 | unipc | 4e-3 | 5.0 | **0.002** |

## restorers

| method | sliced W2 | in 50 % | in 90 % | ms a sample |
|---|---|---|---|---|
| `dps` | 0.2 | 35 | 74 | 2.5 |
| *none* | | 50 | 90 | |
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(tmp_path):
    (tmp_path / "errors.md").write_text(PAGE, encoding="utf8")
    return read_page(tmp_path / "errors.md")


def test_cells_are_read_as_numbers():
    cells = {
        "55.5 (2.7×)": 55.5,
        "**0.002**": 0.002,
        "−2.5": -2.5,
        "1,234": 1234.0,
        "4e-3": 0.004,
        "0.42.1": None,
        "12,345,678.5 MB": 12345678.5,
        "dps": None,
        "": None,
    }
    assert {cell: number(cell) for cell in cells} == cells


def test_a_page_is_read_as_it_stands(page):
    assert (page.name, page.title, page.words) == (
        "errors",
        "Errors of things",
        ["2026-01-02, commit abc, some device."],
    )
    assert [(t.heading, len(t.rows)) for t in page.tables] == [("a world", 2), ("restorers", 2)]
    assert page.tables[1].column("50 %") == 2


def test_errors_are_lines_named_by_the_column_before(page):
    (figure,) = charts(page.tables[0])
    lines = {line.name: (list(line.x), list(line.y)) for line in figure.data}
    assert lines == {
        "best peer": ([5, 10], [0.07, 0.02]),
        "ours": ([5, 10], [0.035, 0.004]),
        "auto": ([5, 10], [0.01, 0.002]),
    }
    assert list(figure.data[0].text) == ["DPM++", "DPM++"]
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")


def test_coverage_stands_beside_the_exact_point_and_time_beside_quality(page):
    coverage, quality = charts(page.tables[1])
    assert [list(c) for c in (coverage.data[0].x, coverage.data[0].y)] == [[35, 50], [74, 90]]
    assert (coverage.data[1].x, coverage.data[1].y) == ((50,), (90,))
    assert (quality.data[0].x, quality.data[0].y) == ((2.5,), (0.2,))


def test_counts_as_columns_and_bare_names():
    (figure,) = charts(Table("", ["", "4", "5", "6"], [["ddim", "0.3", "0.2", "0.1 (÷2)"]]))
    assert (figure.data[0].name, figure.data[0].x, figure.data[0].y) == ("ddim", (4, 5, 6), (0.3, 0.2, 0.1))
    (figure,) = charts(Table("", ["solver", "ours", "theirs"], [["ddim", "20.5", "55.5 (2.7×)"], ["cps", "28", ""]]))
    assert [(bar.name, bar.x) for bar in figure.data] == [("ours", (20.5, 28.0)), ("theirs", (55.5, None))]
    assert charts(Table("", ["a", "b"], [])) == []


def test_the_page_is_whole_and_asks_nobody(tmp_path):
    """Of the benchmarks that are kept: every table is there, every claim, and no address is loaded."""
    text = write_report(ROOT / "benchmarks", tmp_path / "deep" / "report.html").read_text("utf8")
    pages = [read_page(file) for file in sorted((ROOT / "benchmarks").glob("*.md"))]
    assert sum(len(p.tables) for p in pages) == text.count("<details>") > 5
    assert text.count("<td class=ours>") == len(fewstep.claims())
    assert text.count('class="plotly-graph-div"') > 5
    assert not re.search(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?https?:""", text)


def test_bad_input(tmp_path):
    with pytest.raises(ArgumentError, match="must exist"):
        write_report(tmp_path / "none", tmp_path / "x.html")
    (tmp_path / "bad.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ArgumentError, match="cannot read"):
        write_report(tmp_path, tmp_path / "x.html")
    (tmp_path / "bad.md").write_text("| a |\n|---|\n| 1 | 2 |\n", encoding="utf8")
    with pytest.raises(ArgumentError, match="2 cells for 1 columns"):
        write_report(tmp_path, tmp_path / "x.html")
