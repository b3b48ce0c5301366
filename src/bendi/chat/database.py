"""One SQLite file that loses nothing: write-ahead log, backup, journal, and their agreement.

A change is applied in a transaction, written to the journal and to disk, and only then committed. A process that dies
in between leaves a journal that is ahead of the database; whoever writes or starts next replays the difference. The
backup is renewed when the journal has grown or a day has passed, and the journal starts again from it.

Several processes may have the file open. One connection, one lock: a `Database` may be used from several threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bendi.chat.durable import PresenceLock, create_private, replace_durably, sync_file
from bendi.chat.journal import Change, Journal
from bendi.chat.recovery import Files, damage_of, recover
from bendi.chat.schema import apply, make_index, migrate, read_meta, write_meta
from bendi.errors import DataError
from bendi.i18n import _
from bendi.units import MIB

_LOCK_TIMEOUT_S = 20.0
_JOURNAL_LIMIT_BYTES = 4 * MIB
_EMPTY_JOURNAL_BYTES = 128
_BACKUP_AGE_S = 24 * 3600.0
_CHECKED_ALWAYS_BYTES = 16 * MIB
"""A database up to this size is checked at every start (some 10 ms); a larger one after an unclean end."""


_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "temp_store = MEMORY",  # VACUUM must not leave text in the system's temporary folder
)


class _Damaged(Exception):
    """The database contradicts itself or its copies."""


class Database:
    """`notices`: sentences about repairs, to be shown to the user once.

    Raises DataError, from every method, when the files cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.notices: list[str] = []
        self.indexed = False
        self._files = Files(path)
        self._journal = Journal(self._files.journal)
        self._thread_lock = threading.RLock()
        self._closed = False
        with self._explained():
            self._presence = PresenceLock(self._files.lock)
        try:
            self._connection = self._open()
        except BaseException:
            self._presence.close()
            raise

    def close(self) -> None:
        """Renews the backup when it is due. Closing twice is harmless."""
        with self._thread_lock:
            if self._closed:
                return
            self._closed = True
            # A backup that could not be renewed is still a whole one together with its journal.
            with contextlib.suppress(DataError), self._explained():
                if _backup_is_due(self._files, self._journal.size_bytes()):
                    self._renew_backup()
            self._connection.close()
            self._presence.close()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._explained():
            return self._connection.execute(sql, values).fetchall()

    def write(self, build: Callable[[sqlite3.Connection], Change]) -> None:
        """Carries out what `build` returns. It is called inside the transaction, so what it reads stays true."""
        with self._explained():
            meta = self._begin_in_step()
            try:
                change = build(self._connection)
                apply(self._connection, change)
                size_bytes = self._journal.append(meta["seq"] + 1, change)
                write_meta(self._connection, seq=meta["seq"] + 1, journal_bytes=size_bytes)
                if change.delete:
                    write_meta(self._connection, purge=1)
                self._connection.execute("COMMIT")
            except BaseException:
                self._take_back(meta)
                raise
            if size_bytes > 4 * _JOURNAL_LIMIT_BYTES:
                self._renew_backup()

    def purge(self) -> bool:
        """Removes the bytes of deleted text from the database, its log, the backup and the journal.

        False when another process reads or writes at this moment: it is then done at the next start.
        """
        with self._explained():
            try:
                if self.indexed:
                    self._connection.execute("INSERT INTO messages_index (messages_index) VALUES ('rebuild')")
                self._connection.execute("VACUUM")
                self._renew_backup()
                if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] != 0:
                    return False
                write_meta(self._connection, purge=0)
            except sqlite3.OperationalError as error:
                if not _is_locked(error):
                    raise
                return False
            return True

    def _open(self) -> sqlite3.Connection:
        """A connection to a sound database, whatever it takes."""
        with self._explained():
            for _attempt in range(2):
                identity = _identity(self._files.database)
                reason = damage_of(self._files)
                if reason is None:
                    try:
                        return self._try_to_open()
                    except (_Damaged, sqlite3.DatabaseError) as error:
                        if _is_not_damage(error):
                            raise
                        reason = str(error)
                self._recover(reason, identity)
            return self._try_to_open()

    def _try_to_open(self) -> sqlite3.Connection:
        self._connection = _connect(self._files.database)
        try:
            self._bring_up()
        except BaseException:
            self._connection.close()
            raise
        return self._connection

    def _bring_up(self) -> None:
        """Checks, migrates, replays: after this the three files agree."""
        self._check()
        meta = read_meta(self._connection)
        if not meta and self._files.backup.exists():
            raise _Damaged(_("its tables are missing"))
        if meta and not _agree(meta, self._journal):
            self._repair()
        migrated = migrate(self._connection)
        self.indexed = make_index(self._connection)
        meta = read_meta(self._connection)
        if migrated or not self._files.backup.exists() or self._files.backup.stat().st_size != meta["backup_bytes"]:
            self._renew_backup()
        self._files.rebuilt.unlink(missing_ok=True)
        if meta["purge"]:
            with contextlib.suppress(DataError):  # there may be no space for it now, but the sessions can be used
                self.purge()

    def _check(self) -> None:
        size_bytes = self._files.database.stat().st_size
        suspect = self._files.suspect.exists()
        unclean = self._files.wal.exists() and self._files.wal.stat().st_size > 0
        if suspect or unclean or size_bytes <= _CHECKED_ALWAYS_BYTES:
            check = "integrity_check" if suspect else "quick_check"
            verdict = self._connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
            if verdict != "ok":
                raise _Damaged(str(verdict).splitlines()[-1])
            self._files.suspect.unlink(missing_ok=True)

    def _recover(self, reason: str, identity: tuple[int, int] | None) -> None:
        if not self._presence.alone():
            raise DataError(
                _("The session database is damaged ({reason}) and another bendi process is using it.").format(
                    reason=reason
                ),
                hint=_("End the other bendi processes, then try again: the sessions will be restored."),
            )
        try:
            # Another process may have repaired it while we waited.
            if _identity(self._files.database) == identity:
                self.notices.append(recover(self._files, reason))
                self._files.suspect.unlink(missing_ok=True)
        finally:
            self._presence.share()

    def _begin_in_step(self) -> dict[str, int]:
        """Begins a write transaction in which the journal ends where the database does; returns what `meta` says."""
        for _attempt in range(5):
            self._connection.execute("BEGIN IMMEDIATE")
            meta = read_meta(self._connection)
            if self._journal.size_bytes() == meta["journal_bytes"]:
                return meta
            self._connection.execute("ROLLBACK")
            self._repair()
        raise _Damaged(_("it does not agree with its journal"))

    def _take_back(self, meta: dict[str, int]) -> None:
        """After a change that failed: nothing of it may be in the journal either. `meta`: from before it."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        with contextlib.suppress(OSError, sqlite3.DatabaseError):
            self._connection.execute("BEGIN IMMEDIATE")
            if read_meta(self._connection)["seq"] == meta["seq"]:
                self._journal.cut(meta["journal_bytes"])
            self._connection.execute("ROLLBACK")

    def _repair(self) -> None:
        """Replays what a process that died had written to the journal only, or renews a journal that was cut."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            seq = read_meta(self._connection)["seq"]
            contents = self._journal.read()
            if contents and contents.after_seq > seq:
                raise _Damaged(_("changes are missing from it"))
            behind = contents is None or contents.last_seq < seq
            if contents and not behind:
                for change in contents.changes[seq - contents.after_seq :]:
                    apply(self._connection, change)
                self._journal.cut(contents.valid_bytes)
                write_meta(self._connection, seq=contents.last_seq, journal_bytes=contents.valid_bytes)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        if behind:
            self._renew_backup()

    def _renew_backup(self) -> None:
        """Copies the database to the backup, then starts the journal again from there."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            seq = read_meta(self._connection)["seq"]
            temporary = self._files.backup.with_name(self._files.backup.name + ".part")
            temporary.unlink(missing_ok=True)
            create_private(temporary)
            # A second connection, since the backup of a connection includes what it has not committed.
            with (
                contextlib.closing(sqlite3.connect(self._files.database, timeout=_LOCK_TIMEOUT_S)) as source,
                contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as target,
            ):
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE").fetchall()
            sync_file(temporary)
            backup_bytes = temporary.stat().st_size
            replace_durably(temporary, self._files.backup)
            journal_bytes = self._journal.start(after_seq=seq)
            write_meta(self._connection, seq=seq, journal_bytes=journal_bytes, backup_bytes=backup_bytes)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """One thread at a time; errors of SQLite and the file system in our words."""
        with self._thread_lock:
            try:
                yield
            except (_Damaged, sqlite3.DatabaseError) as error:
                if not _is_not_damage(error):
                    with contextlib.suppress(OSError):
                        create_private(self._files.suspect)
                raise _explain(self._files.database, error) from error
            except OSError as error:
                raise _explain(self._files.database, error) from error


def _connect(path: Path) -> sqlite3.Connection:
    create_private(path)
    connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _agree(meta: dict[str, int], journal: Journal) -> bool:
    """Whether the journal, all of it sound, ends where the database with this `meta` does.

    Its size alone does not tell: a database that lost the end of its log may be as old as to expect an earlier journal
    of just this size, and garbage has the size of what it replaced.
    """
    contents = journal.read()
    return (
        contents is not None
        and contents.last_seq == meta["seq"]
        and contents.valid_bytes == meta["journal_bytes"] == journal.size_bytes()
    )


def _backup_is_due(files: Files, journal_bytes: int) -> bool:
    try:
        age_s = time.time() - files.backup.stat().st_mtime
    except OSError:
        return True
    return journal_bytes > _JOURNAL_LIMIT_BYTES or (age_s > _BACKUP_AGE_S and journal_bytes > _EMPTY_JOURNAL_BYTES)


def _explain(path: Path, error: Exception) -> DataError:
    if _is_locked(error):
        return DataError(
            _("Another bendi process keeps the sessions in {path} locked.").format(path=path),
            hint=_("Wait until it has finished, or end it, then try again."),
        )
    if isinstance(error, OSError) or _is_not_damage(error):
        return DataError(
            _("The sessions in {path} cannot be read or written: {error}").format(path=path, error=error),
            hint=_(
                "Check the free space and the permissions of that folder, choose another one with BENDI_STATE, "
                "or use --no-save."
            ),
        )
    return DataError(
        _("The session database {path} is damaged: {error}").format(path=path, error=error),
        hint=_("Start bendi again: it will restore the sessions from their copies."),
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from one that was later renamed over it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _is_not_damage(error: Exception) -> bool:
    """Operational errors are about locks, space and permissions, except for the few that mean a bad file."""
    if not isinstance(error, sqlite3.OperationalError):
        return isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError))
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
