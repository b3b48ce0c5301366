"""The time of day. It may be wrong when the server starts, and may be set at any time: nothing but dates comes from it
here, and no decision about age before it has gone evenly for a while."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_TRUSTED_AFTER_S = 3600.0
"""A wrong clock is usually set right within minutes after the network is there."""
_TOLERANCE_S = 60.0


def day_s() -> float:
    """Seconds since 1970, as the system says."""
    return time.time()


def steady_s() -> float:
    """Seconds that nobody can set, those asleep included where the system counts them."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class WallClock:
    """`day`, `steady`: the clocks that it reads. Used by one thread at a time."""

    def __init__(self, day: Callable[[], float] = day_s, steady: Callable[[], float] = steady_s) -> None:
        self._day, self._steady = day, steady
        self._even_since_s = steady()
        self._offset_s = day() - self._even_since_s

    def now_s(self) -> float:
        """Seconds since 1970, right or not."""
        return self._day()

    def trusted(self) -> bool:
        """Whether it has gone evenly for an hour: then it was not set, and what it says of ages is believed."""
        now_s = self._steady()
        offset_s = self._day() - now_s
        if abs(offset_s - self._offset_s) > _TOLERANCE_S:
            self._offset_s, self._even_since_s = offset_s, now_s
        return now_s - self._even_since_s >= _TRUSTED_AFTER_S
