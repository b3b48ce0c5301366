"""The tables of the measurements, and how older ones become the present ones.

`MIGRATIONS[n]` leads from version n to n + 1 (`PRAGMA user_version`); a released one is never changed, a new one is
added at the end.
"""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE calibrations (
            machine_id TEXT NOT NULL,
            build TEXT NOT NULL,
            text TEXT NOT NULL,
            saved_s REAL NOT NULL,
            PRIMARY KEY (machine_id, build)
        )
        """,
        """
        CREATE TABLE loads (
            id INTEGER PRIMARY KEY,
            created_s REAL NOT NULL,
            model_key TEXT NOT NULL,
            model TEXT NOT NULL,
            architecture TEXT NOT NULL,
            quantization TEXT NOT NULL,
            build TEXT NOT NULL,
            machine_id TEXT NOT NULL,
            context_tok INTEGER NOT NULL,
            parallel INTEGER NOT NULL,
            type_k TEXT NOT NULL,
            type_v TEXT NOT NULL,
            threads INTEGER NOT NULL,
            predicted_weights_bytes INTEGER NOT NULL,
            predicted_kv_bytes INTEGER NOT NULL,
            predicted_state_bytes INTEGER NOT NULL,
            predicted_compute_bytes INTEGER NOT NULL,
            predicted_output_bytes INTEGER NOT NULL,
            real_weights_bytes INTEGER,
            real_kv_bytes INTEGER,
            real_state_bytes INTEGER,
            real_compute_bytes INTEGER,
            real_output_bytes INTEGER,
            load_s REAL NOT NULL,
            predicted_load_s REAL,
            predicted_cold_load_s REAL
        )
        """,
        """
        CREATE TABLE answers (
            id INTEGER PRIMARY KEY,
            created_s REAL NOT NULL,
            load_id INTEGER NOT NULL REFERENCES loads (id) ON DELETE CASCADE,
            prompt_tok INTEGER NOT NULL,
            cached_tok INTEGER NOT NULL,
            completion_tok INTEGER NOT NULL,
            depth_tok INTEGER NOT NULL,
            pp_tok_s REAL,
            tg_tok_s REAL,
            predicted_pp_tok_s REAL,
            predicted_tg_tok_s REAL
        )
        """,
        "CREATE INDEX answers_by_load ON answers (load_id)",
        "CREATE INDEX loads_by_machine ON loads (machine_id, build)",
    ),
    (
        """
        CREATE TABLE tunings (
            machine_id TEXT NOT NULL,
            model_key TEXT NOT NULL,
            build TEXT NOT NULL,
            kv_type TEXT NOT NULL,
            model TEXT NOT NULL,
            text TEXT NOT NULL,
            saved_s REAL NOT NULL,
            PRIMARY KEY (machine_id, model_key, build, kv_type)
        )
        """,
    ),
)


class NewerSchema(Exception):
    """The file was written by a later version of bendi."""


def migrate(connection: sqlite3.Connection) -> None:
    """Brings the tables to the present version, in one transaction. Raises NewerSchema and sqlite3.Error."""
    if _version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated while this one waited.
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise NewerSchema
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
