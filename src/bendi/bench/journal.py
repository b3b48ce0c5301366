"""The results file: one JSON object a line, added and synced one by one, never rewritten.

The first line holds the facts of the study (`kind: "study"`, with the schema); each of the others one record: `repeat`,
`check`, `engine`, `failure`, `prediction`. A line that was cut by a crash or a full disk is the last one, and is taken
off before anything is added. Floats keep all their digits. A SQLite view of the same file: `write_sqlite`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bendi.errors import DataError, NotFoundError
from bendi.i18n import _
from bendi.results import (
    RESULTS_SCHEMA,
    Answer,
    Cell,
    Check,
    Energy,
    Failure,
    LoadedEngine,
    Prediction,
    Repeat,
    Results,
    StudyFacts,
    Workload,
)
from bendi.store.disk import store_error, sync_folder

Record = Repeat | Check | LoadedEngine | Failure | Prediction
_KINDS: Mapping[str, type[Record]] = {
    "repeat": Repeat,
    "check": Check,
    "engine": LoadedEngine,
    "failure": Failure,
    "prediction": Prediction,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_LARGEST_FILE_BYTES = 1 << 30
_TUPLES = ("arrivals_s", "arrival_tok", "covers", "flags", "differing", "texts")


class Journal:
    """One results file, open for adding. `results`: what it holds. Raises DataError."""

    def __init__(self, path: Path, facts: StudyFacts | None = None) -> None:
        """`facts`: begins a new file, which must not exist. Without them goes on with the one that is there."""
        self.path = path
        if facts is not None:
            self.results = Results(facts)
            self._begin(facts)
        else:
            self.results, whole_bytes = _read(path)
            try:
                # What was not finished is no record.
                os.truncate(path, whole_bytes)
            except OSError as error:
                raise store_error(error, path) from error

    def add(self, record: Record) -> None:
        """Keeps a record for good; afterwards it is in the file, or an error is raised and the file is as before.
        Raises StoreError."""
        self._append({"kind": _NAMES[type(record)], **asdict(record)})
        self.results = _with(self.results, record)

    def _begin(self, facts: StudyFacts) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            raise store_error(error, self.path) from error
        try:
            self._append({"kind": "study", "schema": RESULTS_SCHEMA, **asdict(facts)})
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)

    def _append(self, row: Mapping[str, Any]) -> None:
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        size_bytes = self.path.stat().st_size
        try:
            with self.path.open("ab", buffering=0) as file:
                written = 0
                while written < len(line):
                    written += file.write(line[written:]) or 0
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self.path, size_bytes)
            raise store_error(error, self.path) from error


def read_results(path: Path) -> Results:
    """All that is in a results file. Raises NotFoundError and DataError."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Results, int]:
    """The results, and how many bytes of the file are whole lines."""
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise DataError(_("{path} is too large for a results file.").format(path=path))
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(
            _("There is no results file {path}.").format(path=path), hint="bendi bench list"
        ) from error  # fmt: skip
    except OSError as error:
        raise DataError(_("{path} cannot be read: {error}").format(path=path, error=error)) from error
    whole_bytes = content.rfind(b"\n") + 1
    results: Results | None = None
    for number, line in enumerate(content[:whole_bytes].splitlines(), 1):
        try:
            row = json.loads(line)
            kind = row.pop("kind")
            if results is None:
                results = Results(_facts(row, path))
            elif kind in _KINDS:
                results = _with(results, _record(_KINDS[kind], row))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                _("{path} is not a results file, or damaged in line {number}: {error}").format(
                    path=path, number=number, error=error
                )
            ) from error
    if results is None:
        raise DataError(_("{path} is empty: the study did not begin.").format(path=path), hint="bendi bench run")
    return results, whole_bytes


def _facts(row: dict[str, Any], path: Path) -> StudyFacts:
    schema = row.pop("schema")
    if not isinstance(schema, int) or schema > RESULTS_SCHEMA:
        raise DataError(
            _("{path} was written by a later version of bendi.").format(path=path),
            hint=_("Update bendi, or use the version that wrote it."),
        )
    return StudyFacts(**{**row, "cells": tuple(_cell(each) for each in row["cells"])})


def _cell(row: dict[str, Any]) -> Cell:
    return Cell(**{**row, "workload": Workload(**row["workload"])})


def _record(kind: type[Record], row: dict[str, Any]) -> Record:
    if kind is Repeat:
        answers = tuple(Answer(**_tuples(each)) for each in row.pop("answers"))
        energy = tuple(Energy(**_tuples(each)) for each in row.pop("energy"))
        return Repeat(**row, answers=answers, energy=energy)
    return kind(**_tuples(row))


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if name in _TUPLES else value for name, value in row.items()}


def _with(results: Results, record: Record) -> Results:
    match record:
        case Repeat():
            return replace(results, repeats=(*results.repeats, record))
        case Check():
            return replace(results, checks=(*results.checks, record))
        case LoadedEngine():
            return replace(results, engines=(*results.engines, record))
        case Failure():
            return replace(results, failures=(*results.failures, record))
        case Prediction():
            return replace(results, predictions=(*results.predictions, record))


_TABLES = """
CREATE TABLE study (study_id TEXT PRIMARY KEY, title TEXT, created_s REAL, bendi TEXT, machine TEXT, text TEXT,
    schema INTEGER);
CREATE TABLE cells (cell TEXT PRIMARY KEY, configuration TEXT, model TEXT, quantization TEXT, engine TEXT,
    settings TEXT, workload TEXT, prompt_tok INTEGER, answer_tok INTEGER, depth_tok INTEGER, concurrency INTEGER,
    cache TEXT);
CREATE TABLE repeats (cell TEXT, block INTEGER, began_s REAL, window_s REAL, pp_tok_s REAL, tg_tok_s REAL, ttft_s REAL,
    tpot_s REAL, request_s REAL, throughput_tok_s REAL, server_pp_tok_s REAL, server_tg_tok_s REAL, input_tok INTEGER,
    output_tok INTEGER, cached_tok INTEGER, load_s REAL, peak_memory_bytes INTEGER, steady INTEGER, slowness REAL,
    client_lag_s REAL, PRIMARY KEY (cell, block));
CREATE TABLE answers (cell TEXT, block INTEGER, number INTEGER, started_s REAL, ended_s REAL, ttft_s REAL, tpot_s REAL,
    prompt_tok INTEGER, cached_tok INTEGER, completion_tok INTEGER, finish TEXT, arrivals_s TEXT);
CREATE TABLE energy (cell TEXT, block INTEGER, meter TEXT, tier TEXT, covers TEXT, gross_j REAL, net_j REAL,
    idle_w REAL, window_s REAL, reason TEXT, flags TEXT);
CREATE TABLE checks (configuration TEXT, verdict TEXT, reason TEXT, agreement REAL, reference TEXT);
CREATE TABLE failures (cell TEXT, block INTEGER, reason TEXT);
"""


def write_sqlite(results: Results, path: Path) -> None:
    """The same as tables, for those who want to ask questions in SQL. `path` must not exist. Raises DataError."""
    if path.exists():
        raise DataError(_("{path} exists already.").format(path=path))
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(_TABLES)
            database.execute(f"PRAGMA user_version = {RESULTS_SCHEMA}")
            _fill(database, results)
    except sqlite3.Error as error:
        path.unlink(missing_ok=True)
        raise DataError(_("{path} cannot be written: {error}").format(path=path, error=error)) from error


def _fill(database: sqlite3.Connection, results: Results) -> None:
    facts = results.facts

    def insert(table: str, *values: object) -> None:
        database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)

    insert("study", facts.study_id, facts.title, facts.created_s, facts.bendi, json.dumps(facts.machine), facts.text,
           RESULTS_SCHEMA)  # fmt: skip
    for cell in facts.cells:
        work = cell.workload
        insert("cells", cell.key, cell.configuration, cell.model, cell.quantization, cell.engine, cell.settings_text,
               work.name, work.prompt_tok, work.answer_tok, work.depth_tok, cell.concurrency, cell.cache)  # fmt: skip
    for each in results.repeats:
        insert("repeats", each.cell, each.block, each.began_s, each.window_s, each.pp_tok_s, each.tg_tok_s, each.ttft_s,
               each.tpot_s, each.request_s, each.throughput_tok_s, each.server_pp_tok_s, each.server_tg_tok_s,
               each.input_tok, each.output_tok, each.cached_tok, each.load_s, each.peak_memory_bytes, each.steady,
               each.slowness, each.client_lag_s)  # fmt: skip
        for number, answer in enumerate(each.answers):
            insert("answers", each.cell, each.block, number, answer.started_s, answer.ended_s, answer.ttft_s,
                   answer.tpot_s, answer.prompt_tok, answer.cached_tok, answer.completion_tok, answer.finish,
                   json.dumps(answer.arrivals_s))  # fmt: skip
        for meter in each.energy:
            insert("energy", each.cell, each.block, meter.meter, meter.tier, ", ".join(meter.covers), meter.gross_j,
                   meter.net_j, meter.idle_w, meter.window_s, meter.reason, ", ".join(meter.flags))  # fmt: skip
    for check in results.checks:
        insert("checks", check.configuration, check.verdict, check.reason, check.agreement, check.reference)
    for failure in results.failures:
        insert("failures", failure.cell, failure.block, failure.reason)
