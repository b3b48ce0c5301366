"""What `bendi bench` prints: cells before, results afterwards, comparisons, lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bendi.bench.gate import reason_text
from bendi.bench.journal import read_results
from bendi.bench.study import Study
from bendi.cli import output
from bendi.cli.bench_files import complete, repeats_done, results_files
from bendi.engines.peer_found import FoundEngine
from bendi.errors import BendiError
from bendi.i18n import _
from bendi.results import Cell, Prediction, Repeat, Results
from bendi.settings import Settings
from bendi.stats import median_interval
from bendi.units import format_duration, format_rate

_METRICS = ("pp_tok_s", "tg_tok_s")


def print_cells(
    study: Study, cells: Sequence[Cell], predictions: Sequence[Prediction], seconds: float, *, as_json: bool
) -> None:
    """What would be measured."""
    by_cell = {each.cell: each for each in predictions}
    if as_json:
        output.json_data(
            {
                "title": study.title,
                "blocks": study.care.blocks,
                "predicted_s": round(seconds, 1),
                "cells": [
                    {**asdict(cell), "key": cell.key, "prediction": _plain(by_cell.get(cell.key))} for cell in cells
                ],
            }
        )  # fmt: skip
        return
    rows = []
    for cell in cells:
        predicted = by_cell.get(cell.key)
        speeds = [format_rate(predicted.pp_tok_s), format_rate(predicted.tg_tok_s)] if predicted else ["–", "–"]
        rows.append([*names(cell), *speeds])
    output.table([*headings(), _("PP predicted"), _("TG predicted")], rows, frozenset({5, 6}))
    output.say(
        _("{cells} cells, {blocks} blocks: {repeats} repeats, about {time}.").format(
            cells=len(cells),
            blocks=study.care.blocks,
            repeats=len(cells) * study.care.blocks,
            time=format_duration(seconds),
        )
    )


def _plain(prediction: Prediction | None) -> dict[str, Any] | None:
    return asdict(prediction) if prediction else None


def print_summary(results: Results) -> None:
    """Medians with their intervals, one row a cell."""
    rows = []
    for cell in results.facts.cells:
        repeats = results.of(cell)
        check = results.check_of(cell)
        note = reason_text(check) if check and check.verdict == "garbage" else ""
        note = note or _notes(repeats)
        failures = [each for each in results.failures if each.cell == cell.key and each.final]
        if failures and not repeats:
            note = failures[-1].reason.splitlines()[0]
        rows.append([*names(cell), *(_figure(repeats, metric) for metric in _METRICS), str(len(repeats)), note])
    output.table([*headings(), _("PP tok/s"), _("TG tok/s"), "n", ""], rows, frozenset({5, 6, 7}))
    output.say(_("Medians with what surely holds them; n: independent repeats. Outliers are part of it."))


def headings() -> list[str]:
    """Of what `names` gives."""
    return [_("MODEL"), _("QUANTIZATION"), _("ENGINE"), _("SETTINGS"), _("WORKLOAD")]


def names(cell: Cell) -> list[str]:
    """Model, quantization, engine, settings, and what is asked."""
    work = cell.workload.name
    if cell.concurrency > 1:
        work += f" ×{cell.concurrency}"
    if cell.cache == "warm":
        work += " " + _("warm cache")
    return [cell.model, cell.quantization, cell.engine, cell.settings_text, work]


def _figure(repeats: Sequence[Repeat], metric: str) -> str:
    values = values_of(repeats, metric)
    if not values:
        return "–"
    interval = median_interval(values)
    text = format_rate(median(values)).removesuffix(" tok/s")
    return text if interval is None else f"{text} ({interval.low:.1f}–{interval.high:.1f})"


def values_of(repeats: Sequence[Repeat], metric: str) -> list[float]:
    return [value for each in repeats if (value := getattr(each, metric)) is not None]


def _notes(repeats: Sequence[Repeat]) -> str:
    disturbed = sum(each.slowness is not None and each.slowness > 1 for each in repeats)
    unsteady = sum(not each.steady for each in repeats)
    notes = []
    if disturbed:
        notes.append(_("{count} disturbed").format(count=disturbed))
    if unsteady:
        notes.append(_("{count} never steady").format(count=unsteady))
    if short := sum(each.is_too_short for each in repeats):
        notes.append(_("{count} too short for TG").format(count=short))
    return ", ".join(notes)


def results_record(results: Results) -> dict[str, Any]:
    """The summary as data."""
    rows = []
    for cell in results.facts.cells:
        repeats = results.of(cell)
        check = results.check_of(cell)
        row: dict[str, Any] = {
            "cell": cell.key,
            **asdict(cell),
            "n": len(repeats),
            "check": check.verdict if check else None,
        }
        for metric in (*_METRICS, "ttft_s", "tpot_s", "throughput_tok_s"):
            values = values_of(repeats, metric)
            interval = median_interval(values)
            row[metric] = {
                "median": median(values) if values else None,
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
                "values": values,
            }
        rows.append(row)
    return {"study": results.facts.title, "study_id": results.facts.study_id, "cells": rows}


def print_list(settings: Settings, *, as_json: bool) -> int:
    rows, records = [], []
    for path in results_files(settings):
        try:
            results = read_results(path)
        except BendiError as error:
            output.say(error.message)
            continue
        facts = results.facts
        total = len(facts.cells) * facts.blocks
        done = repeats_done(results)
        records.append({"name": path.stem, "path": str(path), "title": facts.title, "created_s": facts.created_s,
                        "repeats": done, "of": total, "complete": complete(results)})  # fmt: skip
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.created_s))
        rows.append([path.stem, facts.title, when, f"{done}/{total}"])
    if as_json:
        output.json_data(records)
    elif rows:
        output.table([_("NAME"), _("TITLE"), _("BEGUN"), _("REPEATS")], rows, frozenset({3}))
    else:
        output.say(_("No study was run here yet: {command}").format(command="bendi bench preset"))
    return 0


def print_found(rows: Sequence[FoundEngine], *, as_json: bool) -> int:
    """Which engines there are, and how to get the others."""
    if as_json:
        output.json_data([asdict(row) for row in rows])
        return 0
    table = []
    for row in rows:
        state = _("cannot be used") if row.problem else _("found") if row.found else "–"
        table.append([row.name, state, row.version, row.problem or row.where or row.how_to_get])
    output.table([_("ENGINE"), _("STATE"), _("VERSION"), _("WHERE, OR HOW TO GET IT")], table)
    return 0
