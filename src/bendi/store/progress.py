"""How far something has come that takes long: bytes, rate, time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["download", "check"]


@dataclass(frozen=True)
class Progress:
    """Where a pull is. `total_bytes`, `eta_s`: None while unknown. `phase`: bytes are loaded, or checked."""

    done_bytes: int
    total_bytes: int | None
    rate_bytes_s: float
    eta_s: float | None
    phase: Phase
    file: str


class Meter:
    """Turns bytes into Progress: the rate is that of the last seconds, and what an earlier run left does not count."""

    WINDOW_S = 8.0

    def __init__(self, total_bytes: int | None, on_progress: Callable[[Progress], None]) -> None:
        self.total_bytes, self._on_progress = total_bytes, on_progress
        self._points: deque[tuple[float, int]] = deque()
        self._phase = ""

    def show(self, done_bytes: int, file: str, phase: Phase = "download") -> None:
        now_s = time.monotonic()
        if phase != self._phase or (self._points and done_bytes < self._points[-1][1]):
            self._points.clear()
        self._phase = phase
        self._points.append((now_s, done_bytes))
        while len(self._points) > 2 and now_s - self._points[0][0] > self.WINDOW_S:
            self._points.popleft()
        elapsed_s = now_s - self._points[0][0]
        rate = (done_bytes - self._points[0][1]) / elapsed_s if elapsed_s > 0 else 0.0
        left_bytes = None if self.total_bytes is None else max(0, self.total_bytes - done_bytes)
        eta_s = None if left_bytes is None or rate <= 0 else left_bytes / rate
        self._on_progress(Progress(done_bytes, self.total_bytes, rate, eta_s, phase, file))
