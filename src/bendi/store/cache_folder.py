"""A folder of things that can be made again: found by a key, bounded, and as good as not there when damaged.

One file per thing: a line of JSON (with the hash of the rest), then the rest. Writers may be several at once, and so
may readers: a file is replaced as a whole. What was not used for longest is deleted. Nothing here fails: a cache that
cannot be used is no reason not to answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from bendi.errors import StoreError
from bendi.formats.json_scan import bounded_json
from bendi.store.blocks import PIECE_BYTES
from bendi.store.disk import write_atomic
from bendi.units import MIB

MAX_LINE_BYTES = MIB
T = TypeVar("T")


@dataclass(frozen=True)
class CacheLimits:
    """What a folder may hold: bytes in all, bytes of one body, files."""

    total_bytes: int
    body_bytes: int
    files: int = 2**14


class Body:
    """What stands behind the line, to be taken from front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def pieces(self, size_bytes: int) -> Iterator[bytes]:
        """The next `size_bytes`, a little at a time. Raises ValueError when there is less."""
        while size_bytes > 0:
            piece = self._file.read(min(size_bytes, PIECE_BYTES))
            if not piece:
                raise ValueError(size_bytes)
            self._digest.update(piece)
            size_bytes -= len(piece)
            yield piece

    def finish(self, sha256: object) -> None:
        """Raises ValueError unless all was taken and is what was written."""
        if self._file.read(1) or self._digest.hexdigest() != sha256:
            raise ValueError(sha256)


class CacheFolder:
    """The files `KEY` + `suffix` in `folder`. `version`: what readers of today can read."""

    def __init__(self, folder: Path, suffix: str, version: int, limits: CacheLimits) -> None:
        self._folder, self._suffix, self._version, self._limits = folder, suffix, version, limits

    def load(self, key: str, unpack: Callable[[Mapping[str, object], Body], T | None]) -> T | None:
        """What `unpack` makes of the line and all of the body kept under `key`; None when there is nothing.

        `unpack` raises ValueError, KeyError or TypeError for what is damaged, which is then deleted; it returns None
        for what is sound and of no use.
        """
        path = self._path(key)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > self._limits.body_bytes + MAX_LINE_BYTES:
                    raise ValueError(path)
                head = bounded_json(file.readline(MAX_LINE_BYTES + 1), MAX_LINE_BYTES)
                if not isinstance(head, dict) or head["version"] != self._version:
                    raise ValueError(path)
                body = Body(file)
                found = unpack(head, body)
                if found is None:
                    return None
                body.finish(head["sha256"])
        except (FileNotFoundError, StoreError):
            return None
        except (OSError, ValueError, KeyError, TypeError):
            self.forget(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def save(self, key: str, head: Mapping[str, object], body: Callable[[], Iterable[bytes]]) -> None:
        """Keeps `head` and the pieces that each call of `body` gives."""
        with contextlib.suppress(StoreError, OSError):
            digest = hashlib.sha256()
            for piece in body():
                digest.update(piece)
            line = json.dumps({"version": self._version, **head, "sha256": digest.hexdigest()})
            write_atomic(self._path(key), _all(line.encode() + b"\n", body()))
            self._prune()

    def forget(self, key: str) -> None:
        """Deletes what is kept under `key`."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{self._suffix}"

    def _prune(self) -> None:
        """Deletes what was not used for longest until the rest is within the limits."""
        kept = sorted(
            ((status.st_mtime, status.st_size, path) for path in self._folder.iterdir() for status in (path.stat(),)),
            reverse=True,
        )
        total_bytes = 0
        for count, (_moment, size_bytes, path) in enumerate(kept, 1):
            total_bytes += size_bytes
            if total_bytes > self._limits.total_bytes or count > self._limits.files:
                path.unlink(missing_ok=True)


def _all(first: bytes, others: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
