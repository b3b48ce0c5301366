"""The last lines of what a program says, read in a thread.

Programs write a line in several pieces, and tens of lines for a request. Between two readings there is a rest, so that
this process is not woken for each piece just when the program computes on all cores.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from contextlib import suppress
from typing import IO

_REST_S = 0.05
_ARRIVES_S = 0.003
_BLOCK_BYTES = 64 * 1024
_MOST_LINE_BYTES = 4000


class ProgramLog:
    """Of a program whose `source` this is, `most_lines` of it. Longer lines are cut into several."""

    def __init__(self, source: IO[bytes], most_lines: int) -> None:
        self._source = source
        self._lines: collections.deque[str] = collections.deque(maxlen=most_lines)
        self._lock = threading.Lock()
        self._hurried = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """What has been said so far."""
        if self._thread.is_alive():
            self._hurried.set()
            time.sleep(_ARRIVES_S)
            self._hurried.clear()
        with self._lock:
            return list(self._lines)

    def until(self, words: str, timeout_s: float) -> list[str]:
        """The lines so far, once one has `words`; what there is when that takes too long."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            lines = self.lines()
            if any(words in line for line in lines) or time.monotonic() >= deadline_s or not self._thread.is_alive():
                return lines

    def join(self, timeout_s: float) -> None:
        """Waits for the end of what is said."""
        self._hurried.set()
        self._thread.join(timeout_s)

    def _read(self) -> None:
        rest = b""
        with suppress(ValueError, OSError):
            while data := os.read(self._source.fileno(), _BLOCK_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _MOST_LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                self._keep(lines)
                self._hurried.wait(_REST_S)
        self._keep([rest] if rest else [])

    def _keep(self, lines: list[bytes]) -> None:
        pieces = [
            line[at : at + _MOST_LINE_BYTES] for line in lines for at in range(0, len(line) or 1, _MOST_LINE_BYTES)
        ]
        with self._lock:
            self._lines.extend(piece.decode("utf-8", "replace").rstrip() for piece in pieces)
