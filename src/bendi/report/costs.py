"""What tokens and requests cost, from the energy and speed that were measured and the prices that the user gave.

A price of a million answer tokens holds their prompts: it means something where answers are written, and nothing where
the work is in the prompts. There a request has a price, and a million tokens of both kinds together; each kind for
itself only where repeats of different proportions tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bendi.energy.cost import MTOK, UTILISATIONS, Cost, CostAnswer, Speed, cost_per_mtok
from bendi.i18n import _
from bendi.report.charts import Figure, Line, LineChart, Point, Table, scale_note
from bendi.report.figures import where
from bendi.report.given import ReportOptions
from bendi.report.tables import estimate_text, source_text, splits
from bendi.report.trends import left_out
from bendi.report.view import Row, Setup, Source, Summary, View, joules_of, reads, summary_of
from bendi.report.wording import clean, figure, share, tier_name
from bendi.results import Repeat

_MOST_LINES = 4
"""Costs of configurations lie close together: only the cheapest are drawn."""
_REQUESTS = 1000
Unit = Literal["answer token", "token", "request"]
"""What is paid for: a token of an answer with its share of the prompt, a token of either kind, a whole request."""


@dataclass(frozen=True)
class CostRow:
    """Of a million units. `low`, `high`: of the whole, from the interval of the energy; None where there is none."""

    row: Row
    answer: CostAnswer
    low: float | None = None
    high: float | None = None


def units_of(repeat: Repeat, unit: Unit) -> int:
    """How many of them a repeat has. Of prompts, the tokens that were computed."""
    if unit == "request":
        return len(repeat.answers)
    computed = sum(answer.computed_tok for answer in repeat.answers) if unit == "token" else 0
    return repeat.output_tok + computed


def cost_rows(
    setup: Setup, source: Source, options: ReportOptions, utilisation: float, unit: Unit = "answer token"
) -> list[CostRow]:
    """For each configuration of which this source knows the energy, the cheapest first, grey ones last."""
    found = []
    for row in setup.rows:
        energy, rate = _each(row, source, unit)
        if not energy or not rate:
            continue
        interval = energy.interval

        def whole(joules: float, per_s: float = rate.median) -> CostAnswer:
            return cost_per_mtok(Speed(joules / 3600, per_s), options.cost, utilisation)

        ends = [whole(end).cost for end in (interval.low, interval.high)] if interval else [None, None]
        low, high = (end.total if end else None for end in ends)
        found.append(CostRow(row, whole(energy.median), low, high))
    return sorted(found, key=lambda each: (bool(each.row.grey), each.answer.cost.total if each.answer.cost else 0.0))


def _each(row: Row, source: Source, unit: Unit) -> tuple[Summary | None, Summary | None]:
    """Joules for a unit, all over all, and units per second."""

    def joules(repeat: Repeat) -> float | None:
        known, units = joules_of(repeat, source), units_of(repeat, unit)
        return known / units if known is not None and units > 0 else None

    def per_s(repeat: Repeat) -> float | None:
        return units_of(repeat, unit) / repeat.window_s if repeat.window_s > 0 else None

    return summary_of(row.repeats, joules), summary_of(row.repeats, per_s)


def cost_tables(view: View, setup: Setup, options: ReportOptions) -> Iterable[Table]:
    """One for each source of energy figures; with a bound every figure is "at most"."""
    if options.cost.tariff is None:
        return
    for source in view.sources:
        make = _of_requests if reads(setup.cell) else _of_answers
        table = make(view, setup, source, options)
        if table:
            yield table


def _of_answers(view: View, setup: Setup, source: Source, options: ReportOptions) -> Table | None:
    rows, requests = _known(setup, source, options, "answer token"), _known(setup, source, options, "request")
    if not rows:
        return None
    sign, currency = _sign(source), _currency(options)
    whole = {each.row.cell.key: each for each in requests}
    return Table(
        name=_name(view, setup, source),
        title=_("Cost, {tier}: {setup}").format(tier=tier_name(source.tier), setup=setup.name),
        columns=(
            _("Configuration"), _("{currency} per million tokens").format(currency=currency), _("95% interval"),
            _("energy"), _("waiting"), _("hardware"), _("{currency} per 1000 requests").format(currency=currency),
        ),
        rows=tuple(
            (*_cells(each, each.answer.cost, sign), _of_thousand(whole.get(each.row.cell.key), sign))
            for each in rows if each.answer.cost
        ),
        right=frozenset(range(1, 7)),
        grey=frozenset(index for index, each in enumerate(rows) if each.row.grey),
        notes=(
            _("For a million answer tokens, with their prompts, when the machine works {share} of the time.").format(
                share=share(options.cost.utilisation)
            ),
            *_price_notes(options),
        ),
        provenance=where(view, [each.row for each in rows], [len(each.row.repeats) for each in rows], source),
    )  # fmt: skip


def _of_requests(view: View, setup: Setup, source: Source, options: ReportOptions) -> Table | None:
    """Where the work is in the prompts."""
    rows, both = _known(setup, source, options, "request"), _known(setup, source, options, "token")
    if not rows:
        return None
    sign, currency = _sign(source), _currency(options)
    tokens = {each.row.cell.key: each.answer.cost for each in both}
    load = setup.cell.workload
    return Table(
        name=_name(view, setup, source),
        title=_("Cost, {tier}: {setup}").format(tier=tier_name(source.tier), setup=setup.name),
        columns=(
            _("Configuration"), _("{currency} per 1000 requests").format(currency=currency), _("95% interval"),
            _("{currency} per million tokens of both kinds").format(currency=currency),
        ),
        rows=tuple(
            (
                each.row.label,
                _of_thousand(each, sign),
                _interval(each, sign, _REQUESTS / MTOK),
                sign + figure(cost.total) if (cost := tokens.get(each.row.cell.key)) else "–",
            )
            for each in rows
        ),
        right=frozenset(range(1, 4)),
        grey=frozenset(index for index, each in enumerate(rows) if each.row.grey),
        notes=(
            _(
                "A million answer tokens have no price of their own here: answers have {answer} tokens and prompts "
                "{prompt}, so nearly all time and energy goes into the prompts. Given are whole requests, and tokens "
                "of computed prompts and answers together."
            ).format(answer=load.answer_tok, prompt=load.prompt_tok),
            *_why_not_split(view, options),
            _("When the machine works {share} of the time.").format(share=share(options.cost.utilisation)),
            *_price_notes(options),
        ),
        provenance=where(view, [each.row for each in rows], [len(each.row.repeats) for each in rows], source),
    )  # fmt: skip


def _known(setup: Setup, source: Source, options: ReportOptions, unit: Unit) -> list[CostRow]:
    found = cost_rows(setup, source, options, options.cost.utilisation, unit)
    return [each for each in found if each.answer.cost]


def _why_not_split(view: View, options: ReportOptions) -> list[str]:
    """Why prompts and answers have no price each, where no configuration has."""
    found = [split for _rows, _source, split in splits(view)]
    if any(not split.reason for split in found):
        return []
    return [
        _("Prompts and answers have no price each: {why}").format(why=clean(options.explain(code), 200))
        for code in dict.fromkeys(split.reason for split in found)
    ]


def split_table(view: View, options: ReportOptions) -> Table | None:
    """What each kind of token costs in electricity, where repeats of different proportions tell them apart."""
    tariff = options.cost.tariff
    known = [(own, source, split) for own, source, split in splits(view) if not split.reason]
    if tariff is None or not known:
        return None
    # Joules for a token are so many of the currency for a million.
    scale = MTOK / 3.6e6 * tariff.mean_price(*options.cost.hours)
    currency = _currency(options)
    return Table(
        name="cost-split",
        title=_("Electricity for prompts and for answers"),
        columns=(
            _("Configuration"), _("Meter"), _("{currency} per million prompt tokens").format(currency=currency),
            _("{currency} per million answer tokens").format(currency=currency),
            _("{currency} per 1000 requests, beside their tokens").format(currency=currency),
        ),
        rows=tuple(
            (
                own[0].label,
                source_text(source),
                estimate_text(split.per_prompt_tok_j, scale),
                estimate_text(split.per_answer_tok_j, scale),
                estimate_text(split.per_request_j, scale * _REQUESTS / MTOK),
            )
            for own, source, split in known
        ),
        right=frozenset({2, 3, 4}),
        grey=frozenset(index for index, (own, _source, _split) in enumerate(known) if own[0].grey),
        notes=(_("By the regression of the energy, with its intervals; without hardware and idle power."),),
        provenance=where(view, [row for own, _source, _split in known for row in own],
                         [len(row.repeats) for own, _source, _split in known for row in own]),
    )  # fmt: skip


def why_no_cost(view: View, options: ReportOptions) -> str:
    """Why a report for which prices were given has no cost at all, in a sentence; empty where it has one, or where
    nobody asked."""
    if options.cost.tariff is None and options.cost.hardware is None:
        return ""
    answers = [
        each.answer for setup in view.setups for source in view.sources
        for each in cost_rows(setup, source, options, options.cost.utilisation, "request")
    ]  # fmt: skip
    if any(each.cost for each in answers) or not view.results.repeats:
        return ""
    codes = dict.fromkeys(each.reason for each in answers) or {"no_energy": None}
    return " ".join(clean(options.explain(code), 200) for code in codes)


def _price_notes(options: ReportOptions) -> list[str]:
    tariff = options.cost.tariff
    assert tariff is not None
    notes = [
        _("Electricity: {price} {currency} for a kWh on average over the week.").format(
            price=figure(tariff.mean_price(*options.cost.hours)), currency=_currency(options)
        )
    ]
    if options.cost.hardware is None:
        notes.append(_("Without the price of the hardware and without idle power: neither was given."))
    return notes


def _name(view: View, setup: Setup, source: Source) -> str:
    return f"cost-{view.setups.index(setup) + 1}-{view.sources.index(source) + 1}"


def _currency(options: ReportOptions) -> str:
    return clean(options.cost.tariff.currency, 12) if options.cost.tariff else ""


def _sign(source: Source) -> str:
    return "≤ " if source.tier == "bound" else ""


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
            name=_name(view, setup, source),
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
    parts = (figure(cost.waiting), figure(cost.hardware))
    return (each.row.label, sign + figure(cost.total), _interval(each, sign), sign + figure(cost.energy), *parts)


def _of_thousand(each: CostRow | None, sign: str) -> str:
    return sign + figure(each.answer.cost.total * _REQUESTS / MTOK) if each and each.answer.cost else "–"


def _interval(each: CostRow, sign: str, scale: float = 1.0) -> str:
    """A bound has none."""
    if sign or each.low is None or each.high is None:
        return "–"
    return _("{low} to {high}").format(low=figure(scale * each.low), high=figure(scale * each.high))
