"""Boxes of speed and energy, and predictions beside measurements, from the rows of a view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bendi.i18n import _
from bendi.report.charts import (
    BOX_FROM,
    GREY,
    POINTS_BELOW,
    Box,
    BoxChart,
    Figure,
    Point,
    PointChart,
    Provenance,
    alt_text,
    begins_at_zero,
    provenance_of,
)
from bendi.report.view import Row, Setup, Source, Summary, View, reads
from bendi.report.wording import PP, TG, THROUGHPUT, Metric, clean, figure, share, tier_name, whole_range
from bendi.stats import tukey_box


def speed_figures(view: View, setup: Setup) -> Iterable[Figure]:
    """Boxes of PP, TG and, with several answers at once, throughput."""
    wanted = [TG, PP] if setup.cell.workload.answer_tok > 1 else [PP]
    for metric in ([THROUGHPUT] if setup.cell.concurrency > 1 else []) + wanted:
        rows = _in_order([(row, row.get(metric)) for row in setup.rows], metric.more_is_better)
        if rows:
            name = f"{_short(metric)}-{view.setups.index(setup) + 1}"
            title = _("{metric}: {setup}").format(metric=metric.title, setup=setup.name)
            yield _boxes(view, name, title, metric.axis, rows)


def energy_figures(view: View, setup: Setup, source: Source) -> Iterable[Figure]:
    """Boxes of joules per token by one meter; a bound is no figure and is not drawn."""
    found = [(row, row.energy_from(source)) for row in setup.rows]
    rows = _in_order([(row, energy.gross_j_tok if energy else None) for row, energy in found], more_is_better=False)
    if rows and source.tier not in ("bound", "none"):
        name = f"energy-{view.setups.index(setup) + 1}-{view.sources.index(source) + 1}"
        title = _("Energy for each token, {tier}: {setup}").format(tier=tier_name(source.tier), setup=setup.name)
        made = _boxes(view, name, title, energy_axis(setup), rows)
        counts = [summary.n for _row, summary in rows]
        provenance = where(view, [row for row, _summary in rows], counts, source)
        yield replace(made, provenance=provenance, notes=(energy_note(setup), *made.notes))


def prediction_figures(view: View) -> Iterable[Figure]:
    """What was predicted before, and what was measured then."""
    points: list[Point] = []
    rows: list[Row] = []
    for prediction in view.results.predictions:
        row = view.by_key.get(prediction.cell)
        for colour, metric, predicted in ((0, TG, prediction.tg_tok_s), (1, PP, prediction.pp_tok_s)):
            found = row.get(metric) if row and not row.grey else None
            if row and found and predicted > 0:
                points.append(
                    Point(
                        x=predicted,
                        y=found.median,
                        low=found.interval.low if found.interval else None,
                        high=found.interval.high if found.interval else None,
                        x_low=max(predicted * (1 - prediction.error), predicted / 100),
                        x_high=predicted * (1 + prediction.error),
                        colour=colour,
                    )
                )
                rows.append(row)
    if points:
        yield Figure(
            name="predictions",
            title=_("Prediction against measurement"),
            chart=PointChart(_("Predicted (tok/s)"), _("Measured (tok/s)"), tuple(points), diagonal=True),
            provenance=where(view, rows, [len(row.repeats) for row in rows]),
            notes=(
                _("On the line, prediction and measurement agree."),
                _("Across: the error that was stated with the prediction. Upright: the interval of the median."),
            ),
            legend=((0, TG.title), (1, PP.title)),
            alt=_("Prediction against measurement, {count} figures").format(count=len(points)),
        )


def energy_axis(setup: Setup) -> str:
    if reads(setup.cell):
        return _("Energy for each prompt token (J/token)")
    return _("Energy for each answer token (J/token)")


def energy_note(setup: Setup) -> str:
    """What is counted."""
    if reads(setup.cell):
        return _("Energy of the whole window for each token of the prompts: all energy over all tokens of a repeat.")
    return _(
        "Energy of the whole window, prompts too, for each token of the answers: all energy over all tokens of a "
        "repeat."
    )


def where(view: View, rows: Sequence[Row], counts: Sequence[int], source: Source | None = None) -> Provenance:
    """Where the figures of these rows come from."""
    configurations = list(dict.fromkeys(row.cell.configuration for row in rows))
    energy = (source.tier, source.covers, source.meter) if source else None
    return provenance_of(view.results, configurations, counts, energy)


def colour_of(view: View, row: Row) -> int:
    """By engine; grey without a rank."""
    return GREY if row.grey else view.engines.index(row.cell.engine)


def legend_of(view: View, rows: Sequence[Row]) -> tuple[tuple[int, str], ...]:
    """The engines, where there are several; and what grey means."""
    present = [engine for engine in view.engines if any(row.cell.engine == engine and not row.grey for row in rows)]
    named = [(view.engines.index(engine), clean(engine)) for engine in present] if len(view.engines) > 1 else []
    return (*named, *([(GREY, _("not ranked"))] if any(row.grey for row in rows) else []))


def _short(metric: Metric) -> str:
    return metric.key.removesuffix("_tok_s")


def _in_order(rows: Sequence[tuple[Row, Summary | None]], more_is_better: bool) -> list[tuple[Row, Summary]]:
    """The best first, grey ones last."""
    found = [(row, summary) for row, summary in rows if summary]
    sign = -1 if more_is_better else 1
    return sorted(found, key=lambda pair: (bool(pair[0].grey), sign * pair[1].median))


def _boxes(view: View, name: str, title: str, axis: str, rows: Sequence[tuple[Row, Summary]]) -> Figure:
    boxes = tuple(_box(view, row, summary) for row, summary in rows)
    counts = [summary.n for _row, summary in rows]
    return Figure(
        name=name,
        title=title,
        chart=BoxChart(axis, boxes),
        provenance=where(view, [row for row, _summary in rows], counts),
        notes=tuple(_notes(boxes)),
        legend=legend_of(view, [row for row, _summary in rows]),
        alt=alt_text(title, axis, [(box.label, box.box.median) for box in boxes]),
    )


def _box(view: View, row: Row, summary: Summary) -> Box:
    text = _("{median} ({range}) n = {n}").format(
        median=figure(summary.median), range=whole_range(summary.interval), n=summary.n
    )
    values = tuple(summary.values)
    return Box(row.label, values, tukey_box(values), summary.interval, text, colour_of(view, row))


def _notes(boxes: Sequence[Box]) -> Iterable[str]:
    counts = [box.box.n for box in boxes]
    yield _("Beside each: median (interval of the median) and number of repeats.")
    if max(counts) >= BOX_FROM:
        yield _(
            "Box: the middle half of the repeats; line in it: median; whiskers: to 1.5 times the box; no repeat is "
            "left out."
        )
    if min(counts) < BOX_FROM:
        yield _("With fewer than {n} repeats there is no box: points, median and its interval.").format(n=BOX_FROM)
    elif min(counts) < POINTS_BELOW:
        yield _("Each point is one repeat.")
    unsure = [box.interval.coverage for box in boxes if box.interval and not box.interval.promised]
    if least := min((coverage for coverage in unsure if coverage), default=None):
        yield _("So few repeats promise no 95%: the intervals are only {coverage} sure.").format(coverage=share(least))
    if not begins_at_zero([value for box in boxes for value in box.values]):
        yield _("The axis does not begin at zero.")
