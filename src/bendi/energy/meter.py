"""What a meter is: something that can be read at any time, and tells energy since some beginning, or power, or both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from bendi.results import Tier

Clock = Callable[[], float]
"""Seconds that never go back; `time.monotonic`, but for tests."""


class MeterFailed(Exception):
    """A reading could not be had. `reason`: a code of `reasons`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading. `time_s`: monotonic, the middle of the time that reading took. `energy_j`: since some beginning,
    with wrap-around taken out. `power_w`: now. `resets`: how often the counter has begun anew; energy must not be
    compared where it differs."""

    time_s: float
    energy_j: float | None = None
    power_w: float | None = None
    resets: int = 0


@dataclass(frozen=True)
class MeterFacts:
    """What is known of a meter.

    `covers`: as in `results.Energy`. `period_s`: how often it is to be read. `counter_refresh_s`, `power_refresh_s`:
    how often the hardware has a new value; None where it has no such value. `prefers`: which of both the energy is
    taken from; the other one is the cross-check. `counter_step_j`: the smallest step of the counter. `averaged_s`: the
    power shown is the mean of so many seconds. `least_w`, `most_w`: outside of these a mean power cannot be. `idle_w`:
    known beforehand, of declared figures. `flags`: what makes every figure of this meter doubtful.
    """

    name: str
    tier: Tier
    covers: tuple[str, ...]
    period_s: float = 0.1
    counter_refresh_s: float | None = None
    power_refresh_s: float | None = None
    prefers: Literal["counter", "power"] = "counter"
    counter_step_j: float = 0.0
    averaged_s: float = 0.0
    least_w: float = 0.0
    most_w: float = math.inf
    idle_w: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def refresh_s(self) -> float:
        """Of the value that the energy is taken from."""
        return (self.counter_refresh_s if self.prefers == "counter" else self.power_refresh_s) or 0.0

    @property
    def rows(self) -> tuple[MeterFacts, ...]:
        """What this meter is shown as: where a counter has power beside it, that is a row of its own, of a lower tier.
        It is what studies have that read power, so both can be compared."""
        if self.prefers == "power" or self.counter_refresh_s is None or self.power_refresh_s is None:
            return (self,)
        beside = replace(
            self, name=f"{self.name} power", tier="sampled", prefers="power", counter_refresh_s=None, counter_step_j=0.0
        )
        return (self, beside)


class Meter(Protocol):
    """Read by one thread at a time."""

    @property
    def facts(self) -> MeterFacts: ...

    def sample(self) -> Sample:
        """Raises MeterFailed; later calls may succeed."""

    def close(self) -> None: ...


class Counter:
    """Takes wrap-around out of the raw values of a counter of energy, and notices when it begins anew.

    `range_j`: where it wraps; None: it never does, so that a smaller value means a new beginning. `most_w`: more than
    the hardware can use. `refresh_s`: how old a value may be.
    """

    def __init__(self, range_j: float | None = None, most_w: float = math.inf, refresh_s: float = 0.0) -> None:
        self._range_j, self._most_w, self._refresh_s = range_j, most_w, refresh_s
        self._last: tuple[float, float] | None = None
        self.energy_j = 0.0
        self.resets = 0

    def add(self, time_s: float, raw_j: float) -> float:
        """The energy since some beginning. After a new beginning it goes on from where it was, with `resets` larger."""
        if self._last is None:
            self._last, self.energy_j = (time_s, raw_j), raw_j
            return raw_j
        last_s, last_j = self._last
        self._last = time_s, raw_j
        passed_s = time_s - last_s
        used_j = raw_j - last_j
        if used_j < 0 and self._range_j is not None:
            used_j += self._range_j
            # A counter that was set to zero looks like one that wrapped, only that far too much was used meanwhile.
            if used_j > self._most_w * (passed_s + 2 * self._refresh_s):
                used_j = -1.0
        if self._range_j is not None and math.isfinite(self._most_w) and passed_s * self._most_w >= self._range_j:
            used_j = -1.0  # it may have wrapped more than once
        if used_j < 0:
            self.resets += 1
        else:
            self.energy_j += used_j
        return self.energy_j


class SummedMeter:
    """Several meters of one kind as one: all GPUs, all packages. Where one of them fails, the sum is not known."""

    def __init__(self, facts: MeterFacts, parts: Sequence[Meter]) -> None:
        self._facts, self._parts = facts, tuple(parts)

    @property
    def facts(self) -> MeterFacts:
        return self._facts

    def sample(self) -> Sample:
        samples = [part.sample() for part in self._parts]
        return Sample(
            time_s=sum(each.time_s for each in samples) / len(samples),
            energy_j=_sum([each.energy_j for each in samples]),
            power_w=_sum([each.power_w for each in samples]),
            resets=sum(each.resets for each in samples),
        )

    def close(self) -> None:
        for part in self._parts:
            part.close()


def read_at(clock: Clock, read: Callable[[], float]) -> tuple[float, float]:
    """What `read` gives, after the middle of the time that it took."""
    began_s = clock()
    value = read()
    return (began_s + clock()) / 2, value


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
