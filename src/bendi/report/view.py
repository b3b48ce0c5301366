"""From results to rows: one for each configuration and workload, with what its repeats say and whether it is ranked.

A configuration that answers garbage is kept, is shown grey and has no rank. Every statistic is over repeats; where a
repeat has several answers it has one figure of them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bendi.i18n import _
from bendi.report.wording import METRICS, PP, TG, THROUGHPUT, Metric, clean, share, workload_text
from bendi.results import TIERS, Cell, Energy, LoadedEngine, Repeat, Results, Tier
from bendi.stats import Comparison, Description, Interval, compare_ratios, describe, holm, median_interval, paired

DISTURBED = 1.1
"""Above this `slowness`, something else took noticeably much of the machine."""
_MOST_AGAIN = 0.1
LONG_ANSWER_TOK = 16
"""From so many tokens of an answer on, a workload is about writing; below, about reading the prompt."""


@dataclass(frozen=True)
class Summary:
    """One figure of every repeat that has it, by block."""

    by_block: Mapping[int, float]
    description: Description
    interval: Interval | None

    @property
    def values(self) -> list[float]:
        return list(self.by_block.values())

    @property
    def n(self) -> int:
        return self.description.n

    @property
    def median(self) -> float:
        return self.description.median


def summary_of(repeats: Iterable[Repeat], of: Callable[[Repeat], float | None], scale: float = 1.0) -> Summary | None:
    """None where no repeat has the figure."""
    by_block = {repeat.block: value * scale for repeat in repeats if (value := of(repeat)) is not None}
    if not by_block:
        return None
    values = list(by_block.values())
    return Summary(by_block, describe(values), median_interval(values))


@dataclass(frozen=True)
class Source:
    """Where figures of energy come from; those of different sources are never shown together or ranked."""

    tier: Tier
    covers: tuple[str, ...]
    meter: str


@dataclass(frozen=True)
class EnergyRow:
    """What one meter says of a cell. Joules of the whole window for each token: of the answers, or of the computed
    prompts where the workload is about reading (`per_prompt`); `net_j_tok` without what idleness takes. `missing`: how
    many repeats have no figure, by code; `flags`: of those that have one."""

    source: Source
    per_prompt: bool
    gross_j_tok: Summary | None
    net_j_tok: Summary | None
    mean_w: Summary | None
    missing: Mapping[str, int]
    flags: Mapping[str, int]


@dataclass(frozen=True)
class Row:
    """`label`: short, of what differs in the study; `full`: everything. `grey`: why it is not ranked, else empty."""

    cell: Cell
    label: str
    full: str
    grey: str
    repeats: tuple[Repeat, ...]
    loaded: LoadedEngine | None
    flags: tuple[str, ...]
    summaries: Mapping[str, Summary]
    energy: tuple[EnergyRow, ...]
    place: int

    def get(self, metric: Metric) -> Summary | None:
        return self.summaries.get(metric.key)

    def energy_from(self, source: Source) -> EnergyRow | None:
        return next((row for row in self.energy if row.source == source), None)


@dataclass(frozen=True)
class Setup:
    """The rows that may be compared: one model, one workload, as many at once, one state of the cache."""

    name: str
    text: str
    rows: tuple[Row, ...]

    @property
    def cell(self) -> Cell:
        return self.rows[0].cell

    @property
    def main(self) -> Metric:
        """The metric that it is about."""
        if self.cell.concurrency > 1:
            return THROUGHPUT
        return PP if reads(self.cell) else TG

    def ranked(self, metric: Metric) -> list[Row]:
        """The best first; without grey rows and those that have no figure."""
        rows = [row for row in self.rows if not row.grey and row.get(metric)]
        return sorted(rows, key=lambda row: _median(row, metric), reverse=metric.more_is_better)

    def against_best(self, metric: Metric) -> dict[str, tuple[Comparison, float]]:
        """By key of a cell: how many times as large its figure is as that of the best, and the p value after Holm."""
        ranked = self.ranked(metric)
        compared = {row.cell.key: compare(row, ranked[0], metric) for row in ranked[1:]}
        found = {key: comparison for key, comparison in compared.items() if comparison}
        return dict(
            zip(found, zip(found.values(), holm([each.p for each in found.values()]), strict=True), strict=True)
        )


def reads(cell: Cell) -> bool:
    """Whether it is about reading prompts."""
    return cell.workload.answer_tok < LONG_ANSWER_TOK


def compare(one: Row, other: Row, metric: Metric) -> Comparison | None:
    """How many times as large the figure of `one` is, by blocks that have both; None where none has."""
    first, second = one.get(metric), other.get(metric)
    if not first or not second:
        return None
    values, others = paired(first.by_block, second.by_block)
    return compare_ratios(values, others) if values and min(*values, *others) > 0 else None


class View:
    """Everything that is shown of `results`."""

    def __init__(self, results: Results) -> None:
        self.results = results

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return tuple(self._row(cell, place) for place, cell in enumerate(self.results.facts.cells))

    @cached_property
    def by_key(self) -> Mapping[str, Row]:
        return {row.cell.key: row for row in self.rows}

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """In the order of the study."""
        return tuple(dict.fromkeys(cell.engine for cell in self.results.facts.cells))

    def label_with_setup(self, row: Row) -> str:
        """What tells a row from all others, not only from those of its setup."""
        setup = next((setup for setup in self.setups if row in setup.rows), None)
        return f"{row.label} · {setup.name}" if setup and len(self.setups) > 1 else row.label

    @cached_property
    def setups(self) -> tuple[Setup, ...]:
        """Those in which something was measured, in the order of the study."""
        groups: dict[tuple[object, ...], list[Row]] = {}
        for row in self.rows:
            cell = row.cell
            groups.setdefault((cell.model, cell.workload, cell.concurrency, cell.cache), []).append(row)
        models = len({cell.model for cell in self.results.facts.cells})
        return tuple(_setup(rows, models > 1) for rows in groups.values() if any(row.summaries for row in rows))

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """All sources of energy figures, the best first."""
        found = {energy.source for row in self.rows for energy in row.energy}
        return tuple(sorted(found, key=lambda each: (TIERS.index(each.tier), each.covers, each.meter)))

    @cached_property
    def _varying(self) -> tuple[bool, frozenset[str]]:
        """Whether engines differ within the study, and the names of the settings that do."""
        cells = self.results.facts.cells
        names = {name for cell in cells for name in cell.settings}
        settings = {name for name in names if len({str(cell.settings.get(name)) for cell in cells}) > 1}
        return len(self.engines) > 1, frozenset(settings)

    def _row(self, cell: Cell, place: int) -> Row:
        repeats = self.results.of(cell)
        summaries = {metric.key: summary_of(repeats, metric.of, metric.scale) for metric in METRICS}
        engines, settings = self._varying
        chosen = [f"{name}={cell.settings[name]}" for name in sorted(settings) if name in cell.settings]
        parts = [cell.quantization, cell.engine if engines else "", *chosen]
        loaded = self.results.engine_of(cell)
        return Row(
            cell=cell,
            label=clean(" · ".join(part for part in parts if part)) or clean(cell.model),
            full=clean(" · ".join([cell.model, cell.quantization, cell.engine, cell.settings_text]).rstrip(" ·")),
            grey=self._grey(cell, repeats),
            repeats=repeats,
            loaded=loaded,
            flags=tuple(self._flags(cell, repeats, loaded)),
            summaries={key: summary for key, summary in summaries.items() if summary},
            energy=tuple(_energy_rows(repeats, per_prompt=reads(cell))),
            place=place,
        )

    def _grey(self, cell: Cell, repeats: Sequence[Repeat]) -> str:
        check = self.results.check_of(cell)
        if check and check.verdict == "garbage":
            reason = clean(check.reason)
            return _("answers garbage: {reason}").format(reason=reason) if reason else _("answers garbage")
        if not repeats:
            failed = [failure for failure in self.results.failures if failure.cell == cell.key]
            return _("failed: {reason}").format(reason=clean(failed[-1].reason)) if failed else _("not measured yet")
        return ""

    def _flags(self, cell: Cell, repeats: Sequence[Repeat], loaded: LoadedEngine | None) -> Iterable[str]:
        check = self.results.check_of(cell)
        if repeats and (check is None or check.verdict == "unchecked"):
            yield _("answers not checked")
        if loaded and loaded.differing:
            yield _("settings not taken: {names}").format(names=clean(", ".join(loaded.differing)))
        if unsteady := sum(not repeat.steady for repeat in repeats):
            yield _("speed not steady before {count} of {n} repeats").format(count=unsteady, n=len(repeats))
        if short := sum(repeat.is_too_short for repeat in repeats):
            yield _("answers too short to tell TG in {count} of {n} repeats").format(count=short, n=len(repeats))
        slow = sum(repeat.slowness is not None and repeat.slowness > DISTURBED for repeat in repeats)
        if slow:
            yield _("disturbed in {count} of {n} repeats").format(count=slow, n=len(repeats))
        if cell.cache == "fresh" and (cached := sum(repeat.cached_tok or 0 for repeat in repeats)):
            asked = sum(repeat.input_tok for repeat in repeats)
            if cached > asked / 100 and not cell.workload.depth_tok and cell.workload.turns == 1:
                yield _("{share} of the prompts came from a cache").format(share=share(cached / asked))
        again = _computed_again(cell, repeats)
        if again > _MOST_AGAIN:
            yield _("{share} of the earlier conversation was not in the cache and computed again").format(
                share=share(again)
            )
        failed = sum(failure.cell == cell.key for failure in self.results.failures)
        if failed and repeats:
            yield _("failed repeats: {count}").format(count=failed)


def _setup(rows: Sequence[Row], with_model: bool) -> Setup:
    cell = rows[0].cell
    parts = [cell.model] if with_model else []
    parts.append(cell.workload.name)
    details = [workload_text(cell.workload)]
    if cell.concurrency > 1:
        parts.append(_("{count} at once").format(count=cell.concurrency))
    if cell.cache == "warm":
        details.append(_("prompts repeated on purpose, so that a cache may help"))
    return Setup(clean(" · ".join(parts)), _("; ").join(details), tuple(rows))


def _computed_again(cell: Cell, repeats: Sequence[Repeat]) -> float:
    """The share of what came before a prompt that its engine had not kept; 0 where it says nothing."""
    turns, before, kept = cell.workload.turns, 0, 0
    for repeat in repeats:
        for place, answer in enumerate(repeat.answers):
            earlier = repeat.answers[place - 1].prompt_tok if place % turns else cell.workload.depth_tok
            if answer.cached_tok is not None:
                before += earlier
                kept += min(answer.cached_tok, earlier)
    return 1 - kept / before if before else 0.0


def source_of(energy: Energy) -> Source:
    return Source(energy.tier, tuple(clean(part) for part in energy.covers), clean(energy.meter))


def joules_of(repeat: Repeat, source: Source) -> float | None:
    """The energy of a repeat by one meter; None where it has no figure."""
    return next((energy.gross_j for energy in repeat.energy if source_of(energy) == source), None)


def _energy_rows(repeats: Sequence[Repeat], per_prompt: bool) -> Iterable[EnergyRow]:
    by_source: dict[Source, list[tuple[Repeat, Energy]]] = {}
    for repeat in repeats:
        for energy in repeat.energy:
            by_source.setdefault(source_of(energy), []).append((repeat, energy))
    for source, pairs in by_source.items():
        of_block = {repeat.block: energy for repeat, energy in pairs}
        own = [repeat for repeat, _energy in pairs]

        def gross(repeat: Repeat, energies: Mapping[int, Energy] = of_block) -> float | None:
            return _per_token(energies[repeat.block].gross_j, repeat, per_prompt)

        def net(repeat: Repeat, energies: Mapping[int, Energy] = of_block) -> float | None:
            return _per_token(energies[repeat.block].net_j, repeat, per_prompt)

        def watts(repeat: Repeat, energies: Mapping[int, Energy] = of_block) -> float | None:
            return energies[repeat.block].mean_w

        yield EnergyRow(
            source=source,
            per_prompt=per_prompt,
            gross_j_tok=summary_of(own, gross),
            net_j_tok=summary_of(own, net),
            mean_w=summary_of(own, watts),
            missing=Counter(energy.reason or "unknown" for _repeat, energy in pairs if energy.gross_j is None),
            flags=Counter(flag for _repeat, energy in pairs if energy.gross_j is not None for flag in energy.flags),
        )


def _per_token(joules: float | None, repeat: Repeat, per_prompt: bool) -> float | None:
    """Total over total, not a mean of ratios."""
    tok = sum(answer.computed_tok for answer in repeat.answers) if per_prompt else repeat.output_tok
    return joules / tok if joules is not None and tok > 0 else None


def _median(row: Row, metric: Metric) -> float:
    summary = row.get(metric)
    return summary.median if summary else 0.0
