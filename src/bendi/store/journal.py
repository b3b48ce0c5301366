"""A file on its way: `<file>.part` with the bytes, `<file>.part.json` with which of them are there.

The journal never claims a byte that the disk does not have: the data is synced before the journal is replaced. What
the journal belongs to (hash, or URL with its validator) is written in it, so bytes of two versions are never mixed.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bendi.errors import StoreError
from bendi.formats.json_scan import bounded_json_file
from bendi.store.disk import make_folder, store_error, write_atomic
from bendi.store.names import is_sha256

FORMAT = 1
Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of bytes, ascending, neither overlapping nor touching."""


@dataclass(frozen=True)
class Identity:
    """What makes two downloads the same bytes: a hash, or a URL with a validator of its server."""

    url: str
    size_bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    etag: str | None = None
    last_modified: str | None = None

    @property
    def has_hash(self) -> bool:
        return bool(self.sha256 or self.git_sha1)

    @property
    def resumable(self) -> bool:
        """Whether bytes of an earlier connection can be trusted to be of the same file."""
        return self.has_hash or bool(self.etag or self.last_modified)

    def same_bytes(self, other: Identity) -> bool:
        """Whether `other` names the same bytes for certain."""
        if self.has_hash or other.has_hash:
            return (self.sha256, self.git_sha1, self.size_bytes) == (other.sha256, other.git_sha1, other.size_bytes)
        return self.resumable and self == other


def add_range(ranges: Ranges, start: int, end: int) -> Ranges:
    """`ranges` with [start, end) in them, merged."""
    if start >= end:
        return ranges
    first = bisect_left(ranges, start, key=lambda item: item[1])
    last = first
    while last < len(ranges) and ranges[last][0] <= end:
        start, end = min(start, ranges[last][0]), max(end, ranges[last][1])
        last += 1
    return (*ranges[:first], (start, end), *ranges[last:])


def missing_ranges(ranges: Ranges, size_bytes: int, piece_bytes: int) -> list[tuple[int, int]]:
    """What of [0, size_bytes) is not in `ranges`, in pieces of at most `piece_bytes`, ascending."""
    gaps: list[tuple[int, int]] = []
    position = 0
    for start, end in (*ranges, (size_bytes, size_bytes)):
        while position < min(start, size_bytes):
            stop = min(position + piece_bytes, start, size_bytes)
            gaps.append((position, stop))
            position = stop
        position = max(position, end)
    return gaps


def total_bytes(ranges: Ranges) -> int:
    return sum(end - start for start, end in ranges)


class PartFile:
    """The open `.part` file and its journal. Thread safe. Raises StoreError where the disk does, `write` OSError.

    `resumed`: bytes of an earlier run are in it. `sha256`: set once all of it has been verified.
    """

    def __init__(self, target: Path, identity: Identity) -> None:
        self.path = part_path(target)
        self.journal_path = journal_path(target)
        self.identity = identity
        self.resumed = False
        self.sha256: str | None = None
        self._lock = threading.Lock()
        self._ranges: Ranges = ()
        self._generation = 0
        make_folder(target.parent)
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self.path, flags | getattr(os, "O_CLOEXEC", 0), 0o644)
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
            self._resume()
        except OSError as error:
            raise store_error(error, self.path) from error

    def _resume(self) -> None:
        there = read_journal(self.journal_path)
        length_bytes = os.fstat(self._file.fileno()).st_size
        if there is None or not there.identity.same_bytes(self.identity):
            self._file.truncate(0)
            self.journal_path.unlink(missing_ok=True)
            return
        limit = length_bytes if self.identity.size_bytes is None else min(length_bytes, self.identity.size_bytes)
        self._file.truncate(limit)
        for start, end in there.ranges:
            self._ranges = add_range(self._ranges, start, min(end, limit))
        self.resumed = bool(self._ranges)
        self.sha256 = there.sha256 if self.complete else None

    @property
    def done_bytes(self) -> int:
        return total_bytes(self._ranges)

    @property
    def generation(self) -> int:
        """Counts the restarts: a block of an earlier generation is of another file and is not written."""
        return self._generation

    @property
    def complete(self) -> bool:
        return self.identity.size_bytes is not None and self._ranges == ((0, self.identity.size_bytes),)

    def missing(self, piece_bytes: int, claimed: Iterable[tuple[int, int]] = ()) -> list[tuple[int, int]]:
        """What is neither there nor in `claimed`, in pieces; the size must be known."""
        assert self.identity.size_bytes is not None
        with self._lock:
            ranges = self._ranges
        for start, end in claimed:
            ranges = add_range(ranges, start, end)
        return missing_ranges(ranges, self.identity.size_bytes, piece_bytes)

    def write(self, generation: int, offset: int, block: bytes) -> bool:
        """Puts `block` at `offset`. False, and nothing written, when a restart has happened since `generation`."""
        with self._lock:
            if generation != self._generation:
                return False
            view = memoryview(block)
            self._file.seek(offset)
            while view:
                written = self._file.write(view)
                self._ranges = add_range(self._ranges, offset, offset + written)
                offset, view = offset + written, view[written:]
            return True

    def restart(self, identity: Identity) -> None:
        """Forgets every byte: the file over there is another one now, or cannot be continued."""
        with self._lock:
            self._generation += 1
            self._ranges = ()
            self.identity = identity
            self.resumed, self.sha256 = False, None
            try:
                self._file.truncate(0)
                self.journal_path.unlink(missing_ok=True)
            except OSError as error:
                raise store_error(error, self.path) from error

    def learn(self, identity: Identity) -> None:
        """Takes over what the first answer told (size, validator)."""
        with self._lock:
            self.identity = identity

    def save(self, sha256: str | None = None) -> None:
        """Makes what has arrived survive a crash. `sha256`: the hash that was found when all of it was verified.

        A journal that cannot be written (full disk) is no error: the older one stays valid, and claims less.
        """
        with self._lock:
            ranges, identity = self._ranges, self.identity
            self.sha256 = sha256
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise store_error(error, self.path) from error
        if identity.resumable:
            try:
                write_atomic(self.journal_path, _encode(identity, ranges, sha256))
            except StoreError:
                if sha256:
                    raise

    def close(self) -> None:
        self._file.close()

    def delete(self) -> None:
        """Removes the part and its journal."""
        self.close()
        remove_part(self.path.with_name(self.path.name.removesuffix(".part")))


@dataclass(frozen=True)
class Journal:
    identity: Identity
    ranges: Ranges
    sha256: str | None


def part_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def journal_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def remove_part(target: Path) -> None:
    """Removes what an unfinished download of `target` left. Raises StoreError."""
    for path in (journal_path(target), part_path(target)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, path) from error


def read_journal(path: Path) -> Journal | None:
    """The journal at `path`; None when there is none or it cannot be trusted."""
    try:
        record: Any = bounded_json_file(path)
        if record["format"] != FORMAT:
            return None
        identity = Identity(**record["identity"])
        ranges: Ranges = ()
        for start, end in record["done"]:
            if not 0 <= int(start) < int(end):
                return None
            ranges = add_range(ranges, int(start), int(end))
        verified = record["verified_sha256"]
        return Journal(identity, ranges, verified if is_sha256(verified) else None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def arrived_bytes(target: Path) -> int:
    """How much of an unfinished download of `target` is on the disk and known to be good."""
    journal = read_journal(journal_path(target))
    return total_bytes(journal.ranges) if journal and part_path(target).is_file() else 0


def _encode(identity: Identity, ranges: Ranges, sha256: str | None) -> bytes:
    record = {"format": FORMAT, "identity": asdict(identity), "done": ranges, "verified_sha256": sha256}
    return json.dumps(record, indent=1).encode("utf-8")
