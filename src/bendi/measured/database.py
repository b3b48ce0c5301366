"""One SQLite file whose contents can be measured again: it never stands in the way of anything else.

A file that is damaged is moved aside and a new one begun. Whatever else goes wrong (no space, no permission, a lock
that is not given up) ends in a notice and an empty answer.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bendi.i18n import _
from bendi.measured.schema import NewerSchema, migrate

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
_LOCK_TIMEOUT_S = 1.0
_DAMAGE_CODES = frozenset(
    # The last one: a table or a column is missing.
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
)
_SUFFIXES = ("", "-wal", "-shm")


class Database:
    """`notices`: what went wrong, to be shown to the user once. Opened at first use; safe to use from several threads.

    After a failure nothing more is written in this process: nobody should wait for the same lock again and again.
    """

    def __init__(self, path: Path) -> None:
        self.notices: list[str] = []
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._failed = False

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def read(self, ask: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `ask` returns; `otherwise` where there is no file yet, or it cannot be read."""
        if not os.path.exists(self._path):
            return otherwise
        return self._run(ask, otherwise)

    def write(self, change: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Carries out `change` in a transaction; `otherwise` where that is not possible."""

        return otherwise if self._failed else self._run(lambda connection: transaction(connection, change), otherwise)

    def _run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        with self._lock:
            for attempt in range(2):
                try:
                    return work(self._connected())
                except sqlite3.IntegrityError:
                    return otherwise  # it belongs to a load that is not there any more
                except NewerSchema:
                    return self._fail(_("they were written by a later version of bendi"), otherwise)
                except (sqlite3.Error, OSError, OverflowError) as error:
                    if attempt or not _is_damage(error):
                        return self._fail(str(error), otherwise)
                    self._disconnect()
                    try:
                        self._move_aside(str(error))
                    except OSError as blocked:
                        return self._fail(str(blocked), otherwise)
            raise AssertionError("unreachable")

    def _fail(self, reason: str, otherwise: T) -> T:
        self._disconnect()
        if not self._failed:
            self._failed = True
            self.notices.append(
                _("Measurements in {path} cannot be kept or read: {reason}").format(path=self._path, reason=reason)
            )
        return otherwise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and _identity(self._path) == self._identity:
            return self._connection
        self._disconnect()
        if not (writable := _is_writable(self._path)) and not os.path.exists(self._path):
            raise PermissionError(_("{folder} cannot be written").format(folder=self._path.parent))
        if writable:
            _create_private(self._path)
        self._identity = _identity(self._path)
        # A file that nobody can write has no write-ahead log, and must be told apart from one that has.
        name = self._path.absolute().as_uri() + ("" if writable else "?mode=ro&immutable=1")
        connection = sqlite3.connect(
            name, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True
        )  # fmt: skip
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            # Without waiting for the disk: a power cut may cost the last rows, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            if writable:
                _use_write_ahead_log(connection)
                migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _move_aside(self, reason: str) -> None:
        """Gives the damaged file another name, unless another process has done so. Raises OSError."""
        with _Alone(self._path.with_name(self._path.name + ".lock")):
            if _identity(self._path) != self._identity:
                return
            aside = _free_name(self._path)
            # The log last: SQLite drops a log that lies beside an empty database.
            for suffix in _SUFFIXES:
                with suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).rename(aside.with_name(aside.name + suffix))
        self.notices.append(
            _("The measurements in {path} were damaged ({reason}): they are in {aside} now, new ones begin.").format(
                path=self._path, reason=reason, aside=aside.name
            )
        )


class _Alone:
    """One process at a time; where the system has no such lock, or no room for its file, everybody goes ahead."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        if sys.platform != "win32":
            with suppress(OSError):
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The first process to change the mode must be alone, and SQLite does not wait for that by itself."""
    end_s = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end_s:
                raise
            time.sleep(0.01)


def _create_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from one that was later renamed over it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _free_name(path: Path) -> Path:
    stem = f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (path.with_name(stem if number == 0 else f"{stem}-{number}") for number in range(10_000))
    return next(name for name in names if not os.path.exists(name))


def _is_damage(error: Exception) -> bool:
    """The few errors of SQLite that mean a bad file."""
    if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.ProgrammingError):
        return False
    # Without a code: a text that is not UTF-8, or a value that `store` found impossible.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _DAMAGE_CODES


# `os.path.exists`, unlike `Path.exists`, is False for what may not be looked at.
def _is_writable(path: Path) -> bool:
    """Whether rows can be added: SQLite needs to write the file, and its log beside it."""
    if os.path.exists(path):
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    existing = next(folder for folder in path.absolute().parents if os.path.exists(folder))
    return os.access(existing, os.W_OK)


def transaction(connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], T]) -> T:
    """What `change` returns, once all of it is kept; none of it where it fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = change(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result
