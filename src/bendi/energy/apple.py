"""Apple's processors: the counters that macOS keeps without root (IOReport), through the package zeus-apple-silicon.

They come from a model in the hardware, and see the chip only. Untried on a real machine.
"""

from __future__ import annotations

import time
from typing import Any

from bendi.energy.meter import Clock, Counter, Meter, MeterFacts, MeterFailed, Sample, read_at
from bendi.lazy import lazily

REFRESH_S = 0.1
_PARTS = (
    ("cpu_total_mj", "cpu"),
    ("gpu_mj", "gpu"),
    ("gpu_sram_mj", "gpu"),
    ("dram_mj", "dram"),
    ("ane_mj", "neural engine"),
)
"""Disjoint parts, and what they are called here. What the library tells of cores and clusters is in the first."""
_MOST_W = 500.0


def apple_library() -> Any:
    """The package, or None where it is not installed."""
    try:
        return lazily("zeus_apple_silicon")
    except ImportError:
        return None


def find_apple(library: Any, clock: Clock = time.monotonic) -> tuple[Meter | None, str]:
    """A meter of the chip, or None and the reason. `library`: `apple_library()`."""
    if library is None:
        return None, "apple_library_missing"
    try:
        monitor = library.AppleEnergyMonitor()
        meter = _Chip(monitor, clock)
        meter.sample()
    except (RuntimeError, AttributeError, MeterFailed):
        return None, "unreadable"
    return meter, ""


class _Chip:
    def __init__(self, monitor: Any, clock: Clock) -> None:
        self._monitor, self._clock = monitor, clock
        self._counter = Counter(None)
        now = monitor.get_cumulative_energy()
        self._names = [name for name, _part in _PARTS if getattr(now, name, None) is not None]
        self.facts = MeterFacts(
            name="apple",
            tier="counter",
            covers=tuple(dict.fromkeys(part for name, part in _PARTS if name in self._names)),
            counter_refresh_s=REFRESH_S,
            most_w=_MOST_W,
            flags=("modelled",),
        )

    def sample(self) -> Sample:
        time_s, energy_mj = read_at(self._clock, self._energy_mj)
        return Sample(time_s, self._counter.add(time_s, energy_mj / 1000), None, self._counter.resets)

    def close(self) -> None:
        """The library lets go by itself."""

    def _energy_mj(self) -> float:
        try:
            now = self._monitor.get_cumulative_energy()
        except RuntimeError as error:
            raise MeterFailed("unreadable") from error
        values = [getattr(now, name, None) for name in self._names]
        known = [float(value) for value in values if value is not None]
        if not known or len(known) < len(values):
            raise MeterFailed("unreadable")
        return sum(known)
