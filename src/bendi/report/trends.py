"""Speed against depth and against answers at once: lines, from the rows of a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bendi.i18n import _
from bendi.report.charts import GREY, Figure, Line, LineChart, Point, scale_note
from bendi.report.figures import where
from bendi.report.view import Row, View
from bendi.report.wording import PP, TG, THROUGHPUT, Metric, clean
from bendi.results import Cell

MOST_LINES = 8
"""More cannot be told apart; the best are drawn, all stand in the tables."""


@dataclass(frozen=True)
class _Axis:
    """Something of a cell that a study varies."""

    name: str
    title: str
    of: Callable[[Cell], int]


def depth_figures(view: View) -> Iterable[Figure]:
    """Speed against what stands before the prompt, where a study varies that."""
    axis = _Axis("depth", _("Earlier tokens in the context"), lambda cell: cell.workload.depth_tok)
    families = _families(view, axis, lambda cell: (replace(cell.workload, name="", depth_tok=0), cell.concurrency))
    for index, rows in enumerate(families, 1):
        for metric in (TG, PP):
            title = _("{metric} against depth").format(metric=metric.title)
            yield from _against(view, index, title, metric, rows, axis)


def concurrency_figures(view: View) -> Iterable[Figure]:
    """Throughput, and the speed of each answer, against how many are written at once."""
    axis = _Axis("concurrency", _("Answers at once"), lambda cell: cell.concurrency)
    for index, rows in enumerate(_families(view, axis, lambda cell: cell.workload), 1):
        for metric in (THROUGHPUT, TG):
            title = _("{metric} against answers at once").format(metric=metric.title)
            yield from _against(view, index, title, metric, rows, axis)


def _families(view: View, axis: _Axis, rest: Callable[[Cell], object]) -> list[list[Row]]:
    """Rows that differ in what stands on `axis`, and in what is compared, but not in the rest."""
    groups: dict[object, list[Row]] = {}
    for row in view.rows:
        groups.setdefault((row.cell.model, row.cell.cache, rest(row.cell)), []).append(row)
    return [rows for rows in groups.values() if len({axis.of(row.cell) for row in rows if row.summaries}) > 1]


def _against(view: View, index: int, title: str, metric: Metric, rows: Sequence[Row], axis: _Axis) -> Iterable[Figure]:
    by_configuration: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: axis.of(row.cell)):
        if row.get(metric):
            by_configuration.setdefault(row.cell.configuration, []).append(row)
    families = sorted(
        (family for family in by_configuration.values() if len(family) > 1),
        key=lambda family: (any(row.grey for row in family), -_first_median(family[0], metric)),
    )
    if not families:
        return
    drawn = families[:MOST_LINES]
    lines = [
        Line(
            family[0].label,
            tuple(_point(row, metric, axis) for row in family),
            GREY if any(row.grey for row in family) else place,
        )
        for place, family in enumerate(drawn)
    ]
    cell = rows[0].cell
    shown = [row for family in drawn for row in family]
    ticks = tuple(sorted({float(axis.of(row.cell)) for row in shown}))
    counts = [summary.n for row in shown if (summary := row.get(metric))]
    model = f" · {clean(cell.model)}" if len({each.cell.model for each in view.rows}) > 1 else ""
    yield Figure(
        name=f"{axis.name}-{metric.key.removesuffix('_tok_s')}-{index}",
        title=title + model,
        chart=LineChart(axis.title, metric.axis, tuple(lines), ticks),
        provenance=where(view, shown, counts),
        notes=(_("Medians with their intervals."), *scale_note(ticks), *left_out(len(families))),
        alt=title,
    )


def _point(row: Row, metric: Metric, axis: _Axis) -> Point:
    summary = row.summaries[metric.key]
    low, high = (summary.interval.low, summary.interval.high) if summary.interval else (None, None)
    return Point(float(axis.of(row.cell)), summary.median, low, high)


def _first_median(row: Row, metric: Metric) -> float:
    return row.summaries[metric.key].median


def left_out(count: int, drawn: int = MOST_LINES) -> tuple[str, ...]:
    """What to say where not all `count` lines are drawn."""
    if count <= drawn:
        return ()
    return (_("The first {shown} of {count} are drawn; all stand in the tables.").format(shown=drawn, count=count),)
