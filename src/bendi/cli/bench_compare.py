"""`bendi bench compare`: what was different about two studies, then what differs in what they found.

The two have no block in common, so nothing cancels out: what is different about them comes first, since each of it may
be the reason of what follows.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

from bendi.cli import output
from bendi.cli.bench_text import headings, names, values_of
from bendi.i18n import _
from bendi.results import Cell, LoadedEngine, Repeat, Results
from bendi.stats import Comparison, holm
from bendi.stats.unpaired import compare_independent
from bendi.units import format_size

_SIGNIFICANT = 0.05
_PASSING = ("available_bytes", "usable_bytes", "swap_free_bytes", "free_bytes", "memory_free_bytes", "disks")
"""Of a machine: what is another from minute to minute."""
_SHORT_SHA = 16
_ABSENT = "–"
_TG, _PP, _ALL = "tg_tok_s", "pp_tok_s", "throughput_tok_s"
_MOST_REPEATS = 1000


@dataclass(frozen=True)
class Change:
    """Something that is not the same in both. `where`: a name for programs; `what`: for people."""

    where: str
    what: str
    a: str
    b: str


@dataclass(frozen=True)
class Pair:
    """A combination of A and the one of B that it is compared with: the same, or the only one that differs from it in
    engine, settings or quantization."""

    a: Cell
    b: Cell

    @property
    def alike(self) -> bool:
        return self.a.key == self.b.key

    @property
    def names(self) -> list[str]:
        sides = zip(names(self.a), names(self.b), strict=True)
        return [one if one == other else f"{one or _ABSENT} → {other or _ABSENT}" for one, other in sides]


@dataclass(frozen=True)
class Finding:
    """`metric`: as in `results.Repeat`, or `gross_j_tok` of a `meter`. `repeats`: of A and of B."""

    pair: Pair
    metric: str
    comparison: Comparison
    repeats: tuple[int, int]
    meter: str = ""


def changes_between(first: Results, second: Results, pairs: Sequence[Pair]) -> list[Change]:
    """What is different about the two, the most telling first."""
    found = [
        *_different("bendi", _("bendi"), first.facts.bendi, second.facts.bendi),
        *_machines(first, second),
    ]
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        key = pair.a.configuration, pair.b.configuration
        if key not in seen:
            seen.add(key)
            found += _engines(pair, first.engine_of(pair.a), second.engine_of(pair.b))
    found = list(dict.fromkeys(found))
    found += _study_files(first, second)
    found += _different("seed", _("seed of chance"), first.facts.seed, second.facts.seed)
    found += _different("meters", _("meters"), _meters(first), _meters(second))
    return found + _different("disturbed", _("disturbed repeats"), _disturbed(first), _disturbed(second))


def pairs_of(first: Results, second: Results) -> tuple[list[Pair], list[Cell], list[Cell]]:
    """What can be compared, and what only one of the two has. The same combinations first; of those that are left, two
    are a pair if each is the only one of its study with that model, workload, concurrency and cache."""
    theirs = second.cells
    pairs = [Pair(cell, theirs[cell.key]) for cell in first.facts.cells if cell.key in theirs]
    only = [
        [cell for cell in results.facts.cells if cell.key not in other.cells]
        for results, other in ((first, second), (second, first))
    ]
    by_question = [_single(cells) for cells in only]
    for question, cell in by_question[0].items():
        if question in by_question[1]:
            pairs.append(Pair(cell, by_question[1][question]))
    matched = {cell.key for pair in pairs for cell in (pair.a, pair.b)}
    only_a, only_b = ([cell for cell in cells if cell.key not in matched] for cells in only)
    return pairs, only_a, only_b


def findings_of(first: Results, second: Results, pairs: Sequence[Pair]) -> list[Finding]:
    found = []
    for pair in pairs:
        mine, theirs = first.of(pair.a), second.of(pair.b)
        together = (_ALL,) if pair.a.concurrency > 1 else ()
        for metric in (_PP, _TG, *together):
            sides = values_of(theirs, metric), values_of(mine, metric)
            if all(sides):
                counts = len(sides[1]), len(sides[0])
                found.append(Finding(pair, metric, compare_independent(*sides), counts))
        for meter, values in _joules(mine).items():
            others = _joules(theirs).get(meter)
            if others:
                counts = len(values), len(others)
                comparison = compare_independent(others, values)
                found.append(Finding(pair, "gross_j_tok", comparison, counts, " ".join(meter)))
    return found


def print_comparison(first: Results, second: Results, *, as_json: bool) -> int:
    """What is different about them, then every combination that can be compared, corrected for looking at many."""
    pairs, only_a, only_b = pairs_of(first, second)
    found = findings_of(first, second, pairs)
    corrected = holm([each.comparison.p for each in found])
    changes = changes_between(first, second, pairs)
    if as_json:
        output.json_data(
            {
                "changes": [asdict(each) for each in changes],
                "only_a": [cell.key for cell in only_a],
                "only_b": [cell.key for cell in only_b],
                "compared": [_record(each, p) for each, p in zip(found, corrected, strict=True)],
            }
        )
        return 0
    _print_changes(first, second, changes)
    for label, cells in (("A", only_a), ("B", only_b)):
        if cells:
            output.say(_("Only in {study}: {cells}").format(study=label, cells="; ".join(map(_cell_text, cells))))
    if not found:
        output.say(_("The two studies have no cell in common."))
        return 1
    rows = [
        [*each.pair.names, _metric(each), _ratio(each.comparison), _verdict(each, p, first, second),
         _seen(each.comparison), " / ".join(map(str, each.repeats))]
        for each, p in zip(found, corrected, strict=True)
    ]  # fmt: skip
    output.table([*headings(), "", _("B / A"), _("VERDICT"), _("COULD BE SEEN"), "n"], rows, frozenset({6, 9}))
    _print_notes(found)
    return 0


def _print_changes(first: Results, second: Results, changes: Sequence[Change]) -> None:
    begun = [time.strftime("%Y-%m-%d %H:%M", time.localtime(each.facts.created_s)) for each in (first, second)]
    rows = [[_("begun"), *begun], *([each.what, each.a, each.b] for each in changes)]
    output.table([_("WHAT DIFFERS"), "A", "B"], rows)
    if not changes:
        output.say(_("Machine, builds, model files and settings are the same in both."))


def _print_notes(found: Sequence[Finding]) -> None:
    output.say(_("Corrected for {count} comparisons (Holm).").format(count=len(found)))
    output.say(
        _(
            "COULD BE SEEN: the smallest difference that so many repeats with so much noise would have found in four "
            "of five cases. Smaller ones may be there."
        )
    )
    if all(2 * len(found) / comb(sum(each.repeats), each.repeats[0]) > _SIGNIFICANT for each in found):
        output.say(
            _(
                "With so few repeats no difference whatever would be beyond chance after that correction: at least "
                "{needed} on each side are needed (--blocks {needed}, or [care] blocks = {needed})."
            ).format(needed=repeats_needed(len(found)))
        )


def repeats_needed(comparisons: int) -> int:
    """Of each side, so that the clearest result there can be is beyond chance after the correction: all of one side
    above all of the other, 2 of all orders."""
    counts = range(1, _MOST_REPEATS)
    return next(n for n in counts if 2 * comparisons / comb(2 * n, n) <= _SIGNIFICANT)


def _single(cells: Iterable[Cell]) -> dict[tuple[object, ...], Cell]:
    """Cells by what is asked of which model, those that are the only ones."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.workload, cell.concurrency, cell.cache), []).append(cell)
    return {question: group[0] for question, group in groups.items() if len(group) == 1}


def _different(where: str, what: str, a: object, b: object) -> list[Change]:
    if a == b:
        return []
    if isinstance(a, list) and isinstance(b, list):
        # Of long lists only what the other one has not.
        a, b = [each for each in a if each not in b] or a, [each for each in b if each not in a] or b
    return [Change(where, what, _shown(a), _shown(b))]


def _shown(value: object) -> str:
    if value is None or value == "":
        return _ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _machines(first: Results, second: Results) -> list[Change]:
    mine, theirs = (_flat(results.facts.machine) for results in (first, second))
    found = []
    for name in dict.fromkeys([*mine, *theirs]):
        if not any(part in _PASSING for part in name.split(".")):
            what = _("machine: {name}").format(name=name)
            found += _different(f"machine.{name}", what, mine.get(name), theirs.get(name))
    return found


def _engines(pair: Pair, one: LoadedEngine | None, other: LoadedEngine | None) -> list[Change]:
    """Builds, model files and settings, as far as both ran."""
    if one is None or other is None:
        return []
    label = " → ".join(dict.fromkeys([pair.a.engine, pair.b.engine]))
    model = f"{pair.a.model} {pair.a.quantization}"
    builds = [" ".join(part for part in (each.version, each.build) if part) for each in (one, other)]
    found = _different(f"build.{label}", _("build of {engine}").format(engine=label), *builds)
    files = [f"{each.model_sha256[:_SHORT_SHA]} ({format_size(each.model_bytes)})" for each in (one, other)]
    if one.model_sha256 != other.model_sha256:
        found.append(Change(f"model.{model}", _("file of {model} (SHA-256)").format(model=model), *files))
    for kind, mine, theirs in (("asked", one.asked, other.asked), ("verified", one.verified, other.verified)):
        for name in dict.fromkeys([*mine, *theirs]):
            # What was asked for and confirmed is told once.
            if kind == "verified" and name in {**one.asked, **other.asked}:
                continue
            what = _("{engine}: {name}").format(engine=label, name=name)
            found += _different(f"{kind}.{label}.{name}", what, mine.get(name), theirs.get(name))
    return found


def _study_files(first: Results, second: Results) -> list[Change]:
    """What is written differently, apart from titles; models and engines are told by what really ran."""
    mine, theirs = (_flat(_parsed(results.facts.text)) for results in (first, second))
    found = []
    for name in dict.fromkeys([*mine, *theirs]):
        if name.split(".")[0] in ("care", "energy"):
            what = _("study file: {name}").format(name=name)
            found += _different(f"study.{name}", what, mine.get(name), theirs.get(name))
    if not any(each.where == "study.care.blocks" for each in found):
        found += _different("blocks", _("blocks"), first.facts.blocks, second.facts.blocks)
    return found


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}  # of `bendi bench MODEL`, which has no file


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Values by the names that lead to them."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _meters(results: Results) -> str:
    found = {f"{energy.meter} ({energy.tier})" for repeat in results.repeats for energy in repeat.energy
             if energy.gross_j is not None}  # fmt: skip
    return ", ".join(sorted(found))


def _disturbed(results: Results) -> str:
    """How many, where there are any."""
    count = sum(repeat.slowness is not None and repeat.slowness > 1 for repeat in results.repeats)
    return _("{count} of {total}").format(count=count, total=len(results.repeats)) if count else ""


def _joules(repeats: Sequence[Repeat]) -> dict[tuple[str, ...], list[float]]:
    """For each token that was written, by meter and what it sees; a bound is no figure."""
    found: dict[tuple[str, ...], list[float]] = {}
    for repeat in repeats:
        for energy in repeat.energy:
            joules = repeat.joules_per_token(energy)
            if joules and energy.tier != "bound":
                found.setdefault((energy.meter, *energy.covers), []).append(joules)
    return found


def _record(each: Finding, p: float) -> dict[str, Any]:
    return {
        "cell": each.pair.a.key, "cell_b": each.pair.b.key, **asdict(each.pair.a), "metric": each.metric,
        "meter": each.meter, **asdict(each.comparison), "p_corrected": p,
    }  # fmt: skip


def _cell_text(cell: Cell) -> str:
    return " ".join(part for part in names(cell) if part)


def _metric(each: Finding) -> str:
    if each.meter:
        return _("J/token, {meter}").format(meter=each.meter)
    return _("all answers") if each.metric == _ALL else each.metric.split("_")[0].upper()


def _ratio(each: Comparison) -> str:
    if each.low is None or each.high is None:
        return f"{each.estimate:.3f}"
    return f"{each.estimate:.3f} ({each.low:.3f}–{each.high:.3f})"


def _verdict(each: Finding, p: float, first: Results, second: Results) -> str:
    checks = first.check_of(each.pair.a), second.check_of(each.pair.b)
    if any(check and check.verdict == "garbage" for check in checks):
        return _("answers garbage")
    if p > _SIGNIFICANT:
        return _("no difference that is beyond chance")
    more = each.comparison.estimate > 1
    if each.meter:
        return _("takes more") if more else _("takes less")
    return _("faster") if more else _("slower")


def _seen(each: Comparison) -> str:
    return _ABSENT if each.detectable is None else _("from {percent:.1f} %").format(percent=100 * (each.detectable - 1))
