"""Whether this machine has its cores and its memory to itself right now.

Neighbours of a virtual machine, other programs and heat take speed away for seconds or minutes. Two short pieces of
fixed work on all threads, done beside a measurement, show it.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

from bendi.engines.bandwidth import MemoryReader
from bendi.units import MIB

_ROUNDS = 5
_AREAS_BYTES = 128 * MIB


class Look(NamedTuple):
    """How long the two pieces of work took: the best of a few rounds, so that single interruptions do not count."""

    compute_s: float
    memory_s: float


_DISTURBED = Look(1.12, 1.3)
"""Where two threads have to share one core, computing takes 1.3 times as long (and engines up to 1.9 times)."""


class Pace:
    """The work, on `threads` threads, and how long it took so far."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._piece = bytes(2 * MIB)
        self._reader = MemoryReader(threads, _AREAS_BYTES // threads)
        self._looks: list[Look] = []
        for _look in range(4):
            self.look()

    def look(self) -> Look:
        """How long the work takes now."""
        compute_s = float("inf")
        with ThreadPoolExecutor(self._threads) as pool:
            for _round in range(_ROUNDS):
                started_s = time.perf_counter()
                list(pool.map(hashlib.sha256, [self._piece] * self._threads))
                compute_s = min(compute_s, time.perf_counter() - started_s)
        look = Look(compute_s, self._reader.seconds(_ROUNDS))
        self._looks.append(look)
        return look

    def slowness(self, *looks: Look) -> float:
        """Of the worst of them: above 1 something else was running. Computing is compared with the best so far, memory,
        whose speed wavers both ways, with the median."""
        compute_s = min(look.compute_s for look in self._looks) * _DISTURBED.compute_s
        memory_s = median(look.memory_s for look in self._looks) * _DISTURBED.memory_s
        return max(max(look.compute_s / compute_s, look.memory_s / memory_s) for look in looks)
