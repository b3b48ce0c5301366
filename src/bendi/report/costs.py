"""What a million tokens cost, from the energy and speed that were measured and the prices that the user gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bendi.energy.cost import UTILISATIONS, Cost, CostAnswer, Speed, cost_per_mtok
from bendi.i18n import _
from bendi.report.charts import Figure, Line, LineChart, Point, Table, scale_note
from bendi.report.figures import where
from bendi.report.given import ReportOptions
from bendi.report.trends import left_out
from bendi.report.view import Row, Setup, Source, View
from bendi.report.wording import THROUGHPUT, clean, figure, share, tier_name

_MOST_LINES = 4
"""Costs of configurations lie close together: only the cheapest are drawn."""


@dataclass(frozen=True)
class CostRow:
    """`low`, `high`: of the whole, from the interval of the energy; None where there is none."""

    row: Row
    answer: CostAnswer
    low: float | None = None
    high: float | None = None


def cost_rows(setup: Setup, source: Source, options: ReportOptions, utilisation: float) -> list[CostRow]:
    """For each configuration of which this source knows the energy, the cheapest first, grey ones last."""
    found = []
    for row in setup.rows:
        energy = row.energy_from(source)
        summary = energy.gross_j_tok if energy else None
        speed = row.get(THROUGHPUT)
        if not summary or not speed:
            continue
        interval = summary.interval

        def whole(j_tok: float, tok_s: float = speed.median) -> CostAnswer:
            return cost_per_mtok(Speed(j_tok / 3600, tok_s), options.cost, utilisation)

        ends = [whole(end).cost for end in (interval.low, interval.high)] if interval else [None, None]
        low, high = (end.total if end else None for end in ends)
        found.append(CostRow(row, whole(summary.median), low, high))
    return sorted(found, key=lambda each: (bool(each.row.grey), each.answer.cost.total if each.answer.cost else 0.0))


def cost_tables(view: View, setup: Setup, options: ReportOptions) -> Iterable[Table]:
    """One for each source of energy figures; with a bound every figure is "at most"."""
    tariff = options.cost.tariff
    for source in view.sources:
        rows = [each for each in cost_rows(setup, source, options, options.cost.utilisation) if each.answer.cost]
        if not rows or tariff is None:
            continue
        sign = "≤ " if source.tier == "bound" else ""
        currency = clean(tariff.currency, 12)
        notes = [
            _("For a million answer tokens, with their prompts, when the machine works {share} of the time.").format(
                share=share(options.cost.utilisation)
            ),
            _("Electricity: {price} {currency} for a kWh on average over the week.").format(
                price=figure(tariff.mean_price(*options.cost.hours)), currency=currency
            ),
        ]
        if options.cost.hardware is None:
            notes.append(_("Without the price of the hardware and without idle power: neither was given."))
        yield Table(
            name=f"cost-{view.setups.index(setup) + 1}-{view.sources.index(source) + 1}",
            title=_("Cost, {tier}: {setup}").format(tier=tier_name(source.tier), setup=setup.name),
            columns=(
                _("Configuration"), _("{currency} per million tokens").format(currency=currency), _("95% interval"),
                _("energy"), _("waiting"), _("hardware"),
            ),
            rows=tuple(_cells(each, each.answer.cost, sign) for each in rows if each.answer.cost),
            right=frozenset({1, 2, 3, 4, 5}),
            grey=frozenset(index for index, each in enumerate(rows) if each.row.grey),
            notes=tuple(notes),
            provenance=where(view, [each.row for each in rows], [len(each.row.repeats) for each in rows], source),
        )  # fmt: skip


def cloud_table(options: ReportOptions) -> Table | None:
    """What others ask, with where and when that was read."""
    prices = options.dated_cloud
    if not prices:
        return None
    return Table(
        name="cloud",
        title=_("Prices of others"),
        columns=(
            _("Model"),
            _("USD per million prompt tokens"),
            _("USD per million answer tokens"),
            _("Source"),
            _("Date"),
        ),
        rows=tuple(
            (clean(each.model), figure(each.input_usd), figure(each.output_usd), clean(each.source), clean(each.date))
            for each in prices
        ),
        right=frozenset({1, 2}),
    )


def cost_figures(view: View, setup: Setup, options: ReportOptions) -> Iterable[Figure]:
    """Cost against the share of the time in which the machine works; one chart for each source, none for bounds."""
    tariff = options.cost.tariff
    if tariff is None or options.cost.hardware is None:
        return
    for source in view.sources:
        lines: dict[str, list[Point]] = {}
        rows: dict[str, Row] = {}
        for utilisation in UTILISATIONS if source.tier != "bound" else ():
            for each in cost_rows(setup, source, options, utilisation):
                if each.answer.cost and not each.row.grey:
                    rows[each.row.cell.key] = each.row
                    lines.setdefault(each.row.cell.key, []).append(
                        Point(100 * utilisation, each.answer.cost.total, each.low, each.high)
                    )
        if not lines:
            continue
        rate = options.cost.usd_rate
        levels = [(f"{clean(each.model)} ({clean(each.date)})", each.output_usd * rate)
                  for each in options.dated_cloud] if rate else []  # fmt: skip
        chart = LineChart(
            x_axis=_("Share of the time in which the machine works (%)"),
            y_axis=_("{currency} for a million answer tokens").format(currency=clean(tariff.currency, 12)),
            lines=tuple(
                Line(rows[key].label, tuple(points), place)
                for place, (key, points) in enumerate(list(lines.items())[:_MOST_LINES])
            ),
            ticks=tuple(100 * utilisation for utilisation in UTILISATIONS),
            levels=tuple(levels),
            logarithmic=True,
        )
        title = _("Cost against use, {tier}: {setup}").format(tier=tier_name(source.tier), setup=setup.name)
        dashed = (
            (_("Dashed: what others ask for answer tokens, with the day on which that was read."),) if levels else ()
        )
        yield Figure(
            name=f"cost-{view.setups.index(setup) + 1}-{view.sources.index(source) + 1}",
            title=title,
            chart=chart,
            provenance=where(view, list(rows.values()), [len(row.repeats) for row in rows.values()], source),
            notes=(
                *dashed,
                *scale_note(chart.ticks),
                _("The upright axis is logarithmic."),
                *left_out(len(lines), _MOST_LINES),
            ),
            alt=title,
        )


def _cells(each: CostRow, cost: Cost, sign: str) -> tuple[str, ...]:
    interval = "–"
    if each.low is not None and each.high is not None:
        interval = _("{low} to {high}").format(low=sign + figure(each.low), high=figure(each.high))
    parts = (figure(cost.waiting), figure(cost.hardware))
    return (each.row.label, sign + figure(cost.total), "–" if sign else interval, sign + figure(cost.energy), *parts)
