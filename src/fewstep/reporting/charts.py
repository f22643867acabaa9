"""Interactive charts of the tables that benchmarks write, chosen by the names of their columns."""

from collections.abc import Callable, Sequence
from typing import Any

from fewstep.measured import Claimed
from fewstep.reporting.tables import Table, number, plain

# Legible on a white page and on a dark one.
INK, GRID = "#808890", "rgba(128,136,144,0.25)"
HEIGHT = 460
# Points of a chart with more are named when the pointer is on them.
NAMED = 12
QUALITIES = ("PSNR", "sliced W2", "Fréchet")
TIMES = ("s a sample", "ms a sample", "seconds", "time")


def _figure(title: str, x: str, y: str, log: str = "") -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 15}}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "family": "system-ui, sans-serif"}, height=HEIGHT,
        margin={"l": 56, "r": 16, "t": 48 if title else 16, "b": 48}, hoverlabel={"namelength": -1},
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
    )  # fmt: skip
    for axis, words in (("x", x), ("y", y)):
        scale = {"type": "log", "exponentformat": "power"} if axis in log else {}
        figure.update_layout({f"{axis}axis": {
            "title": {"text": words}, "gridcolor": GRID, "zeroline": False, "automargin": True, **scale,
        }})  # fmt: skip
    return figure


def _line(figure: Any, x: Sequence[Any], y: Sequence[Any], name: str, hover: Sequence[str] | None = None) -> None:
    told = "%{text}<br>%{x}: %{y:.3g}" if hover else "%{x}: %{y:.3g}"
    figure.add_scatter(x=list(x), y=list(y), name=name, mode="lines+markers", text=hover, hovertemplate=told)


def down_the_rows(table: Table) -> Any | None:
    """Errors against the first column where that counts something; a name may stand before each error."""
    counted = table.header[0]
    if counted not in ("evaluations", "particles"):
        return None
    x = table.numbers(0)
    figure = _figure("", f"{counted} a sample" if counted == "evaluations" else counted, "error", "xy")
    figure.update_xaxes(tickvals=x)
    for at, name in enumerate(table.header[1:], 1):
        named = name == "error" and at > 1
        if named or name in ("auto", "RMSE"):
            hover = [plain(row[at - 1]) for row in table.rows] if named else None
            _line(figure, x, table.numbers(at), table.header[at - 1] if named else name, hover)
    return figure


def across_the_columns(table: Table) -> Any | None:
    """A line a row, where several columns are numbers of evaluations."""
    counts = [at for at, name in enumerate(table.header) if name.isdigit()]
    if len(counts) < 3:
        return None
    x = [int(table.header[at]) for at in counts]
    figure = _figure("", "evaluations a sample", "error", "xy")
    figure.update_xaxes(tickvals=x)
    for row in table.rows:
        _line(figure, x, [number(row[at]) for at in counts], plain(row[0]))
    return figure


def coverage(table: Table) -> Any | None:
    """How often the truth lies in the intervals that should hold it in 50 and 90 cases of 100."""
    half, most = table.column("50 %"), table.column("90 %")
    if half is None or most is None:
        return None
    figure = _figure("coverage of the truth", "in the 50 % interval, %", "in the 90 % interval, %")
    kept = [row for row in table.rows if number(row[half]) is not None and number(row[most]) is not None]
    figure.add_scatter(
        x=[number(row[half]) for row in kept], y=[number(row[most]) for row in kept], mode="markers",
        text=[plain(row[0]) for row in kept], hovertemplate="%{text}<br>%{x:.0f} and %{y:.0f} %", name="methods",
        marker={"size": 9},
    )  # fmt: skip
    figure.add_scatter(x=[50], y=[90], mode="markers", marker={"symbol": "cross-thin-open", "size": 18}, name="exact")
    return figure


def quality_for_time(table: Table) -> Any | None:
    """Quality against seconds, a colour a task."""
    quality, time = table.column(*QUALITIES), table.column(*TIMES)
    if quality is None or time is None:
        return None
    group, name = table.column("task"), table.column("method") or 0
    figure = _figure("quality for time", table.header[time], table.header[quality], "x")
    groups = dict.fromkeys("" if group is None else row[group] for row in table.rows)
    for one in groups:
        rows = [row for row in table.rows if (group is None or row[group] == one) and number(row[time])]
        figure.add_scatter(
            x=[number(row[time]) for row in rows], y=[number(row[quality]) for row in rows], name=one,
            text=[plain(row[name]) for row in rows], hovertemplate="%{text}<br>%{x:.3g}: %{y:.3g}",
            mode="markers+text" if len(table.rows) <= NAMED else "markers", textposition="top center",
            marker={"size": 9}, showlegend=bool(one),
        )  # fmt: skip
    return figure


def bars(table: Table) -> Any | None:
    """A bar a row and column of numbers, where the rows are named."""
    named = [at for at in range(len(table.header)) if not any(v is not None for v in table.numbers(at))]
    numeric = [at for at in range(1, len(table.header)) if at not in named and table.header[at]]
    if not numeric or 0 not in named:
        return None
    labels = [", ".join(plain(row[at]) for at in named if table.header[at] or at == 0) for row in table.rows]
    figure = _figure("", "", "")
    for at in numeric:
        figure.add_bar(y=labels, x=table.numbers(at), name=table.header[at], orientation="h")
    figure.update_layout(
        height=max(HEIGHT / 2, 90 + 12 * len(labels) * len(numeric)), yaxis={"autorange": "reversed", "title": None},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    )  # fmt: skip
    return figure


CHARTS: tuple[Callable[[Table], Any | None], ...] = (down_the_rows, across_the_columns, coverage, quality_for_time)


def charts(table: Table) -> list[Any]:
    """The charts of a table: each kind whose columns it has, bars where there is none of them."""
    if not table.rows:
        return []
    made = [figure for chart in CHARTS if (figure := chart(table)) is not None]
    last = bars(table) if not made else None
    return made if last is None else [last]


def claims_chart(claims: Sequence[Claimed]) -> Any:
    """How many claims of each family hold."""
    families = list(dict.fromkeys(claim.name.split("/")[0] for claim in claims))
    figure = _figure("", "claims measured", "")
    for holds, name, colour in ((True, "holds", "#2a9d62"), (False, "does not hold", "#c8553d")):
        counts = [sum(c.holds is holds and c.name.startswith(f"{one}/") for c in claims) for one in families]
        figure.add_bar(y=families, x=counts, name=name, orientation="h", marker_color=colour)
    figure.update_layout(barmode="stack", height=120 + 32 * len(families), yaxis={"autorange": "reversed"})
    return figure
