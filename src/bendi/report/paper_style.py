"""Tables as studies of quantizations publish them, rebuilt from results, with the meter's own figure beside.

Such studies give tokens per second, the energy of a token as `P / (tok/s) / 3600` in Wh, and the cost of a million
tokens; as median ± IQR or as mean ± standard deviation over repeats. That formula is the energy only where the power
and the rate are of the same time; all energy over all tokens is, always. So both stand here, and how far they are
apart.
"""

from __future__ import annotations

import math
from typing import Literal

from bendi.energy.cost import Metered, Published, published
from bendi.i18n import _
from bendi.report.charts import Table
from bendi.report.export import markdown_table
from bendi.report.figures import where
from bendi.report.given import ReportOptions
from bendi.report.view import Row, Setup, Source, View
from bendi.report.wording import PP, TG, THROUGHPUT, clean, covers_text, figure, tier_name
from bendi.results import Repeat, Results

Statistic = Literal["median", "mean"]


def paper(results: Results, options: ReportOptions | None = None, statistic: Statistic = "median") -> str:
    """Markdown, in the language in use."""
    return "\n\n".join(markdown_table(table) for table in paper_tables(results, options, statistic)) + "\n"


def paper_tables(
    results: Results, options: ReportOptions | None = None, statistic: Statistic = "median"
) -> list[Table]:
    """One for each workload and source of energy figures; one without energy where there is none."""
    view = View(results)
    chosen = options or ReportOptions()
    made = []
    for setup in view.setups:
        sources: list[Source | None] = [
            source for source in view.sources
            if source.tier not in ("bound", "none") and any(row.energy_from(source) for row in setup.rows)
        ]  # fmt: skip
        for source in sources or [None]:
            made.append(_table(view, setup, source, chosen, statistic))
    return made


def _table(view: View, setup: Setup, source: Source | None, options: ReportOptions, statistic: Statistic) -> Table:
    tariff = options.cost.tariff
    price = tariff.mean_price(*options.cost.hours) if tariff else None
    currency = clean(tariff.currency, 12) if tariff else "USD"
    rate = THROUGHPUT if setup.cell.concurrency > 1 else TG
    rows = [row for row in setup.rows if row.repeats]
    spread = _("median ± IQR") if statistic == "median" else _("mean ± standard deviation")
    notes = [_("Figures are {spread} over n repeats.").format(spread=spread)]
    if source:
        notes.append(
            _(
                "Formula: mean power of the window / (tok/s) / 3600. Meter: all energy over all answer tokens. "
                "Difference: how much more the formula says; it knows nothing of the time that prompts take."
            )
        )
        title = _("{setup} · {tier}: {covers}").format(
            setup=setup.name, tier=tier_name(source.tier), covers=covers_text(source.covers)
        )
    else:
        title = _("{setup} · energy not measured").format(setup=setup.name)
        reasons = {code for row in rows for energy in row.energy for code in energy.missing}
        notes += [clean(options.explain(code), 200) for code in sorted(reasons)]
    if price is None:
        notes.append(_("Cost: not computed, since no price of electricity was given."))
    else:
        notes.append(_("Cost: electricity alone, at {price} {currency} for a kWh.").format(
            price=figure(price), currency=currency))  # fmt: skip
    cost = _("{currency} per million tokens").format(currency=currency)
    columns = (
        _("Model"), _("Quantization"), _("Engine"), _("Settings"), PP.axis, rate.axis, _("Wh/token (formula)"),
        _("Wh/token (meter)"), _("Difference"), _("{cost} (formula)").format(cost=cost),
        _("{cost} (meter)").format(cost=cost), "n",
    )  # fmt: skip
    return Table(
        name=f"paper-{view.setups.index(setup) + 1}",
        title=title,
        columns=columns,
        rows=tuple(_cells(row, source, price, statistic) for row in rows),
        right=frozenset(range(4, 12)),
        grey=frozenset(index for index, row in enumerate(rows) if row.grey),
        notes=tuple(notes),
        provenance=where(view, rows, [len(row.repeats) for row in rows], source),
    )


def _cells(row: Row, source: Source | None, price: float | None, statistic: Statistic) -> tuple[str, ...]:
    rate = THROUGHPUT if row.cell.concurrency > 1 else TG
    energy = published([_metered(row, repeat, source) for repeat in row.repeats]) if source else Published()
    middle = energy.median if statistic == "median" else energy.mean
    spread = energy.iqr if statistic == "median" else energy.std
    if len(energy.values) < 2:
        spread = None  # one repeat has none, and not one of zero
    difference = "–" if middle is None or not energy.metered else f"{100 * (middle / energy.metered - 1):+.1f}%"
    return (
        clean(row.cell.model),
        clean(row.cell.quantization),
        clean(row.cell.engine) + (f" ({row.grey})" if row.grey else ""),
        clean(row.cell.settings_text),
        _summarized(row, PP.key, statistic),
        _summarized(row, rate.key, statistic),
        _plus_minus(middle, spread),
        _plus_minus(energy.metered, None),
        difference,
        _plus_minus(_cost(middle, price), _cost(spread, price)),
        _plus_minus(_cost(energy.metered, price), None),
        str(len(row.repeats)),
    )


def _metered(row: Row, repeat: Repeat, source: Source | None) -> Metered:
    """A repeat with what that source says of it."""
    own = next(
        (each for each in repeat.energy if source and (each.tier, clean(each.meter)) == (source.tier, source.meter)
         and tuple(map(clean, each.covers)) == source.covers),
        None,
    )  # fmt: skip
    rate = repeat.throughput_tok_s if row.cell.concurrency > 1 else repeat.tg_tok_s
    return Metered(own.mean_w if own else None, rate, own.gross_j if own else None, repeat.output_tok)


def _summarized(row: Row, key: str, statistic: Statistic) -> str:
    summary = row.summaries.get(key)
    if summary is None:
        return "–"
    found = summary.description
    if statistic == "mean":
        return _plus_minus(found.mean, found.sd)
    return _plus_minus(found.median, found.iqr if found.n > 1 else None)


def _plus_minus(middle: float | None, spread: float | None) -> str:
    """Four digits of the middle, and the spread to the same place."""
    if middle is None:
        return "–"
    places = max(0, 3 - math.floor(math.log10(abs(middle)))) if middle else 0
    return f"{middle:.{places}f}" if spread is None else f"{middle:.{places}f} ± {spread:.{places}f}"


def _cost(wh_tok: float | None, price: float | None) -> float | None:
    """Of a million tokens: a million Wh are a thousand kWh."""
    return None if wh_tok is None or price is None else wh_tok * 1000 * price
