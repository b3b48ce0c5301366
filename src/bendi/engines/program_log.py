"""The last lines of what a program says, read in a thread.

Programs write a line in several pieces, and tens of lines for a request. What is said lies in the pipe for a while
before it is read, so that this process is not woken for each piece just when the program computes on all cores. Who
asks reads what there is.
"""

from __future__ import annotations

import collections
import os
import select
import sys
import threading
import time
from contextlib import suppress
from typing import IO

_REST_S = 0.1
"""A program that says more than a pipe holds in so long waits: 64 KiB, where small models that answer 45 requests a
second say 11."""
_WIDE_REST_S = 0.5
"""The same where the pipe holds _WIDE_BYTES."""
_WIDE_BYTES = 1024 * 1024
"""What Linux lets anybody have; it takes memory for what lies in it only."""
_BLOCK_BYTES = 64 * 1024
_MOST_BLOCKS = 64
_MOST_LINE_BYTES = 4000


class ProgramLog:
    """Of a program whose `source` this is, `most_lines` of it. Longer lines are cut into several. `rest_s`: how long
    what is said may lie in the pipe."""

    def __init__(self, source: IO[bytes], most_lines: int) -> None:
        self._source = source
        self._lines: collections.deque[str] = collections.deque(maxlen=most_lines)
        self._lock = threading.Lock()
        self._rest = b""
        self.rest_s = _WIDE_REST_S if _widened(source) else _REST_S
        self._ended, self._hurried = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """What has been said so far."""
        with self._lock:
            self._read_what_is_there()
            return list(self._lines)

    def until(self, words: str, timeout_s: float) -> list[str]:
        """The lines so far, once one has `words`; what there is when that takes too long."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            lines = self.lines()
            if any(words in line for line in lines) or time.monotonic() >= deadline_s or self._ended.is_set():
                return lines
            time.sleep(0.001)

    def join(self, timeout_s: float) -> None:
        """Waits for the end of what is said."""
        self._hurried.set()
        self._thread.join(timeout_s)

    def _read(self) -> None:
        while not self._ended.is_set():
            if sys.platform == "win32":
                data = self._block()
                with self._lock:
                    self._keep(data)
                continue
            self._there(None)
            self._hurried.wait(self.rest_s)
            with self._lock:
                self._read_what_is_there()

    def _read_what_is_there(self) -> None:
        # Bounded, should the program say more than can be read.
        for _block in range(_MOST_BLOCKS):
            if not self._there(0):
                break
            self._keep(self._block())

    def _there(self, seconds: float | None) -> bool:
        """Whether there is something to read, or the end, within so many seconds (None: any time)."""
        if sys.platform == "win32" or self._ended.is_set():
            return False  # pipes cannot be asked there: the thread reads them as they come
        with suppress(ValueError, OSError):
            poll = select.poll()
            poll.register(self._source.fileno(), select.POLLIN)
            return bool(poll.poll(None if seconds is None else 1000 * seconds))
        return True

    def _block(self) -> bytes:
        """What there is, waiting for it; nothing at the end."""
        with suppress(ValueError, OSError):
            return os.read(self._source.fileno(), _BLOCK_BYTES)
        return b""

    def _keep(self, data: bytes) -> None:
        if data:
            *lines, self._rest = (self._rest + data).split(b"\n")
            while len(self._rest) > _MOST_LINE_BYTES:
                lines.append(self._rest[:_MOST_LINE_BYTES])
                self._rest = self._rest[_MOST_LINE_BYTES:]
        else:
            lines = [self._rest] if self._rest else []
            self._ended.set()
        for line in lines:
            for at in range(0, len(line) or 1, _MOST_LINE_BYTES):
                self._lines.append(line[at : at + _MOST_LINE_BYTES].decode("utf-8", "replace").rstrip())


def _widened(source: IO[bytes]) -> bool:
    """Whether it is a pipe that now holds _WIDE_BYTES."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        return fcntl.fcntl(source.fileno(), fcntl.F_SETPIPE_SZ, _WIDE_BYTES) >= _WIDE_BYTES
    except OSError:  # one user's pipes hold so much only, all together
        return False
