"""The measurements of this machine (and of others that share the folder), as typed rows."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bendi.measured.database import Database
from bendi.measured.records import AnswerRecord, Buffers, CalibrationRow, LoadRecord
from bendi.measured.residual import Ratio, Residual, ratio_between, ratio_of

KEPT_ROWS = 5000
_LEAST_PROMPT_TOK = 16
_LEAST_ANSWER_TOK = 8
"""Shorter ones measure the clock rather than the machine."""
_BUFFERS = tuple(field.name for field in fields(Buffers))
_LOAD_COLUMNS = tuple(field.name for field in fields(LoadRecord) if field.name not in ("id", "predicted", "real"))
_ANSWER_COLUMNS = tuple(field.name for field in fields(AnswerRecord) if field.name != "id")
_CALIBRATION_COLUMNS = tuple(field.name for field in fields(CalibrationRow))
_SIZE_COLUMNS = tuple(f"{prefix}_{name}" for prefix in ("predicted", "real") for name in _BUFFERS)
# Named one by one, so that a table without one of them is an error of SQLite's.
_ALL_CALIBRATIONS = f"SELECT {', '.join(_CALIBRATION_COLUMNS)} FROM calibrations ORDER BY saved_s DESC"
_LOADS = f"SELECT id, {', '.join(_LOAD_COLUMNS + _SIZE_COLUMNS)} FROM loads ORDER BY id DESC LIMIT ?"
_ANSWERS = f"SELECT id, {', '.join(_ANSWER_COLUMNS)} FROM answers"
_TEXT_COLUMNS = frozenset(
    {*("model_key", "model", "architecture", "quantization"), *("build", "machine_id", "type_k", "type_v", "text")}
)


class MeasuredStore:
    """Raises nothing: what cannot be written is dropped, what cannot be read is empty, and `notices` says why, once.

    Nothing is opened before the first call. Several processes and threads may use the same file.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    @property
    def notices(self) -> list[str]:
        return self._database.notices

    def close(self) -> None:
        """Closing twice is harmless; a later call opens the file again."""
        self._database.close()

    def save_calibration(self, machine_id: str, build: str, text: str) -> None:
        """Replaces the calibration of this machine and engine build."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO calibrations VALUES (?, ?, ?, ?)", (machine_id, build, text, time.time())
            )

        self._database.write(change, None)

    def calibration(self, machine_id: str, build: str) -> str | None:
        """The text that was saved for this machine and engine build; None without one."""
        rows = [row for row in self.calibrations() if (row.machine_id, row.build) == (machine_id, build)]
        return rows[0].text if rows else None

    def calibrations(self) -> list[CalibrationRow]:
        """All of them, the newest first."""

        def ask(connection: sqlite3.Connection) -> list[CalibrationRow]:
            return [CalibrationRow(**_checked(row)) for row in connection.execute(_ALL_CALIBRATIONS)]

        return self._database.read(ask, [])

    def add_load(self, load: LoadRecord) -> int:
        """Keeps `load` with the present time; returns its id, 0 where it could not be kept."""
        values = {name: value for name, value in vars(load).items() if name in _LOAD_COLUMNS}
        values["created_s"] = time.time()
        for prefix, buffers in (("predicted", load.predicted), ("real", load.real)):
            sizes = asdict(buffers) if buffers else dict.fromkeys(_BUFFERS)
            values |= {f"{prefix}_{name}": size for name, size in sizes.items()}
        return self._database.write(lambda connection: _insert(connection, "loads", values), 0)

    def add_answer(self, answer: AnswerRecord) -> int:
        """Keeps `answer` with the present time; returns its id, 0 where it could not be kept, also because its load
        is not there any more."""
        values = {name: getattr(answer, name) for name in _ANSWER_COLUMNS} | {"created_s": time.time()}
        return self._database.write(lambda connection: _insert(connection, "answers", values), 0)

    def loads(self, limit: int = KEPT_ROWS) -> list[LoadRecord]:
        """The newest `limit` loads, the newest first."""
        return self._database.read(
            lambda connection: [_load(_checked(row)) for row in connection.execute(_LOADS, (limit,))], []
        )

    def answers(self, load_id: int | None = None, limit: int = KEPT_ROWS) -> list[AnswerRecord]:
        """The newest `limit` answers, of one load or of all, the newest first."""
        where, values = ("", (limit,)) if load_id is None else ("WHERE load_id = ?", (load_id, limit))
        return self._database.read(
            lambda connection: [
                AnswerRecord(**_checked(row))
                for row in connection.execute(f"{_ANSWERS} {where} ORDER BY id DESC LIMIT ?", values)
            ],
            [],
        )

    def residuals(
        self, machine_id: str, build: str, model_key: str | None = None, quantization: str | None = None
    ) -> Residual:
        """How wrong the predictions of the present calibration were: for a model, for all models of a quantization,
        or, with neither, for all models. Models other than the one asked for count once each."""
        where, values = ["loads.machine_id = ?", "loads.build = ?"], [machine_id, build]
        for column, value in (("model_key", model_key), ("quantization", quantization)):
            if value is not None:
                where.append(f"loads.{column} = ?")
                values.append(value)

        def ask(connection: sqlite3.Connection) -> Residual:
            return _residual(_compared(connection, " AND ".join(where), values), one_model=model_key is not None)

        return self._database.read(ask, Residual())

    def load_ratio(self, machine_id: str, build: str) -> Ratio:
        """How much longer loads took than the present calibration predicts for files in the page cache; what is longer
        than from the disk is taken for a load from there and left out. Each model counts once."""
        ratios: defaultdict[str, list[float]] = defaultdict(list)
        for load in self.loads():
            warm_s, cold_s = load.predicted_load_s, load.predicted_cold_load_s
            if (load.machine_id, load.build) == (machine_id, build) and warm_s and cold_s and load.load_s < cold_s:
                ratios[f"{load.model_key} {load.quantization}"].append(load.load_s / warm_s)
        return ratio_between(ratios)

    def residual_levels(
        self, machine_id: str, build: str, model_key: str, quantization: str
    ) -> tuple[Residual, Residual, Residual]:
        """`residuals` of the model, of its quantization, of all models: the order of `planner.learning.adjusted`."""
        return (
            self.residuals(machine_id, build, model_key),
            self.residuals(machine_id, build, quantization=quantization),
            self.residuals(machine_id, build),
        )


def _compared(connection: sqlite3.Connection, where: str, values: Sequence[str]) -> list[dict[str, Any]]:
    # Predictions of an earlier calibration say nothing about this one.
    rows = connection.execute(
        f"""
        SELECT loads.model_key, loads.quantization, prompt_tok, cached_tok, completion_tok,
            pp_tok_s, tg_tok_s, predicted_pp_tok_s, predicted_tg_tok_s
        FROM answers JOIN loads ON loads.id = answers.load_id
            JOIN calibrations ON calibrations.machine_id = loads.machine_id AND calibrations.build = loads.build
        WHERE {where} AND loads.created_s >= calibrations.saved_s
        """,
        values,
    )
    return [_checked(row) for row in rows]


def _residual(rows: Sequence[dict[str, Any]], *, one_model: bool) -> Residual:
    pp: defaultdict[str, list[float]] = defaultdict(list)
    tg: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        # The same model in another quantization is another observation.
        model = f"{row['model_key']} {row['quantization']}"
        if row["prompt_tok"] - row["cached_tok"] >= _LEAST_PROMPT_TOK and row["predicted_pp_tok_s"] and row["pp_tok_s"]:
            pp[model].append(row["pp_tok_s"] / row["predicted_pp_tok_s"])
        if row["completion_tok"] >= _LEAST_ANSWER_TOK and row["predicted_tg_tok_s"] and row["tg_tok_s"]:
            tg[model].append(row["tg_tok_s"] / row["predicted_tg_tok_s"])
    if one_model:
        return Residual(*(ratio_of(ratio for ratios in kind.values() for ratio in ratios) for kind in (pp, tg)))
    return Residual(ratio_between(pp), ratio_between(tg))


def _insert(connection: sqlite3.Connection, table: str, values: dict[str, Any]) -> int:
    """Adds a row and drops those that are too old; returns its id."""
    marks = ", ".join("?" * len(values))
    plain = [
        value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values.values()
    ]
    cursor = connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", plain)
    row_id = int(cursor.lastrowid or 0)
    connection.execute(f"DELETE FROM {table} WHERE id <= ?", (row_id - KEPT_ROWS,))
    return row_id


def _text(value: str) -> str:
    """Names of files may hold bytes that are no text."""
    return value.encode("utf-8", "replace").decode()


def _checked(row: sqlite3.Row) -> dict[str, Any]:
    """The columns by name; in a damaged file they may hold anything. Raises sqlite3.DatabaseError."""
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 (a Row is not a mapping)
    for name, value in values.items():
        if value is not None and not isinstance(value, str if name in _TEXT_COLUMNS else int | float):
            raise sqlite3.DatabaseError(name)
    return values


def _load(values: dict[str, Any]) -> LoadRecord:
    sizes: dict[str, Buffers | None] = {}
    for prefix in ("predicted", "real"):
        numbers = {name: values.pop(f"{prefix}_{name}") for name in _BUFFERS}
        sizes[prefix] = None if None in numbers.values() else Buffers(**numbers)
    predicted = sizes["predicted"]
    if predicted is None:
        raise sqlite3.DatabaseError("predicted")
    return LoadRecord(**values, predicted=predicted, real=sizes["real"])
