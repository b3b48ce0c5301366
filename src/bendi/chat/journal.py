"""The second copy of every change: an append-only file of checksummed lines, written before SQLite commits.

    crc32 in hex, space, {"journal": 1, "after_seq": 41}
    crc32 in hex, space, {"seq": 42, "rows": [["sessions", {...}], ["messages", {...}]], "delete": []}

A change holds whole rows, so that replaying one twice is harmless. `after_seq` is the last change that the backup of
the database contains: backup plus journal are always the whole. A line that is torn or altered ends the journal; what
comes after it is not trusted.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.chat.durable import write_durably

_FORMAT = 1
_CRC_CHARS = 8


@dataclass(frozen=True)
class Change:
    """`rows`: (table, whole row) to insert or replace. `delete`: ids of sessions that go, with their messages."""

    rows: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class JournalContents:
    """`changes[i]` has the sequence number `after_seq + 1 + i`. `valid_bytes`: where trusted lines end."""

    after_seq: int
    changes: tuple[Change, ...] = ()
    valid_bytes: int = 0

    @property
    def last_seq(self) -> int:
        return self.after_seq + len(self.changes)


class Journal:
    """The file at `path`. Its users serialise themselves: they hold the database's write lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def size_bytes(self) -> int:
        """-1 where the file is missing, so that it never equals a recorded size."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return -1

    def start(self, after_seq: int) -> int:
        """Replaces the journal by an empty one; returns its size."""
        header = _line({"journal": _FORMAT, "after_seq": after_seq})
        write_durably(self.path, header)
        return len(header)

    def append(self, seq: int, change: Change) -> int:
        """Adds one change and waits until it is on disk; returns the new size. Raises OSError; then nothing stays."""
        line = _line({"seq": seq, "rows": [list(row) for row in change.rows], "delete": list(change.delete)})
        with self.path.open("ab") as file:
            before_bytes = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, before_bytes)
                raise
        return before_bytes + len(line)

    def cut(self, size_bytes: int) -> None:
        """Removes what comes after `size_bytes`."""
        with self.path.open("rb+") as file:
            file.truncate(size_bytes)
            os.fsync(file.fileno())

    def read(self) -> JournalContents | None:
        """What can be trusted; None where not even the header can. Raises OSError, except for a missing file."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        records = _records(content)
        header, end = next(records, ({}, 0))
        if header.get("journal") != _FORMAT or not isinstance(header.get("after_seq"), int):
            return None
        changes: list[Change] = []
        for record, next_end in records:
            if record.get("seq") != header["after_seq"] + len(changes) + 1:
                break
            rows = tuple((str(table), row) for table, row in record["rows"])
            changes.append(Change(rows, tuple(record["delete"])))
            end = next_end
        return JournalContents(header["after_seq"], tuple(changes), end)


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    return f"{zlib.crc32(text):0{_CRC_CHARS}x} ".encode() + text + b"\n"


def _records(content: bytes) -> Iterator[tuple[dict[str, Any], int]]:
    """Every trusted record with the offset where its line ends, up to the first one that is not."""
    at = 0
    while (end := content.find(b"\n", at)) >= 0:
        text = content[at + _CRC_CHARS + 1 : end]
        if content[at : at + _CRC_CHARS + 1] != f"{zlib.crc32(text):0{_CRC_CHARS}x} ".encode():
            return
        at = end + 1
        yield json.loads(text), at
