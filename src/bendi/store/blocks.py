"""Parts of a remote file that are here. They lie in a file without a name, not in memory: a header may take 64 MiB, and
nearly all of it is walked over once.

The system deletes that file when it is closed or the process ends, however it ends.
"""

from __future__ import annotations

import io
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from bendi.errors import StoreError
from bendi.store.disk import make_folder, store_error
from bendi.units import KIB, MIB

MEMORY_BYTES = MIB
"""Most headers are smaller, and no file is made for them."""
PIECE_BYTES = 256 * KIB


class Spool:
    """Bytes put aside, each piece at a place of its own. A context manager; safe to use from threads.

    `folder`: where the file is made once there is more than memory should hold; where that cannot be, and without a
    folder, the system's place for temporary files. Raises StoreError when there is no room.
    """

    def __init__(self, folder: Path | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self._folder, self._memory_bytes = folder, memory_bytes
        self._lock = threading.Lock()
        self._file: IO[bytes] = io.BytesIO()
        self._in_memory = True
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, piece: bytes | bytearray) -> int:
        """Puts `piece` aside; returns its place."""
        with self._lock:
            if self._in_memory and self._end + len(piece) > self._memory_bytes:
                self._move_out()
            place = self._end
            self._write(self._file, place, piece)
            self._end += len(piece)
        return place

    def read(self, place: int, size_bytes: int) -> bytes:
        """What was put aside at `place`."""
        with self._lock:
            try:
                self._file.seek(place)
                return self._file.read(size_bytes)
            except OSError as error:
                raise store_error(error, self._where()) from error

    def _move_out(self) -> None:
        kept = self._file
        kept.seek(0)
        file = self._temporary()
        try:
            self._write(file, 0, kept.read())
        except BaseException:
            file.close()
            raise
        kept.close()
        self._file, self._in_memory = file, False

    def _temporary(self) -> IO[bytes]:
        if self._folder is not None:
            try:
                make_folder(self._folder)
                return tempfile.TemporaryFile(dir=self._folder, prefix=".headers.", suffix=".tmp")
            except (OSError, StoreError):
                self._folder = None  # a cache that cannot be used is no reason not to answer
        try:
            return tempfile.TemporaryFile(prefix="bendi-headers.")
        except OSError as error:
            raise store_error(error, self._where()) from error

    def _write(self, file: IO[bytes], place: int, piece: bytes | bytearray) -> None:
        try:
            file.seek(place)
            file.write(piece)
            file.flush()
        except OSError as error:
            raise store_error(error, self._where()) from error

    def _where(self) -> Path:
        return self._folder or Path(tempfile.gettempdir())


class Blocks:
    """Parts of one file that are here, by their offset. They never overlap. Their bytes are in `spool`."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._starts: list[int] = []
        self._spans: list[tuple[int, int]] = []
        """Length of each, and its place in the spool."""

    def __len__(self) -> int:
        return len(self._starts)

    def spans(self) -> list[tuple[int, int]]:
        """(offset, length) of each part."""
        return [(start, length) for start, (length, _place) in zip(self._starts, self._spans, strict=True)]

    def pieces(self) -> Iterator[bytes]:
        """The bytes of all parts, one part after the other, a little at a time."""
        for length, place in self._spans:
            for at in range(0, length, PIECE_BYTES):
                yield self._spool.read(place + at, min(PIECE_BYTES, length - at))

    def add(self, start: int, block: bytes | bytearray) -> None:
        """Keeps `block`, which lies at `start` in the file and where nothing was known."""
        place = self._spool.append(block)
        index = bisect_right(self._starts, start)
        if index:
            length, before = self._spans[index - 1]
            if (self._starts[index - 1] + length, before + length) == (start, place):
                # A server may send it byte by byte.
                self._spans[index - 1] = (length + len(block), before)
                return
        self._starts.insert(index, start)
        self._spans.insert(index, (len(block), place))

    def fill(self, start: int, block: bytes) -> None:
        """Keeps what is not known yet of `block`, which lies at `start` in the file."""
        end = start + len(block)
        gap = self.gap(start, end)
        while gap is not None:
            self.add(gap[0], block[gap[0] - start : gap[1] - start])
            gap = self.gap(gap[1], end)

    def gap(self, start: int, end: int) -> tuple[int, int] | None:
        """(start, end) of the first part of a range that is not here; `end` may be where a known block begins."""
        for index in range(max(bisect_right(self._starts, start) - 1, 0), len(self._starts)):
            first, length = self._starts[index], self._spans[index][0]
            if first + length <= start:
                continue
            if first > start:
                return (start, min(end, first)) if start < end else None
            start = first + length
            if start >= end:
                return None
        return (start, end) if start < end else None

    def around(self, offset: int) -> tuple[int, int | None]:
        """Where the last block before `offset` ends (0 without one), and where the next one begins."""
        index = bisect_right(self._starts, offset)
        before = self._starts[index - 1] + self._spans[index - 1][0] if index else 0
        return before, self._starts[index] if index < len(self._starts) else None

    def read(self, start: int, end: int) -> bytes:
        """The bytes of a range that is here without a gap."""
        pieces = []
        for index in range(max(bisect_right(self._starts, start) - 1, 0), len(self._starts)):
            first, (length, place) = self._starts[index], self._spans[index]
            if first >= end:
                break
            skipped = max(start - first, 0)
            wanted = min(end - first, length) - skipped
            if wanted > 0:
                pieces.append(self._spool.read(place + skipped, wanted))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
