"""Settings that were measured to be the fastest for one model, on one machine, with one engine build."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, fields
from pathlib import Path

from bendi.measured.database import Database


@dataclass(frozen=True)
class TuningRow:
    """Stored settings. `model`: its name, for people; `kv_type`: of keys and values. `text`: as
    `engines.tuning_report.to_json` writes it. `saved_s`: seconds since 1970, set by the store."""

    machine_id: str
    model_key: str
    build: str
    kv_type: str
    model: str
    text: str
    saved_s: float = 0.0


_COLUMNS = tuple(field.name for field in fields(TuningRow))
_ALL = f"SELECT {', '.join(_COLUMNS)} FROM tunings ORDER BY saved_s DESC"
_EXISTS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'tunings'"
_SAVE = f"INSERT OR REPLACE INTO tunings ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class TuningStore:
    """Raises nothing, as MeasuredStore, whose file it shares; `notices` says what went wrong, once."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    @property
    def notices(self) -> list[str]:
        return self._database.notices

    def close(self) -> None:
        """Closing twice is harmless."""
        self._database.close()

    def save(self, row: TuningRow) -> bool:
        """Replaces what was kept for the same machine, model, build and KV type. Returns whether it was kept."""
        values = [getattr(row, name) for name in _COLUMNS[:-1]]
        plain = [value.encode("utf-8", "replace").decode() for value in values]

        def change(connection: sqlite3.Connection) -> bool:
            connection.execute(_SAVE, [*plain, time.time()])
            return True

        return self._database.write(change, False)

    def tunings(self) -> list[TuningRow]:
        """All of them, the newest first."""

        def ask(connection: sqlite3.Connection) -> list[TuningRow]:
            # A file of an earlier version that nobody may write has no such table, and is not damaged.
            if not connection.execute(_EXISTS).fetchone():
                return []
            return [_row(found) for found in connection.execute(_ALL)]

        return self._database.read(ask, [])

    def forget(self, machine_id: str, model_key: str) -> int:
        """Removes everything kept for a model on a machine; returns how many rows there were."""

        def change(connection: sqlite3.Connection) -> int:
            where = "DELETE FROM tunings WHERE machine_id = ? AND model_key = ?"
            return connection.execute(where, (machine_id, model_key)).rowcount

        return self._database.write(change, 0)


def _row(row: sqlite3.Row) -> TuningRow:
    """In a damaged file the columns may hold anything. Raises sqlite3.DatabaseError."""
    values = {name: row[name] for name in _COLUMNS}
    for name, value in values.items():
        if not isinstance(value, int | float if name == "saved_s" else str):
            raise sqlite3.DatabaseError(name)
    return TuningRow(**values)
