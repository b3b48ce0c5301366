"""The same for programs and for documents: CSV with one figure in a line, markdown with the tables."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Iterable, Sequence

from bendi.report.charts import Table
from bendi.report.contents import Contents
from bendi.report.given import ReportOptions
from bendi.report.view import Row, Summary, View
from bendi.report.wording import METRICS, clean
from bendi.results import Energy, Results

_CELL = ("model", "quantization", "engine", "settings", "workload", "prompt_tok", "answer_tok", "depth_tok", "turns",
         "concurrency", "cache")  # fmt: skip
_SUMMARY = ("metric", "unit", "tier", "covers", "meter", "n", "median", "low", "high", "coverage", "q1", "q3", "mean",
            "sd", "lowest", "highest")  # fmt: skip
_FORMULA = ("=", "+", "-", "@")


def csv(results: Results) -> str:
    """Statistics of every combination: one line for each of its metrics. Names and numbers are the same in every
    language; an empty field is unknown. A bound is marked by its tier."""
    view = View(results)
    lines: list[Sequence[object]] = [("study", *_CELL, "ranked", "why_not", *_SUMMARY)]
    for row in view.rows:
        head = (results.facts.study_id, *_cell_fields(row), not row.grey, row.grey)
        for metric in METRICS:
            if summary := row.get(metric):
                lines.append((*head, metric.key, metric.unit, "", "", "", *_statistics(summary)))
        for energy in row.energy:
            per = "prompt" if energy.per_prompt else "answer"
            source = (energy.source.tier, " + ".join(energy.source.covers), energy.source.meter)
            for name, unit, found in (
                (f"gross_j_{per}_tok", "J/token", energy.gross_j_tok),
                (f"net_j_{per}_tok", "J/token", energy.net_j_tok),
                ("mean_w", "W", energy.mean_w),
            ):
                if found:
                    lines.append((*head, name, unit, *source, *_statistics(found)))
    return _written(lines)


def csv_of_repeats(results: Results) -> str:
    """Every repeat: one line for each of its meters, or one line without."""
    view = View(results)
    names = [metric.key for metric in METRICS]
    lines: list[Sequence[object]] = [
        ("study", *_CELL, "ranked", "block", "order", "began_s", "window_s", "input_tok", "output_tok", *names,
         "meter", "tier", "covers", "gross_j", "idle_w", "reason", "flags", "steady", "slowness"),
    ]  # fmt: skip
    for row in view.rows:
        for repeat in row.repeats:
            head = (results.facts.study_id, *_cell_fields(row), not row.grey, repeat.block, repeat.order,
                    repeat.began_s, repeat.window_s, repeat.input_tok, repeat.output_tok)  # fmt: skip
            # In the units of the names, not in those of charts.
            figures = [metric.of(repeat) for metric in METRICS]
            tail = (repeat.steady, repeat.slowness)
            for energy in repeat.energy or (Energy("", "none"),):
                metered = (energy.meter, energy.tier, " + ".join(energy.covers), energy.gross_j, energy.idle_w,
                           energy.reason, " ".join(energy.flags))  # fmt: skip
                lines.append((*head, *figures, *metered, *tail))
    return _written(lines)


def markdown(results: Results, options: ReportOptions | None = None) -> str:
    """Findings and tables, each with where it comes from, in the language in use."""
    contents = Contents(results, options or ReportOptions())
    parts = [f"# {_marked(contents.title)}", _marked(contents.subtitle)]
    if contents.findings:
        parts.append("\n".join(f"- {_marked(each.text)}" for each in contents.findings))
    for section in contents.sections:
        tables = list(section.tables)
        if tables:
            parts.append(f"## {_marked(section.title)}")
            parts += [markdown_table(table) for table in tables]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """With its notes and provenance below. Grey rows are in italics."""
    lines = [f"### {_marked(table.title)}", ""] if table.title else []
    lines.append("| " + " | ".join(_marked(column) for column in table.columns) + " |")
    lines.append("|" + "|".join("--:" if index in table.right else "---" for index in range(len(table.columns))) + "|")
    for index, row in enumerate(table.rows):
        cells = [_marked(cell) for cell in row]
        if index in table.grey:
            cells = [f"*{cell}*" if cell else cell for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    for note in table.notes:
        lines += ["", _marked(note)]
    if table.provenance:
        lines += ["", _marked(table.provenance.line)]
        lines += [f"- {_marked(line)}" for line in table.provenance.ran]
    return "\n".join(lines)


def _marked(text: str) -> str:
    """As text, not as marks of markdown or HTML."""
    shown = clean(text, 2000).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|*_`[]#":
        shown = shown.replace(mark, "\\" + mark)
    return shown


def _cell_fields(row: Row) -> tuple[object, ...]:
    cell, load = row.cell, row.cell.workload
    return (cell.model, cell.quantization, cell.engine, cell.settings_text, load.name, load.prompt_tok, load.answer_tok,
            load.depth_tok, load.turns, cell.concurrency, cell.cache)  # fmt: skip


def _statistics(summary: Summary) -> Iterable[object]:
    found, interval = summary.description, summary.interval
    ends = (interval.low, interval.high, interval.coverage) if interval else (None, None, None)
    return (found.n, found.median, *ends, found.q1, found.q3, found.mean, found.sd, found.lowest, found.highest)


def _written(lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    writer.writerows([[_field(value) for value in line] for line in lines])
    return out.getvalue()


def _field(value: object) -> object:
    """Numbers as they are. A text that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP
    advises (CSV Injection)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    text = clean(value)
    return "'" + text if text.startswith(_FORMULA) else text
