"""Quality, speed and memory against each other: what is worse in both of two has no reason to be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bendi.i18n import _
from bendi.report.charts import Figure, Point, PointChart
from bendi.report.figures import colour_of, legend_of, where
from bendi.report.given import Estimate, ReportOptions
from bendi.report.view import Row, Setup, View
from bendi.report.wording import MEMORY, TG, Metric, clean
from bendi.units import GIB


@dataclass(frozen=True)
class Side:
    """One axis: what each cell has of it, by key."""

    axis: str
    values: dict[str, Estimate]
    more_is_better: bool


def trade_off_figures(view: View, options: ReportOptions) -> Iterable[Figure]:
    """Of the first workload of each model that is about writing; nothing where only one configuration is known."""
    for index, setup in enumerate(main_setups(view), 1):
        speed, memory = _of_metric(setup, TG), memory_of(setup)
        quality = quality_of(view, options, setup.rows)
        pairs = (
            ("quality-speed", _("Quality against speed"), speed, quality),
            ("quality-memory", _("Quality against memory"), memory, quality),
            ("speed-memory", _("Speed against memory"), memory, speed),
        )
        for name, title, x, y in pairs:
            rows = [row for row in setup.rows if row.cell.key in x.values.keys() & y.values.keys()]
            if len(rows) > 1:
                yield Figure(
                    name=f"{name}-{index}",
                    title=_("{title}: {setup}").format(title=title, setup=setup.name),
                    chart=PointChart(x.axis, y.axis, tuple(_points(view, rows, x, y)), front=True),
                    provenance=where(view, rows, [len(row.repeats) for row in rows if row.repeats]),
                    notes=(
                        _("Joined: those that no other one beats in both."),
                        _("Where points are too close, some have no name; all stand in the tables."),
                    ),
                    legend=legend_of(view, rows),
                    alt=title,
                )


def main_setups(view: View) -> list[Setup]:
    """For each model the first one that is about writing one answer at a time."""
    found: dict[str, Setup] = {}
    for setup in view.setups:
        if setup.main is TG:
            found.setdefault(setup.cell.model, setup)
    return list(found.values())


def quality_of(view: View, options: ReportOptions, rows: Sequence[Row]) -> Side:
    """By the first measure that was given; without any, by how much of what a reference writes is written too."""
    if options.quality:
        first = options.quality[0]
        given = {row.configuration: row.estimate for row in options.quality if row.measure == first.measure}
        name, unit = clean(first.measure), clean(first.unit)
        axis = _("{name} ({unit})").format(name=name, unit=unit) if unit else name
        values = {row.cell.key: given[row.cell.configuration] for row in rows if row.cell.configuration in given}
        return Side(axis, values, first.more_is_better)
    agreements = {}
    for row in rows:
        check = view.results.check_of(row.cell)
        if check and check.agreement is not None:
            agreements[row.cell.key] = Estimate(100 * check.agreement)
    return Side(_("Tokens as the reference writes them (%)"), agreements, True)


def memory_of(setup: Setup) -> Side:
    """What the processes took; where that was not measured for any, the size of the model files."""
    measured = _of_metric(setup, MEMORY)
    if measured.values:
        return measured
    sizes = {row.cell.key: Estimate(row.loaded.model_bytes / GIB) for row in setup.rows if row.loaded}
    return Side(_("Size of the model file (GiB)"), {key: size for key, size in sizes.items() if size.value}, False)


def front(points: Sequence[tuple[float, float]], x_more: bool, y_more: bool) -> list[bool]:
    """Whether no other point is at least as good in both and better in one."""

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        gains = [(one[0] - other[0]) * (1 if x_more else -1), (one[1] - other[1]) * (1 if y_more else -1)]
        return min(gains) >= 0 and max(gains) > 0

    return [not any(beats(other, point) for other in points) for point in points]


def _points(view: View, rows: Sequence[Row], x: Side, y: Side) -> Iterable[Point]:
    ranked = [row for row in rows if not row.grey]
    places = [(x.values[row.cell.key].value, y.values[row.cell.key].value) for row in ranked]
    strong = dict(zip([row.cell.key for row in ranked], front(places, x.more_is_better, y.more_is_better), strict=True))
    for row in rows:
        across, upright = x.values[row.cell.key], y.values[row.cell.key]
        yield Point(
            x=across.value,
            y=upright.value,
            low=upright.low,
            high=upright.high,
            x_low=across.low,
            x_high=across.high,
            label=row.label,
            colour=colour_of(view, row),
            strong=strong.get(row.cell.key, False),
        )


def _of_metric(setup: Setup, metric: Metric) -> Side:
    values = {}
    for row in setup.rows:
        if summary := row.get(metric):
            interval = summary.interval
            values[row.cell.key] = Estimate(
                summary.median, interval.low if interval else None, interval.high if interval else None
            )
    return Side(metric.axis, values, metric.more_is_better)
