"""Answers of /v1/responses that are kept, so that a later request can go on from one by its id.

One SQLite file, only for them: what is in it is acknowledged to clients, so a change is on disk before it returns. Each
row belongs to an owner (the name of a key), and no other owner can find it. Nothing is kept for ever: there are
bounds of number, size and age, and what was used last goes last: that order is counted, since clocks are set.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bendi.chat.durable import create_private
from bendi.errors import DataError, NotFoundError
from bendi.i18n import _
from bendi.measured.database import transaction
from bendi.server.wall_clock import WallClock
from bendi.units import GIB

T = TypeVar("T")
_LOCK_TIMEOUT_S = 10.0
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY")
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE answers (
            owner TEXT NOT NULL,
            id TEXT NOT NULL,
            previous_id TEXT NOT NULL,
            input TEXT NOT NULL,
            answer TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            used_s REAL NOT NULL,
            PRIMARY KEY (owner, id)
        )
        """,
        "CREATE INDEX answers_by_use ON answers (used_s)",
    ),
    # The order of use, without a clock. Answers from before it go first, among them by their time.
    (
        "ALTER TABLE answers ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX answers_by_turn ON answers (turn, used_s)",
    ),
)
"""`MIGRATIONS[n]` leads from version n to n + 1 (`PRAGMA user_version`); a released one is never changed."""
_INSERT = (
    "INSERT INTO answers (owner, id, previous_id, input, answer, size_bytes, used_s, turn)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_TOUCH = "UPDATE answers SET used_s = ?, turn = ? WHERE owner = ? AND id = ?"
_NEWEST = "SELECT (SELECT max(used_s) FROM answers), (SELECT max(turn) FROM answers)"


@dataclass(frozen=True)
class StoredAnswer:
    """`previous_id`: the answer that it goes on from, may be empty. `input`: the items of its own request. `answer`: as
    the client got it."""

    id: str
    previous_id: str
    input: Sequence[Mapping[str, Any]]
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class Bounds:
    """Of what is kept, of all owners together. `age_s`: since it was last used; where the clock was set,
    answers are kept longer rather than shorter."""

    count: int = 10_000
    size_bytes: int = GIB
    age_s: float = 30 * 24 * 3600.0


class StoredAnswers:
    """SQLite, by owner and id. Safe to use from several threads and processes. Opened at first use. `clock`: for ages.

    Every method raises DataError when the file cannot be read or written.
    """

    def __init__(self, path: Path, bounds: Bounds | None = None, clock: WallClock | None = None) -> None:
        self._path, self._bounds, self._clock = path, bounds or Bounds(), clock or WallClock()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def put(self, owner: str, stored: StoredAnswer) -> None:
        """Keeps an answer; the oldest go where that is too much."""
        texts = [json.dumps(value, ensure_ascii=False) for value in (stored.input, stored.answer)]
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        size_bytes = sum(len(text.encode()) for text in texts)
        row = (owner, stored.id, stored.previous_id, *texts, size_bytes)

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(_INSERT, (*row, *self._use(connection)))
            self._forget(connection)

        self._write(change)

    def get(self, owner: str, answer_id: str) -> StoredAnswer:
        """Raises NotFoundError, also for an answer of somebody else."""
        with self._connected() as connection:
            return _find(connection, owner, answer_id)

    def chain(self, owner: str, answer_id: str) -> list[StoredAnswer]:
        """The answer and all that it goes on from, the first one first; all of them are then used just now.

        Raises NotFoundError also when an earlier one is gone: a conversation is not cut silently.
        """

        def change(connection: sqlite3.Connection) -> list[StoredAnswer]:
            links: list[StoredAnswer] = []
            wanted = answer_id
            while wanted:
                links.insert(0, _find(connection, owner, wanted))
                wanted = links[0].previous_id
            used = self._use(connection)
            for link in links:
                connection.execute(_TOUCH, (*used, owner, link.id))
            return links

        return self._write(change)

    def delete(self, owner: str, answer_id: str) -> None:
        """Removes it for good, also from the free space of the file. Raises NotFoundError."""

        def change(connection: sqlite3.Connection) -> None:
            _find(connection, owner, answer_id)
            connection.execute("DELETE FROM answers WHERE owner = ? AND id = ?", (owner, answer_id))

        self._write(change)
        with self._connected() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _use(self, connection: sqlite3.Connection) -> tuple[float, int]:
        """`used_s` and `turn` of what is used now: after all the others, also where the clock was set back."""
        newest_s, last = connection.execute(_NEWEST).fetchone()
        return max(self._clock.now_s(), newest_s or 0.0), (last or 0) + 1

    def _forget(self, connection: sqlite3.Connection) -> None:
        if self._clock.trusted():
            oldest_s = self._clock.now_s() - self._bounds.age_s
            connection.execute("DELETE FROM answers WHERE used_s < ?", (oldest_s,))
        count, size_bytes = connection.execute("SELECT count(*), total(size_bytes) FROM answers").fetchone()
        while count > self._bounds.count or (size_bytes > self._bounds.size_bytes and count > 1):
            oldest = connection.execute(
                "SELECT rowid, size_bytes FROM answers ORDER BY turn, used_s, rowid LIMIT 1"
            ).fetchone()
            connection.execute("DELETE FROM answers WHERE rowid = ?", (oldest["rowid"],))
            count, size_bytes = count - 1, size_bytes - oldest["size_bytes"]

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        with self._connected() as connection:
            return transaction(connection, change)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """One thread at a time; errors of SQLite and the file system in our words."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _open(self._path)
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise DataError(
                    _("Stored answers in {path} cannot be read or written: {error}").format(
                        path=self._path.name, error=error
                    ),
                    hint=_("Check the free space and the permissions of that folder; or send store: false."),
                ) from error


def _open(path: Path) -> sqlite3.Connection:
    create_private(path)
    connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise sqlite3.DatabaseError(_("they were written by a later version of bendi"))
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _find(connection: sqlite3.Connection, owner: str, answer_id: str) -> StoredAnswer:
    row = connection.execute("SELECT * FROM answers WHERE owner = ? AND id = ?", (owner, answer_id)).fetchone()
    if row is None:
        raise NotFoundError(
            _("There is no stored answer {id!r}.").format(id=answer_id[:80]),
            hint=_("It was never stored, or has been deleted, or is too old: send the conversation itself as input."),
        )
    return StoredAnswer(row["id"], row["previous_id"], json.loads(row["input"]), json.loads(row["answer"]))
