"""When the session database is damaged: how that is seen, and how the sessions come back.

There are always two ways to the whole: the database itself with its write-ahead log, and the backup with the journal.
As long as one of them is sound nothing is lost. When both are hurt, every row that can still be read from the damaged
database is taken over as well. The damaged files are set aside under a name with the time, never deleted.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.chat.durable import create_private, replace_durably, sync_file
from bendi.chat.journal import Change, Journal
from bendi.chat.schema import KEYS, apply, migrate, put_row, read_meta, write_meta
from bendi.errors import DataError
from bendi.i18n import _

_SIDES = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Files:
    """The paths that belong to one database."""

    database: Path

    @property
    def backup(self) -> Path:
        return self.database.with_name(self.database.name + ".bak")

    @property
    def journal(self) -> Path:
        return self.database.with_name(self.database.name + ".journal")

    @property
    def rebuilt(self) -> Path:
        return self.database.with_name(self.database.name + ".rebuilt")

    @property
    def lock(self) -> Path:
        return self.database.with_name(self.database.name + ".lock")

    @property
    def suspect(self) -> Path:
        """Exists after SQLite reported damage in the middle of the work: the next start looks closely."""
        return self.database.with_name(self.database.name + ".suspect")

    @property
    def wal(self) -> Path:
        return self.database.with_name(self.database.name + "-wal")


def damage_of(files: Files) -> str | None:
    """What SQLite would not notice: it takes a missing or empty file for a new database. None: nothing.

    Only looks at sizes: in a process that has the database open already, opening and closing the file once more
    would drop the locks of that connection (a rule of POSIX).
    """
    if not files.backup.exists() and not files.journal.exists():
        return None
    try:
        return None if files.database.stat().st_size > 0 else _("the file is empty")
    except FileNotFoundError:
        return _("the file is missing")


def _size_in(header: bytes) -> int:
    """Bytes that the database should have; 0 where the header does not say (SQLite's file format, section 1.3)."""
    page_bytes = struct.unpack_from(">H", header, 16)[0]
    pages, valid_for, changes = (struct.unpack_from(">I", header, at)[0] for at in (28, 92, 24))
    return (65536 if page_bytes == 1 else page_bytes) * pages if valid_for == changes else 0


def recover(files: Files, reason: str) -> str:
    """Builds the database anew from its copies and sets the damaged one aside; returns what to tell the user.

    The caller holds the lock alone. Raises sqlite3.Error or OSError; then the damaged files are where they were.
    """
    if not files.database.exists() and is_sound(files.rebuilt):
        # We were stopped between the two renames below.
        replace_durably(files.rebuilt, files.database)
        return _("The sessions were restored from their copies; an earlier attempt had been interrupted.")
    complete, rescued = _rebuild(files)
    aside = _set_aside(files, also_copies=not complete)
    replace_durably(files.rebuilt, files.database)
    parts = [_("The session database was damaged ({reason}).").format(reason=reason)]
    if complete:
        parts.append(_("Everything in it was restored from the backup and the journal."))
    else:
        parts.append(
            _("Its copies were damaged too: {count} messages could be rescued, others may be missing.").format(
                count=rescued
            )
        )
    if aside:
        parts.append(_("The damaged file is kept as {path}.").format(path=aside))
    return " ".join(parts)


def _rebuild(files: Files) -> tuple[bool, int]:
    """Writes `files.rebuilt`; whether it holds everything, and how many messages it has."""
    for side in _SIDES:
        Path(f"{files.rebuilt}{side}").unlink(missing_ok=True)
    create_private(files.rebuilt)
    contents = Journal(files.journal).read()
    has_backup = is_sound(files.backup)
    if has_backup:
        shutil.copyfile(files.backup, files.rebuilt)
    with contextlib.closing(sqlite3.connect(files.rebuilt, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        if not has_backup:
            migrate(connection)
        seq = read_meta(connection).get("seq", 0)
        complete = has_backup and contents is not None and contents.after_seq <= seq
        if not complete:
            seq = max(seq, _salvage(files, connection))
        if contents:
            done = seq - contents.after_seq if complete else 0
            _replay(connection, contents.changes[done:])
            seq = max(seq, contents.last_seq)
        write_meta(connection, seq=seq, journal_bytes=0, backup_bytes=0)
        rescued = int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])
    sync_file(files.rebuilt)
    return complete, rescued


def is_sound(path: Path) -> bool:
    """Whether `path` is a whole database of ours. Opened as immutable, so that looking leaves no files behind."""
    if not path.is_file() or path.stat().st_size < 100:
        return False
    with path.open("rb") as file:
        if _size_in(file.read(100)) > path.stat().st_size:
            return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            return verdict == "ok" and "seq" in read_meta(connection)
    except sqlite3.Error:
        return False


def _replay(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    connection.execute("BEGIN")
    for change in changes:
        try:
            apply(connection, change)
        except sqlite3.IntegrityError:
            # The journal is all that is left: its first message of a session may come without the session.
            for table, row in change.rows:
                _put_with_session(connection, table, row)
    connection.execute("COMMIT")


def _put_with_session(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Inserts a row, with a stand-in for a session that could not be rescued; drops one that contradicts others."""
    if table == "messages":
        now_s = time.time()
        connection.execute(
            "INSERT OR IGNORE INTO sessions (id, title, model, persona, settings, created_s, updated_s)"
            " VALUES (?, ?, '', '', '{}', ?, ?)",
            (row["session"], _("rescued"), row.get("created_s", now_s), row.get("created_s", now_s)),
        )
    with contextlib.suppress(sqlite3.IntegrityError):
        put_row(connection, table, row)


def _salvage(files: Files, target: sqlite3.Connection) -> int:
    """Copies every readable row of the damaged database into `target`; the last change it knows of."""
    if not files.database.exists():
        return 0
    with tempfile.TemporaryDirectory(dir=files.database.parent, prefix=".salvage-") as folder:
        copy = Path(folder, "copy")
        shutil.copyfile(files.database, copy)
        if files.wal.exists() and copy.stat().st_size > 0:
            shutil.copyfile(files.wal, f"{copy}-wal")
        _pad(copy)
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as source:
            source.row_factory = sqlite3.Row
            target.execute("BEGIN")
            for table in KEYS:
                for row in _readable_rows(source, table):
                    # A row from a damaged page may hold anything, also what a sound database never does.
                    with contextlib.suppress(DataError, ValueError, TypeError, sqlite3.DatabaseError):
                        json.loads(row["settings" if table == "sessions" else "extra"])
                        _put_with_session(target, table, row)
            target.execute("COMMIT")
            try:
                return read_meta(source).get("seq", 0)
            except sqlite3.Error:
                return 0


def _pad(database: Path) -> None:
    """SQLite refuses a file that is shorter than its header says; with zeros at the end the other pages are read."""
    with database.open("rb+") as file:
        header = file.read(100)
        if len(header) == 100 and _size_in(header) > file.seek(0, 2):
            file.truncate(_size_in(header))


def _readable_rows(source: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """Rows from the start up to the damage, then from the end down to it."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        try:
            for row in source.execute(f"SELECT rowid AS row_number, * FROM {table} ORDER BY rowid {order}"):
                values = dict(row)
                number = values.pop("row_number")
                if number in seen:
                    return
                seen.add(number)
                yield values
        except (sqlite3.Error, UnicodeDecodeError):
            continue


def damaged_files(database: Path) -> list[Path]:
    """Files set aside by repairs; they may hold text of deleted sessions."""
    return sorted(database.parent.glob(f"{database.name}.damaged-*"))


def _set_aside(files: Files, *, also_copies: bool) -> Path | None:
    """Renames the damaged database, its log first: a log without its database is harmless, but one that SQLite
    finds beside a new database would be written into it."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = files.database.with_name(f"{files.database.name}.damaged-{stamp}")
    for count in range(2, 100):
        if not aside.exists():
            break
        aside = aside.with_name(f"{files.database.name}.damaged-{stamp}-{count}")
    for side in reversed(_SIDES):
        source = Path(f"{files.database}{side}")
        if source.exists():
            replace_durably(source, Path(f"{aside}{side}"))
    if also_copies:
        for source in (files.backup, files.journal):
            if source.exists():
                replace_durably(source, Path(f"{aside}{source.suffix}"))
    return aside if aside.exists() else None
