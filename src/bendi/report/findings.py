"""What the results say, in sentences: what is fastest, how surely, what could not be seen, what to doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from bendi.i18n import _
from bendi.report.costs import why_no_cost
from bendi.report.given import ReportOptions
from bendi.report.trade_offs import main_setups
from bendi.report.view import Row, Setup, Source, View, compare
from bendi.report.wording import (
    PP,
    TG,
    THROUGHPUT,
    Metric,
    between,
    clean,
    covers_text,
    figure,
    ratio,
    share,
    tier_name,
)
from bendi.stats import LEAST_PAIRS, Comparison, compare_ratios, noise_floor, paired

_MOST_MODELS = 4


@dataclass(frozen=True)
class Finding:
    """`kind`: `"speed"`, `"energy"`, `"method"` or `"doubt"`."""

    kind: str
    text: str


def findings(view: View, options: ReportOptions) -> list[Finding]:
    """The most important first."""
    found = [Finding("speed", text) for setup in _headlines(view) for text in _fastest(view, setup, options)]
    for setup in main_setups(view)[:_MOST_MODELS] or view.setups[:1]:
        found += [Finding("energy", text) for source in view.sources for text in _thriftiest(setup, source)]
    found += [Finding("method", text) for text in _method(view)]
    return found + [Finding("doubt", text) for text in _doubts(view, options)]


def _headlines(view: View) -> list[Setup]:
    """For each model the first workload about writing, the first about reading, and the one with most answers at
    once."""
    models = list(dict.fromkeys(setup.cell.model for setup in view.setups))[:_MOST_MODELS]
    chosen = []
    for model in models:
        own = [setup for setup in view.setups if setup.cell.model == model]
        for metric in (TG, PP):
            chosen += [setup for setup in own if setup.main is metric][:1]
        together = [setup for setup in own if setup.main is THROUGHPUT]
        chosen += sorted(together, key=lambda setup: -setup.cell.concurrency)[:1]
    return chosen


def _fastest(view: View, setup: Setup, options: ReportOptions) -> Iterable[str]:
    metric = setup.main
    ranked = setup.ranked(metric)
    if not ranked:
        return
    best = ranked[0]
    does = _does(metric, figure(best.summaries[metric.key].median))
    rival = _rival(view, best, ranked, options)
    comparison = compare(best, rival, metric) if rival else None
    begin = _("{setup}: ").format(setup=setup.name) if len(view.setups) > 1 else ""
    if rival is None or comparison is None:
        interval = between(best.summaries[metric.key].interval)
        yield begin + _("{label} {does} ({interval}).").format(label=best.label, does=does, interval=interval)
    else:
        yield begin + _compared(best, rival, does, comparison)
    yield from _other_engine(view, setup, (best, rival), begin, options)


def _other_engine(
    view: View, setup: Setup, told: tuple[Row, Row | None], begin: str, options: ReportOptions
) -> Iterable[str]:
    """The best pair of another engine and the baseline with the same quantization and settings, unless it was told."""
    metric, ranked = setup.main, setup.ranked(setup.main)
    baseline = options.baseline or view.engines[0]
    for row in ranked:
        rival = next(
            (
                each
                for each in ranked
                if each.cell.engine == baseline != row.cell.engine
                and (each.cell.quantization, each.cell.settings) == (row.cell.quantization, row.cell.settings)
            ),
            None,
        )
        summary, comparison = row.get(metric), compare(row, rival, metric) if rival else None
        if rival is None or summary is None or comparison is None:
            continue
        if {row.cell.key, rival.cell.key} != {each.cell.key for each in told if each}:
            yield begin + _compared(row, rival, _does(metric, figure(summary.median)), comparison)
        return


def _does(metric: Metric, value: str) -> str:
    if metric is TG:
        return _("writes {value} tok/s").format(value=value)
    if metric is PP:
        return _("reads prompts at {value} tok/s").format(value=value)
    return _("writes {value} tok/s in all answers together").format(value=value)


def _rival(view: View, best: Row, ranked: list[Row], options: ReportOptions) -> Row | None:
    """The same quantization with the baseline engine; where the best is that itself, or there is none, the next."""
    baseline = options.baseline or view.engines[0]
    same = [row for row in ranked[1:] if row.cell.quantization == best.cell.quantization]
    if best.cell.engine != baseline:
        chosen = next((row for row in same if row.cell.engine == baseline), None)
    else:
        chosen = next((row for row in same if row.cell.engine != baseline), None)
    return chosen or (ranked[1] if len(ranked) > 1 else None)


def _compared(best: Row, rival: Row, does: str, comparison: Comparison) -> str:
    names = {"label": best.label, "does": does, "other": rival.label, "ratio": ratio(comparison.estimate)}
    if comparison.low is None or comparison.high is None:
        return _(
            "{label} {does}, {ratio} times {other}; fewer than {least} pairs of repeats cannot say how sure that is."
        ).format(**names, least=LEAST_PAIRS)
    names |= {"low": ratio(comparison.low), "high": ratio(comparison.high)}
    # With pairs enough for an interval there is always a smallest difference that could have been seen.
    names["seen"] = share((comparison.detectable or 1.0) - 1)
    if comparison.low <= 1 <= comparison.high:
        return _(
            "{label} {does}, but cannot be told apart from {other}: {ratio} times as much ({low} to {high}); "
            "differences below {seen} could not have been seen."
        ).format(**names)
    return _(
        "{label} {does}, {ratio} times {other} ({low} to {high}); differences below {seen} could not have been seen."
    ).format(**names)


def _thriftiest(setup: Setup, source: Source) -> Iterable[str]:
    """Only of figures of one source; a bound is no figure."""
    if source.tier in ("bound", "none"):
        return
    found = [(row, energy.gross_j_tok) for row in setup.rows if not row.grey and (energy := row.energy_from(source))]
    known = sorted(((summary.median, row, summary) for row, summary in found if summary), key=lambda each: each[0])
    if not known:
        return
    joules, best, summary = known[0]
    names = {
        "setup": setup.name,
        "label": best.label,
        "joules": figure(joules),
        "interval": between(summary.interval),
        "tier": tier_name(source.tier),
        "covers": covers_text(source.covers),
    }
    if len(known) == 1:
        yield _("{setup}: {label} takes {joules} J for each token ({interval}; {tier}, {covers}).").format(**names)
        return
    last = known[-1]
    values, others = paired(last[2].by_block, summary.by_block)
    if not values or min(*values, *others) <= 0:
        return
    comparison = compare_ratios(values, others)
    yield _(
        "{setup}: {label} takes the least energy, {joules} J for each token ({interval}; {tier}, {covers}); {last} "
        "takes "
        "{ratio} times as much."
    ).format(**names, last=last[1].label, ratio=ratio(comparison.estimate))


def _method(view: View) -> Iterable[str]:
    series = {setup.main: [] for setup in view.setups}  # type: dict[Metric, list[list[float]]]
    for setup in view.setups:
        series[setup.main] += [row.summaries[setup.main.key].values for row in setup.ranked(setup.main)]
    for metric, values in series.items():
        floor = noise_floor(values)
        if floor is not None:
            yield _(
                "{metric}: halves of the repeats of one and the same configuration differ by up to {share}."
            ).format(metric=metric.title, share=share(floor))
    errors = []
    for prediction in view.results.predictions:
        row = view.by_key.get(prediction.cell)
        measured = row.get(TG) if row and not row.grey else None
        if measured and prediction.tg_tok_s > 0:
            errors.append(abs(measured.median / prediction.tg_tok_s - 1))
    if errors:
        yield _("Predictions of TG, made before, were off by {share} (median of {count}; {worst} at worst).").format(
            share=share(median(errors)), count=len(errors), worst=share(max(errors))
        )


def _doubts(view: View, options: ReportOptions) -> Iterable[str]:
    garbage = {}
    for row in view.rows:
        check = view.results.check_of(row.cell)
        if check and check.verdict == "garbage":
            reason = clean(check.reason, 80)
            garbage[row.cell.configuration] = (
                _("{label} ({reason})").format(label=row.label, reason=reason) if reason else row.label
            )
    if garbage:
        yield _("Answers garbage, so shown grey and not ranked: {names}.").format(names=_(", ").join(garbage.values()))
    reasons: Counter[str] = Counter()
    for row in view.rows:
        for energy in row.energy:
            reasons.update(energy.missing)
    measured = any(energy.gross_j_tok for row in view.rows for energy in row.energy)
    if view.results.repeats and not measured:
        why = " ".join(clean(options.explain(reason), 200) for reason in reasons) or _("The results name no meter.")
        yield _("Energy: not measured. {why}").format(why=why)
    elif reasons:
        for reason, count in reasons.most_common():
            yield _("Energy is missing in {count} cases: {why}").format(
                count=count, why=clean(options.explain(reason), 200)
            )
    if why := why_no_cost(view, options):
        yield _("There is no cost: {why}").format(why=why)
    if view.results.failures:
        cells = {failure.cell for failure in view.results.failures}
        most = Counter(clean(failure.reason, 200) for failure in view.results.failures).most_common(1)[0][0]
        yield _("Failed repeats: {count}, of {cells} combinations; most often: {why}").format(
            count=len(view.results.failures), cells=len(cells), why=most
        )
    differing = {row.label for row in view.rows if row.loaded and row.loaded.differing}
    if differing:
        yield _("Settings were not taken by: {names}.").format(names=_(", ").join(sorted(differing)))
