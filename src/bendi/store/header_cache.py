"""Headers that were read from afar, kept so that a second look costs nothing.

One file per model file, `headers/<key>.head` in the cache folder: a line of JSON (size of the model file, offset and
length of each block, hash of the rest), then the blocks. What is damaged is as good as not there. The folder is kept
below a limit by deleting what was not used for longest. Nothing here fails: a cache that cannot be used is no reason
not to answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from bendi.errors import StoreError
from bendi.formats.json_scan import bounded_json
from bendi.store.disk import write_atomic
from bendi.store.http_source import MAX_RECEIVED_BYTES, Blocks
from bendi.store.names import is_sha256
from bendi.store.remote import RemoteFile
from bendi.units import MIB

MAX_CACHE_BYTES = 256 * MIB
_MAX_LINE_BYTES = MIB
_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """What is kept of a file: its size and some of its blocks."""

    size_bytes: int
    blocks: Blocks


def file_key(file: RemoteFile) -> str | None:
    """What names the bytes of `file` for ever: its hash, or its address with a validator. None: nothing does."""
    if file.sha256 is not None and is_sha256(file.sha256):
        return file.sha256
    identity = file.git_sha1 or file.etag or file.last_modified
    return None if identity is None else address_key(json.dumps([file.url, file.size_bytes, identity]))


def address_key(address: str) -> str:
    """A key for what lies at `address`, which must never mean anything else."""
    return f"url-{hashlib.sha256(address.encode()).hexdigest()}"


class HeaderCache:
    """The headers below `folder`, at most `limit_bytes` of them. The key None stands for what cannot be kept."""

    def __init__(self, folder: Path, limit_bytes: int = MAX_CACHE_BYTES) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes

    def load(self, key: str | None) -> Kept | None:
        """What is kept under `key`; None when there is nothing, or it is damaged."""
        if key is None:
            return None
        path = self._path(key)
        try:
            if path.stat().st_size > MAX_RECEIVED_BYTES + _MAX_LINE_BYTES:
                raise ValueError
            line, _newline, body = path.read_bytes().partition(b"\n")
            kept = _unpacked(bounded_json(line, _MAX_LINE_BYTES), body)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            self.forget(key)
            return None
        return kept

    def save(self, key: str | None, kept: Kept) -> None:
        """Keeps blocks of a file."""
        if key is None:
            return
        body = b"".join(block for _start, block in kept.blocks)
        line = json.dumps({
            "version": _VERSION,
            "size_bytes": kept.size_bytes,
            "blocks": [[start, len(block)] for start, block in kept.blocks],
            "sha256": hashlib.sha256(body).hexdigest(),
        })  # fmt: skip
        with contextlib.suppress(StoreError, OSError):
            write_atomic(self._path(key), line.encode() + b"\n" + body)
            self._prune()

    def forget(self, key: str | None) -> None:
        """Deletes what is kept under `key`."""
        if key is not None:
            with contextlib.suppress(OSError):
                self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.head"

    def _prune(self) -> None:
        """Deletes what was not used for longest until the rest is within the limit."""
        kept = sorted(
            ((status.st_mtime, status.st_size, path) for path in self._folder.iterdir() for status in (path.stat(),)),
            reverse=True,
        )
        total_bytes = 0
        for _moment, size_bytes, path in kept:
            total_bytes += size_bytes
            if total_bytes > self._limit_bytes:
                path.unlink(missing_ok=True)


def _unpacked(head: object, body: bytes) -> Kept:
    """The contents of a file of the cache. Raises ValueError, KeyError or TypeError when it is damaged."""
    if not isinstance(head, dict) or head["version"] != _VERSION or not isinstance(head["size_bytes"], int):
        raise ValueError
    if hashlib.sha256(body).hexdigest() != head["sha256"]:
        raise ValueError
    blocks = Blocks()
    at = end = 0
    for start, length in head["blocks"]:
        if not end <= start or length <= 0:
            raise ValueError
        blocks.add(start, body[at : at + length])
        at, end = at + length, start + length
    if at != len(body) or end > head["size_bytes"]:
        raise ValueError
    return Kept(head["size_bytes"], blocks)
