"""The tables of a report: who is first and how surely, energy by meter, what every meter saw, predictions, what ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from bendi.energy.phases import Estimate, Phases, Repeated, phases_of
from bendi.i18n import _
from bendi.report.charts import Table
from bendi.report.figures import energy_note, where
from bendi.report.given import ReportOptions
from bendi.report.view import EnergyRow, Row, Setup, Source, View, joules_of
from bendi.report.wording import (
    MEMORY,
    PP,
    TG,
    THROUGHPUT,
    TTFT,
    between,
    clean,
    covers_text,
    figure,
    ratio,
    share,
    sureness,
    tier_name,
)
from bendi.stats import Comparison, median_interval
from bendi.units import format_size


def ranking(view: View, setup: Setup) -> Table:
    """The best first, by what the workload is about; below, without a rank, what is grey."""
    main = setup.main
    ranked = setup.ranked(main)
    others = [metric for metric in (TG, PP, THROUGHPUT, TTFT, MEMORY) if metric is not main]
    others = [metric for metric in others if any(row.get(metric) for row in setup.rows)]
    if setup.cell.concurrency == 1:
        others = [metric for metric in others if metric is not THROUGHPUT]
    grey = [row for row in setup.rows if row not in ranked]
    against = setup.against_best(main)
    rows = []
    for place, row in enumerate([*ranked, *grey]):
        summary = row.get(main)
        rows.append(
            (
                "" if row in grey else str(place + 1),
                row.label,
                figure(summary.median if summary else None),
                between(summary.interval if summary else None),
                figure(summary.description.iqr if summary and summary.n > 1 else None),
                *(figure(found.median if (found := row.get(metric)) else None) for metric in others),
                "" if row in grey else _against(place, against.get(row.cell.key)),
                str(summary.n if summary else 0),
                _("; ").join(
                    part for part in (row.grey, *row.flags, sureness(summary.interval) if summary else "") if part
                ),
            )
        )
    columns = (
        _("Rank"), _("Configuration"), main.heading, _("95% interval"), _("IQR"),
        *(metric.heading for metric in others),        _("times the best"), "n", _("Remarks"),
    )  # fmt: skip
    return Table(
        name=f"ranking-{view.setups.index(setup) + 1}",
        title=_("Ranking by {metric}").format(metric=main.title),
        columns=columns,
        rows=tuple(rows),
        right=frozenset({0, *range(2, len(columns) - 1)}),
        remarks=len(columns) - 1,
        grey=frozenset(range(len(ranked), len(rows))),
        notes=(
            _(
                "Medians over repeats. IQR: width of the middle half, how much single repeats differ. 95% "
                "interval: where the median lies."
            ),
            _(
                "Times the best: of pairs from the same block, with its interval; “not told apart”: not different "
                "beyond chance, after Holm."
            ),
        ),
        provenance=where(view, setup.rows, [found.n for row in setup.rows if (found := row.get(main))]),
    )  # fmt: skip


def turns_table(view: View, setup: Setup) -> Table | None:
    """Of conversations: how each turn begins, and how much of what came before it was in the cache."""
    turns = setup.cell.workload.turns
    if turns < 2:
        return None
    rows: list[tuple[str, ...]] = []
    shown = [row for row in setup.rows if row.repeats]
    grey: set[int] = set()
    for row in shown:
        for turn in range(turns):
            told = [repeat.answers[turn::turns] for repeat in row.repeats]
            answers = [answer for each in told for answer in each]
            first_s = [fmean(known) for each in told if (known := [a.ttft_s for a in each if a.ttft_s is not None])]
            cached = [answer.cached_tok for answer in answers if answer.cached_tok is not None]
            grey |= {len(rows)} if row.grey else set()
            rows.append(
                (
                    row.label,
                    str(turn + 1),
                    figure(fmean(answer.prompt_tok for answer in answers)),
                    figure(fmean(cached)) if cached else "–",
                    figure(median(first_s)) if first_s else "–",
                    between(median_interval(first_s)) if first_s else "–",
                    str(len(first_s)),
                )
            )
    return Table(
        name=f"turns-{view.setups.index(setup) + 1}",
        title=_("Turn by turn: {setup}").format(setup=setup.name),
        columns=(
            _("Configuration"), _("Turn"), _("Prompt (tok)"), _("of it in the cache (tok)"), TTFT.heading,
            _("95% interval"), "n",
        ),
        rows=tuple(rows),
        right=frozenset(range(1, 7)),
        grey=frozenset(grey),
        notes=(
            _(
                "The prompt of a turn holds all turns before it; what is in the cache of the engine is not computed "
                "again."
            ),
        ),
        provenance=where(view, shown, [len(row.repeats) for row in shown]),
    )  # fmt: skip


def energy_table(view: View, setup: Setup, source: Source, options: ReportOptions) -> Table | None:
    """By one meter, those that need the least first; bounds as such; what is missing with the reason."""
    found = [(row, energy) for row in setup.rows if (energy := row.energy_from(source))]
    if not found:
        return None
    found.sort(
        key=lambda pair: (bool(pair[0].grey), pair[1].gross_j_tok.median if pair[1].gross_j_tok else float("inf"))
    )
    sign = "≤ " if source.tier == "bound" else ""
    known = [energy.gross_j_tok.n for _row, energy in found if energy.gross_j_tok]
    return Table(
        name=f"energy-{view.setups.index(setup) + 1}-{view.sources.index(source) + 1}",
        title=_("Energy, {tier}: {covers}").format(tier=tier_name(source.tier), covers=covers_text(source.covers)),
        columns=(
            _("Configuration"), _("J/token"), _("95% interval"), _("J/token without idle"), _("Wh per 1000 tokens"),
            _("Mean power (W)"), "n", _("Remarks"),
        ),
        rows=tuple(_energy_cells(row, energy, sign, options) for row, energy in found),
        right=frozenset(range(1, 7)),
        remarks=7,
        grey=frozenset(index for index, (row, _energy) in enumerate(found) if row.grey),
        notes=(
            energy_note(setup),
            *([_("An upper bound says only that it is not more.")] if sign else []),
        ),
        provenance=where(view, [row for row, _energy in found], known, source),
    )  # fmt: skip


def coverage_table(view: View, options: ReportOptions) -> Table:
    """What every meter saw and how often it has a figure."""
    rows = []
    total = len(view.results.repeats)
    measured = [row for row in view.rows if row.repeats]
    for source in view.sources:
        found = [energy for row in view.rows if (energy := row.energy_from(source))]
        known = sum(energy.gross_j_tok.n for energy in found if energy.gross_j_tok)
        missing: dict[str, int] = {}
        doubts: dict[str, int] = {}
        for energy in found:
            for counts, into in ((energy.missing, missing), (energy.flags, doubts)):
                for code, count in counts.items():
                    into[code] = into.get(code, 0) + count
        rows.append(
            (
                source.meter or "–",
                tier_name(source.tier),
                covers_text(source.covers) if source.tier != "none" else "–",
                _("{known} of {total}").format(known=known, total=total),
                _counted(missing, options, _("not measured: {why}")) + _counted(doubts, options, "{why}"),
            )
        )
    if not rows:
        rows = [("–", tier_name("none"), "–", _("{known} of {total}").format(known=0, total=total),
                 _("The results name no meter."))]  # fmt: skip
    return Table(
        name="meters",
        title=_("What the meters saw"),
        columns=(_("Meter"), _("Tier"), _("Covers"), _("Repeats with a figure"), _("Remarks")),
        rows=tuple(rows),
        remarks=4,
        right=frozenset({3}),
        notes=(_("Figures of different tiers or coverage are never put into one chart or ranking."),),
        provenance=where(view, measured, [len(row.repeats) for row in measured]),
    )  # fmt: skip


def splits(view: View) -> Iterable[tuple[list[Row], Source, Phases]]:
    """For each configuration and meter the energy of prompts and of answers, told apart by regression over its repeats,
    or why that cannot be had: of those with one answer at a time and nothing before the prompt, since batches and deep
    contexts change what a token takes."""
    alike = [row for row in view.rows if row.cell.concurrency == 1 and not row.cell.workload.depth_tok]
    for source in view.sources:
        if source.tier in ("bound", "none"):
            continue
        for configuration in dict.fromkeys(row.cell.configuration for row in alike):
            own = [row for row in alike if row.cell.configuration == configuration and row.energy_from(source)]
            split = phases_of(list(_windows(own, source)))
            if split.repeats:
                yield own, source, split


def phases_table(view: View, options: ReportOptions) -> Table | None:
    """Energy of prompts and of answers."""
    rows: list[tuple[str, ...]] = []
    shown: list[Row] = []
    why: dict[str, None] = {}
    for own, source, split in splits(view):
        shown += own
        if split.reason:
            why[split.reason] = None
        else:
            rows.append(_phase_cells(own[0], source, split))
    if not shown:
        return None
    formula = _(
        "Least squares over repeats of different proportions: E = a · requests + b · prompt tokens + c · answer tokens."
    )
    missing = [_("not measured: {why}").format(why=clean(options.explain(code), 200)) for code in why]
    if not rows:
        rows = [("–", "–", "–", "–", "–", "–", "–", "")]
    return Table(
        name="phases",
        title=_("Energy of prompts and of answers"),
        columns=(
            _("Configuration"), _("Meter"), _("J per prompt token"), _("J per answer token"), _("J per request"), "R²",
            "n", _("Remarks"),
        ),
        rows=tuple(rows),
        remarks=7,
        right=frozenset({2, 3, 4, 5, 6}),
        notes=(*missing, formula),
        provenance=where(view, shown, [len(row.repeats) for row in shown]),
    )  # fmt: skip


def _phase_cells(row: Row, source: Source, split: Phases) -> tuple[str, ...]:
    return (
        row.label,
        source_text(source),
        estimate_text(split.per_prompt_tok_j),
        estimate_text(split.per_answer_tok_j),
        estimate_text(split.per_request_j),
        "–" if split.explained is None else figure(split.explained),
        str(split.repeats),
        row.grey,
    )


def prediction_table(view: View) -> Table | None:
    rows = []
    shown = []
    for prediction in view.results.predictions:
        row = view.by_key.get(prediction.cell)
        for metric, predicted in ((TG, prediction.tg_tok_s), (PP, prediction.pp_tok_s)):
            found = row.get(metric) if row else None
            if row is None or found is None or predicted <= 0:
                continue
            times = found.median / predicted
            inside = abs(times - 1) <= prediction.error
            shown.append(row)
            rows.append(
                (
                    view.label_with_setup(row), metric.abbreviation, figure(predicted), f"± {share(prediction.error)}",
                    figure(found.median), ratio(times), str(found.n),
                    row.grey or (_("within") if inside else _("outside")),
                )
            )  # fmt: skip
    if not rows:
        return None
    return Table(
        name="predictions",
        title=_("Prediction against measurement"),
        columns=(
            _("Configuration"), _("Phase"), _("Predicted (tok/s)"), _("Stated error"), _("Measured (tok/s)"),
            _("Measured / predicted"), "n", _("Within the stated error"),
        ),
        rows=tuple(rows),
        right=frozenset({2, 3, 4, 5, 6}),
        grey=frozenset(index for index, row in enumerate(shown) if row.grey),
        folded=True,
        provenance=where(view, shown, [len(row.repeats) for row in shown]),
    )  # fmt: skip


def engines_table(view: View) -> Table | None:
    """What really ran, and what of the settings the engine confirmed."""
    rows = []
    for configuration in dict.fromkeys(row.cell.configuration for row in view.rows):
        row = next(row for row in view.rows if row.cell.configuration == configuration)
        check = view.results.check_of(row.cell)
        verdicts = {"ok": _("as they should be"), "garbage": _("garbage"), "unchecked": _("not checked")}
        verdict = verdicts[check.verdict] if check else verdicts["unchecked"]
        if check and check.agreement is not None:
            verdict = _("{verdict} ({share} as the reference)").format(verdict=verdict, share=share(check.agreement))
        engine = row.loaded
        rows.append(
            (
                row.full,
                clean(" ".join([engine.engine, engine.version, engine.build])) if engine else "–",
                clean(engine.model_sha256, 16) if engine else "–",
                format_size(engine.model_bytes) if engine else "–",
                clean(" ".join(f"{name}={value}" for name, value in sorted(engine.verified.items())))
                if engine
                else "–",
                clean(", ".join(engine.differing)) if engine else "–",
                verdict,
            )
        )
    columns = (
        _("Configuration"), _("Engine and build"), _("SHA-256 of the model"), _("Size"), _("Confirmed by the engine"),
        _("Not taken"), _("Answers"),
    )  # fmt: skip
    return Table("engines", _("Engines and model files"), columns, tuple(rows), right=frozenset({3})) if rows else None


def _against(place: int, found: tuple[Comparison, float] | None) -> str:
    if place == 0:
        return _("the best")
    if found is None:
        return "–"
    comparison, p = found
    times = ratio(comparison.estimate)
    if comparison.low is None or comparison.high is None:
        return times
    text = _("{ratio} ({low} to {high})") if p < 0.05 else _("{ratio} ({low} to {high}), not told apart")
    return text.format(ratio=times, low=ratio(comparison.low), high=ratio(comparison.high))


def _energy_cells(row: Row, energy: EnergyRow, sign: str, options: ReportOptions) -> tuple[str, ...]:
    gross, net, watts = energy.gross_j_tok, energy.net_j_tok, energy.mean_w
    remarks = [row.grey] if row.grey else []
    remarks.append(_counted(energy.missing, options, _("not measured: {why}")))
    remarks.append(_counted(energy.flags, options, "{why}"))
    return (
        row.label,
        sign + figure(gross.median) if gross else _("not measured"),
        between(gross.interval) if gross and not sign else "–",
        figure(net.median) if net and not sign else "–",
        sign + figure(gross.median / 3.6) if gross else "–",
        sign + figure(watts.median) if watts else "–",
        str(gross.n if gross else 0),
        " ".join(part for part in remarks if part),
    )


def _counted(codes: Mapping[str, int], options: ReportOptions, text: str) -> str:
    """Sentences for codes, with how many repeats each concerns."""
    return " ".join(
        text.format(why=clean(options.explain(code), 200)) + f" ({count} ×)" for code, count in sorted(codes.items())
    )


def _windows(rows: Sequence[Row], source: Source) -> Iterable[Repeated]:
    """Every repeat of these rows of which the source has a figure."""
    for row in rows:
        for repeat in row.repeats:
            joules = joules_of(repeat, source)
            if joules is not None:
                computed = sum(answer.computed_tok for answer in repeat.answers)
                yield Repeated(joules, computed, repeat.output_tok, len(repeat.answers))


def source_text(source: Source) -> str:
    return _("{tier}: {covers}").format(tier=tier_name(source.tier), covers=covers_text(source.covers))


def estimate_text(found: Estimate | None, scale: float = 1.0) -> str:
    """With its interval, both times `scale`."""
    if found is None:
        return "–"
    return _("{ratio} ({low} to {high})").format(
        ratio=figure(scale * found.value), low=figure(scale * found.low), high=figure(scale * found.high)
    )
