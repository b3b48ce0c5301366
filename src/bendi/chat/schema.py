"""The tables of the session database, and how older ones become the present ones.

`MIGRATIONS[n]` leads from version n to n + 1; a released one is never changed, a new one is added at the end. The
version is kept in `meta`, with what `database` must remember: `seq` (the last change), `journal_bytes`,
`backup_bytes`, `purge` (1 while deleted text may still lie in free pages).

`messages.kind` is `turn`, or `summary` for the note that stands for older messages. `superseded` marks what `/undo`
and `/retry` took back: it stays until the session is deleted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from bendi.chat.journal import Change
from bendi.errors import DataError
from bendi.i18n import _

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE sessions (
            id TEXT PRIMARY KEY NOT NULL,
            title TEXT NOT NULL,
            model TEXT NOT NULL,
            persona TEXT NOT NULL,
            settings TEXT NOT NULL,
            created_s REAL NOT NULL,
            updated_s REAL NOT NULL
        )
        """,
        "CREATE INDEX sessions_by_update ON sessions (updated_s)",
        """
        CREATE TABLE messages (
            id INTEGER PRIMARY KEY,
            session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            role TEXT NOT NULL,
            kind TEXT NOT NULL,
            state TEXT NOT NULL,
            superseded INTEGER NOT NULL,
            content TEXT NOT NULL,
            reasoning TEXT NOT NULL,
            extra TEXT NOT NULL,
            created_s REAL NOT NULL,
            UNIQUE (session, position)
        )
        """,
    ),
    # Whose a session is: the name of a key of the server; empty for whoever sits at this machine.
    ("ALTER TABLE sessions ADD COLUMN owner TEXT NOT NULL DEFAULT ''",),
)

KEYS = {"sessions": "id", "messages": "id"}

_INDEX = (
    "CREATE VIRTUAL TABLE messages_index USING fts5(content, content='messages', content_rowid='id',"
    " tokenize='trigram')",
    """
    CREATE TRIGGER messages_index_insert AFTER INSERT ON messages BEGIN
        INSERT INTO messages_index (rowid, content) VALUES (new.id, new.content);
    END
    """,
    """
    CREATE TRIGGER messages_index_delete AFTER DELETE ON messages BEGIN
        INSERT INTO messages_index (messages_index, rowid, content) VALUES ('delete', old.id, old.content);
    END
    """,
    """
    CREATE TRIGGER messages_index_update AFTER UPDATE ON messages BEGIN
        INSERT INTO messages_index (messages_index, rowid, content) VALUES ('delete', old.id, old.content);
        INSERT INTO messages_index (rowid, content) VALUES (new.id, new.content);
    END
    """,
    "INSERT INTO messages_index (messages_index) VALUES ('rebuild')",
)


def read_meta(connection: sqlite3.Connection) -> dict[str, int]:
    """The numbers in `meta`; empty where the table does not exist. Raises sqlite3.DatabaseError."""
    if not _exists(connection, "meta"):
        return {}
    rows = connection.execute("SELECT key, value FROM meta").fetchall()
    if not all(isinstance(row[0], str) and isinstance(row[1], int) for row in rows):
        raise sqlite3.DatabaseError(_("its numbers are damaged"))
    return {row[0]: row[1] for row in rows}


def write_meta(connection: sqlite3.Connection, **values: int) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", list(values.items()))


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> bool:
    """Brings the tables to the newest version in one transaction; whether anything changed.

    Raises DataError when a newer bendi has written them.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = read_meta(connection).get("schema", 0)
        if version > len(migrations):
            raise DataError(
                _("The sessions were written by a newer bendi (format {found}, this one knows {known}).").format(
                    found=version, known=len(migrations)
                ),
                hint=_("Update bendi, or point BENDI_STATE at another folder. Nothing was changed."),
            )
        if version == 0:
            connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY NOT NULL, value NOT NULL)")
            write_meta(connection, seq=0, journal_bytes=-1, backup_bytes=-1, purge=0)
        for steps in migrations[version:]:
            for statement in steps:
                connection.execute(statement)
        changed = version < len(migrations)
        if changed:
            write_meta(connection, schema=len(migrations))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return changed


def make_index(connection: sqlite3.Connection) -> bool:
    """Makes the full-text index where it is missing; False where this SQLite cannot (search then reads every row)."""
    if _exists(connection, "messages_index"):
        return True
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _exists(connection, "messages_index"):
            for statement in _INDEX:
                connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.OperationalError:
        connection.execute("ROLLBACK")
        return False
    return True


def _exists(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None


def apply(connection: sqlite3.Connection, change: Change) -> None:
    """Carries out a change; doing it again changes nothing."""
    for table, row in change.rows:
        put_row(connection, table, row)
    for session_id in change.delete:
        connection.execute("DELETE FROM messages WHERE session = ?", (session_id,))
        connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))


def put_row(connection: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Inserts a whole row, or replaces the one with its key."""
    # Names become SQL, and the journal is a file that anybody may have edited.
    known = {info[1] for info in connection.execute(f"PRAGMA table_info({table})")} if table in KEYS else set()
    if not known or not row.keys() <= known:
        raise DataError(
            _("The journal of the sessions names a table or column that does not exist: {names}").format(
                names=", ".join([table, *sorted(row.keys() - known)])
            ),
            hint=_("The journal was changed by another program, or written by a newer bendi."),
        )
    key = KEYS[table]
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    updates = ", ".join(f"{name} = excluded.{name}" for name in row if name != key)
    connection.execute(
        f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {updates}",
        tuple(row.values()),
    )
