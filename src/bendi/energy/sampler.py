"""Reads meters at a fixed period, in threads of their own: apart from the loop that reads tokens, and apart from one
another, so that a slow plug delays no counter."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice, pairwise
from statistics import median
from types import TracebackType

from bendi.energy.found import Absent
from bendi.energy.meter import Clock, Meter, MeterFacts, MeterFailed, Sample
from bendi.energy.windows import LARGEST_GAP_S, IdleNeed, Track, energy_of, idle_need, looks_back_s
from bendi.results import Energy

_KEPT_SAMPLES = 2**19
"""Of each meter: 14 hours at the shortest period, 50 MB."""
_KEPT_FAILURES = 10_000
_BEFORE_ALL_S = -1e300
_LAST_READINGS = 20
_FIRST_S = 5.0
"""For the first reading of each meter."""
_LAST_S = 4.0
"""For the reading that follows a window: longer than a plug may take."""


class Sampler:
    """`with Sampler(found.meters, found.absent) as sampler: begin = sampler.mark(); ...; end = sampler.mark();
    sampler.energy(begin, end)`. Closes the meters at the end. Times are those of `clock`, monotonic."""

    def __init__(
        self, meters: Sequence[Meter], absent: Sequence[Absent] = (), *, clock: Clock = time.monotonic
    ) -> None:
        self._clock = clock
        self._absent = tuple(absent)
        self._readers = [_Reader(meter, clock) for meter in meters]

    def __enter__(self) -> Sampler:
        for reader in self._readers:
            reader.start()
        try:
            for reader in self._readers:
                reader.wait_for(_BEFORE_ALL_S, _FIRST_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.stop()
        for reader in self._readers:
            reader.join()

    def mark(self) -> float:
        """Now, for the edge of a window: all meters are read at once, beside their period. Does not wait for them."""
        now_s = self._clock()
        for reader in self._readers:
            reader.nudge()
        return now_s

    def energy(self, begin_s: float, end_s: float) -> tuple[Energy, ...]:
        """Of each meter from `begin_s` to `end_s` (of a counter that has power beside it also that), and a row for each
        that is absent. Waits for readings after `end_s`, for a moment in the usual case and for seconds at most."""
        for reader in self._readers:
            reader.nudge()
        for reader in self._readers:
            reader.wait_for(end_s + min(reader.facts.refresh_s, 1.0), _LAST_S)
        found: list[Energy] = []
        for reader in self._readers:
            track = reader.track()
            found += [energy_of(row, track, begin_s, end_s) for row in reader.facts.rows]
        return (*found, *(each.energy(max(end_s - begin_s, 0.0)) for each in self._absent))

    def tracks(self) -> tuple[tuple[MeterFacts, Track], ...]:
        """All readings that are kept, by meter: the raw data."""
        return tuple((reader.facts, reader.track()) for reader in self._readers)

    def forget(self, before_s: float) -> None:
        """Lets readings go that no window needs which begins at `before_s` or later."""
        for reader in self._readers:
            reader.forget(before_s)

    def idle_needs(self) -> tuple[IdleNeed, ...]:
        """Of each meter that measures, by its own period and by how fast it really answers."""
        needs = [idle_need(reader.facts, reader.reading_s()) for reader in self._readers]
        return tuple(need for need in needs if need)


class _Reader:
    """One meter and its thread."""

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self.facts = meter.facts
        self._meter, self._clock = meter, clock
        self._samples: deque[Sample] = deque(maxlen=_KEPT_SAMPLES)
        self._failures: deque[tuple[float, str]] = deque(maxlen=_KEPT_FAILURES)
        self._news = threading.Condition()
        self._wake = threading.Event()
        self._stopped = False
        self._tried_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name=f"meter {self.facts.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()

    def join(self) -> None:
        self._thread.join(_LAST_S)

    def wait_for(self, time_s: float, patience_s: float) -> None:
        """Until the meter was read after `time_s`, or tried in vain."""
        with self._news:
            self._news.wait_for(lambda: self._tried_s >= time_s or self._stopped, patience_s)

    def track(self) -> Track:
        with self._news:
            return Track(tuple(self._samples), tuple(self._failures))

    def forget(self, before_s: float) -> None:
        kept_s = before_s - looks_back_s(self.facts)
        with self._news:
            while len(self._samples) > 1 and self._samples[1].time_s < kept_s:
                self._samples.popleft()
            while self._failures and self._failures[0][0] < min(kept_s, before_s - LARGEST_GAP_S):
                self._failures.popleft()

    def reading_s(self) -> float:
        """From one reading to the next, of the last ones; 0 where there are too few to say. Readings that were asked
        for beside the period make it rather smaller."""
        with self._news:
            times = [sample.time_s for sample in islice(reversed(self._samples), _LAST_READINGS)]
        gaps = [later - sooner for later, sooner in pairwise(times)]
        return median(gaps) if gaps else 0.0

    def _run(self) -> None:
        next_s = self._clock()
        while not self._stopped:
            self._read()
            now_s = self._clock()
            if next_s <= now_s:  # what was missed is not made up for
                next_s += self.facts.period_s * (1 + (now_s - next_s) // self.facts.period_s)
            self._wake.wait(max(next_s - now_s, 0.0))
            self._wake.clear()
        self._meter.close()

    def _read(self) -> None:
        began_s = self._clock()
        sample, reason = None, ""
        try:
            sample = self._meter.sample()
        except MeterFailed as error:
            reason = error.reason
        except Exception:  # of a maker's library: whatever it is, the study goes on without this meter
            reason = "meter_failed"
        with self._news:
            if sample is not None and (not self._samples or sample.time_s > self._samples[-1].time_s):
                self._samples.append(sample)
            elif reason:
                self._failures.append((self._clock(), reason))
            self._tried_s = began_s if sample is None else max(began_s, sample.time_s)
            self._news.notify_all()
