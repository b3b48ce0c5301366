"""From readings to the energy of a time: pure arithmetic.

The rules are those of the power contract of InferenceX (utils/aggregate_power.py: trapezoid, interpolation at the
edges, largest gap of 3 s, readings on both sides, counter against integral at 5%), made stricter for short times.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

from bendi.energy.meter import MeterFacts, Sample
from bendi.results import TIERS, Energy

LARGEST_GAP_S = 3.0
"""Between two readings, in a long window; five readings' time where that is more."""
_GAP_SHARE = 0.1
"""Of a short window: the largest gap."""
LATE = 3
"""Times the usual distance of two readings: then one came late. Never refused below that."""
LEAST_REFRESHES = 10
"""A window holds at least so many new values of the meter."""
SURE_REFRESHES = 100
"""With so many, an edge that falls between two values is off by at most 1% of a steady power."""
DISAGREEMENT = 0.05
IDLE_READINGS = LEAST_REFRESHES + 2
"""Of the slowest meter, in which the power of doing nothing is measured: one more at either edge."""
LEAST_IDLE_S = 5.0
"""Also with fast meters: what runs in the background now and then must be in it."""
_CHECK_REFRESHES = 20
"""The cross-check needs so many values of both: below, its own edges would be off by 5%."""
_CONSTANT_READINGS = 20
_IDLE_DRIFT = 0.1
_IDLE_DRIFT_W = 1.0
_ROUNDING_S = 1e-6
_COUNTER_STAYS = 2.0
_POWER_STAYS = 1.0
"""Refreshes after which the same value is a new one: power may be the same again, while a counter goes on."""


@dataclass(frozen=True)
class Track:
    """What was read of one meter, in the order of time. `failures`: when it could not be read, and why."""

    samples: Sequence[Sample] = ()
    failures: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class _Figure:
    joules: float | None = None
    reason: str = ""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Curve:
    """Values over time. `read_s`: all readings; `knots`: those of them that are news."""

    read_s: list[float]
    knots: list[tuple[float, float]]
    usual_s: float
    flags: list[str] = field(default_factory=list)


def energy_of(facts: MeterFacts, track: Track, begin_s: float, end_s: float) -> Energy:
    """The energy from `begin_s` to `end_s` (monotonic). Where it cannot be had, `gross_j` is None and `reason` says
    why. `idle_w` is left out: see `with_idle`."""
    window_s = end_s - begin_s
    missing = Energy(facts.name, facts.tier, facts.covers, max(window_s, 0.0), idle_w=facts.idle_w)
    if window_s <= 0 or window_s < LEAST_REFRESHES * facts.refresh_s:
        return replace(missing, reason="window_too_short")
    counter = _by_counter(facts, track.samples, begin_s, end_s)
    power = _by_power(facts, track.samples, begin_s, end_s)
    main, other = (counter, power) if facts.prefers == "counter" else (power, counter)
    if main.joules is None:
        return replace(missing, reason=_reason(main.reason, track, begin_s, end_s))
    mean_w = main.joules / window_s
    if not 0 <= mean_w <= facts.most_w:
        return replace(missing, reason="implausible")
    flags = [*facts.flags, *main.flags]
    if mean_w < facts.least_w:
        flags.append("low")
    if window_s < SURE_REFRESHES * facts.refresh_s:
        flags.append("short_window")
    if facts.prefers == "power" and window_s < _CHECK_REFRESHES * facts.averaged_s:
        flags.append("averaged_power")
    if _disagree(facts, main.joules, other.joules, window_s):
        flags.append("counter_vs_integral")
    return replace(missing, gross_j=main.joules, flags=tuple(dict.fromkeys(flags)))


def with_idle(energies: Iterable[Energy], idle: Sequence[Sequence[Energy]]) -> tuple[Energy, ...]:
    """The same with `idle_w` from windows in which nothing ran: one sequence of all meters for each such window."""
    return tuple(_with_idle(each, [window for windows in idle for window in windows]) for each in energies)


@dataclass(frozen=True)
class IdleNeed:
    """How long nothing must run for a meter to tell the power of that: `least_s`, below which there is no figure, and
    `wanted_s`. `every_s`: how often the meter has something new."""

    meter: str
    every_s: float
    least_s: float
    wanted_s: float


def idle_need(facts: MeterFacts, reading_s: float = 0.0) -> IdleNeed | None:
    """None of figures that are no measurement. `reading_s`: the time from one reading to the next, as it really is."""
    if facts.tier in ("declared", "bound", "none"):
        return None
    every_s = max(facts.refresh_s, facts.period_s, reading_s)
    return IdleNeed(facts.name, every_s, LEAST_REFRESHES * facts.refresh_s, max(LEAST_IDLE_S, IDLE_READINGS * every_s))


def looks_back_s(facts: MeterFacts) -> float:
    """How long before a window readings still matter for its edges: two values of the meter, and what failed."""
    return max(2 * max(facts.counter_refresh_s or 0.0, facts.power_refresh_s or 0.0), facts.period_s)


def combined(energies: Sequence[Energy]) -> Energy | None:
    """One figure out of several meters of the same window: the one to compare machines' runs by.

    The wall, where that is measured; else the sum of all meters in the hardware that do not cover the same, with the
    worst of their tiers; else what was declared, else a bound. Where one part of a sum is missing, the sum is: another
    coverage in some repeats would be taken for a difference. None where there is no meter at all.
    """
    for tiers in (("wall",), ("counter", "sampled"), ("declared",), ("bound",)):
        chosen: list[Energy] = []
        for each in sorted((one for one in energies if one.tier in tiers), key=lambda one: TIERS.index(one.tier)):
            if not any(set(each.covers) & set(one.covers) for one in chosen):
                chosen.append(each)
        if chosen:
            return chosen[0] if len(chosen) == 1 else _sum(chosen)
    return None


def _sum(parts: Sequence[Energy]) -> Energy:
    reason = next((each.reason for each in parts if each.gross_j is None), "")
    idle = [each.idle_w for each in parts if each.idle_w is not None]
    return Energy(
        meter=" + ".join(each.meter for each in parts),
        tier=max((each.tier for each in parts), key=TIERS.index),
        covers=tuple(dict.fromkeys(name for each in parts for name in each.covers)),
        window_s=parts[0].window_s,
        gross_j=None if reason else sum(each.gross_j or 0.0 for each in parts),
        idle_w=sum(idle) if len(idle) == len(parts) else None,
        reason=reason,
        flags=tuple(dict.fromkeys(flag for each in parts for flag in each.flags)),
    )


def _with_idle(energy: Energy, windows: Sequence[Energy]) -> Energy:
    if energy.gross_j is None or energy.tier in ("declared", "bound"):
        return energy
    known = [each for each in windows if each.meter == energy.meter and each.gross_j is not None and each.window_s > 0]
    if not known:
        return replace(energy, flags=(*energy.flags, "idle_unknown"))
    idle_w = sum(each.gross_j or 0.0 for each in known) / sum(each.window_s for each in known)
    means_w = [each.mean_w or 0.0 for each in known]
    flags = [flag for each in known for flag in each.flags if flag != "short_window"]
    if max(means_w) - min(means_w) > max(_IDLE_DRIFT * max(means_w), _IDLE_DRIFT_W):
        flags.append("idle_drift")
    if idle_w * energy.window_s > energy.gross_j:
        flags.append("idle_above_load")
    return replace(energy, idle_w=idle_w, flags=tuple(dict.fromkeys((*energy.flags, *flags))))


def _by_counter(facts: MeterFacts, samples: Sequence[Sample], begin_s: float, end_s: float) -> _Figure:
    """The difference of the counter between both edges; what lies between them does not matter."""
    if facts.counter_refresh_s is None:
        return _Figure(reason="no_samples")
    pairs = [(each.time_s, each.energy_j) for each in samples if each.energy_j is not None]
    curve = _curve(pairs, facts.period_s, (facts.counter_refresh_s, _COUNTER_STAYS), (begin_s, end_s))
    reason = _unbracketed(curve, begin_s, end_s)
    limit_s = _largest_gap_s(curve.usual_s, end_s - begin_s)
    for sooner_s, later_s in pairwise(curve.read_s):
        if sooner_s <= begin_s <= later_s or sooner_s <= end_s <= later_s:
            reason = reason or _gap(curve, later_s - sooner_s, limit_s)
    if reason:
        return _Figure(reason=reason)
    values = [value for _time_s, value in curve.knots]
    resets = {each.resets for each in samples if curve.read_s[0] <= each.time_s <= curve.read_s[-1]}
    if len(resets) > 1 or any(later < sooner for sooner, later in pairwise(values)):
        return _Figure(reason="counter_reset")
    joules = _at(curve.knots, end_s) - _at(curve.knots, begin_s)
    if not math.isfinite(joules):
        return _Figure(reason="implausible")
    return _Figure(joules, flags=tuple(curve.flags)) if joules > 0 else _Figure(reason="counter_stuck")


def _by_power(facts: MeterFacts, samples: Sequence[Sample], begin_s: float, end_s: float) -> _Figure:
    """The trapezoids under the readings of power."""
    if facts.power_refresh_s is None:
        return _Figure(reason="no_samples")
    pairs = [(each.time_s, each.power_w) for each in samples if each.power_w is not None]
    curve = _curve(pairs, facts.period_s, (facts.power_refresh_s, _POWER_STAYS), (begin_s, end_s))
    reason = _unbracketed(curve, begin_s, end_s)
    limit_s = _largest_gap_s(curve.usual_s, end_s - begin_s)
    for sooner_s, later_s in pairwise(curve.read_s):
        if sooner_s < end_s and later_s > begin_s:
            reason = reason or _gap(curve, later_s - sooner_s, limit_s)
    if reason:
        return _Figure(reason=reason)
    if not all(math.isfinite(power_w) and 0 <= power_w <= facts.most_w for _time_s, power_w in curve.knots):
        return _Figure(reason="implausible")
    inside = [(time_s, power_w) for time_s, power_w in curve.knots if begin_s < time_s < end_s]
    knots = [(begin_s, _at(curve.knots, begin_s)), *inside, (end_s, _at(curve.knots, end_s))]
    steps = pairwise(knots)
    joules = sum((later[0] - sooner[0]) * (sooner[1] + later[1]) / 2 for sooner, later in steps)
    same = len({power_w for _time_s, power_w in curve.knots}) == 1
    if same and len(curve.read_s) >= _CONSTANT_READINGS and facts.tier in ("sampled", "wall"):
        curve.flags.append("constant")
    return _Figure(joules, flags=tuple(curve.flags))


def _curve(
    pairs: Sequence[tuple[float, float]],
    period_s: float,
    refresh: tuple[float, float],
    window: tuple[float, float],
) -> _Curve:
    """The readings of the window and around it, without those that say nothing.

    A value that is read again before the hardware can have had a new one is old. So the first reading of each is kept,
    and the last one where the value really stayed: for `refresh`, the time between two values of the hardware and how
    many of them. Edges are interpolated between news, so the reading before the window is the first one of its value,
    and the one after it is new, if there is such within two refreshes.
    """
    begin_s, end_s = window
    refresh_s, stays = refresh
    first = max(bisect_right(pairs, (begin_s, math.inf)) - 1, 0)
    last = min(bisect_left(pairs, (end_s, -math.inf)), len(pairs) - 1)
    while first > 0 and pairs[first - 1][1] == pairs[first][1] and begin_s - pairs[first - 1][0] <= 2 * refresh_s:
        first -= 1
    while 0 < last < len(pairs) - 1 and pairs[last - 1][1] == pairs[last][1] and pairs[last][0] - end_s < 2 * refresh_s:
        last += 1
    around = pairs[first : last + 1]
    knots: list[tuple[float, float]] = []
    for _value, repeated in groupby(around, key=lambda pair: pair[1]):
        run = list(repeated)
        knots.append(run[0])
        if run[-1][0] - run[0][0] >= stays * refresh_s - _ROUNDING_S and len(run) > 1:
            knots.append(run[-1])
    if around and knots[-1][0] < around[-1][0]:
        knots.append(around[-1])
    return _Curve([time_s for time_s, _value in around], knots, max(period_s, refresh_s))


def _unbracketed(curve: _Curve, begin_s: float, end_s: float) -> str:
    if not curve.read_s:
        return "no_samples"
    return "" if curve.read_s[0] <= begin_s and curve.read_s[-1] >= end_s else "not_bracketed"


def _largest_gap_s(usual_s: float, window_s: float) -> float:
    return max(LATE * usual_s, min(max(LARGEST_GAP_S, 5 * usual_s), _GAP_SHARE * window_s))


def _gap(curve: _Curve, gap_s: float, limit_s: float) -> str:
    if gap_s > limit_s + _ROUNDING_S:
        return "sampling_gap"
    if gap_s > LATE * curve.usual_s + _ROUNDING_S and "late_samples" not in curve.flags:
        curve.flags.append("late_samples")
    return ""


def _at(knots: Sequence[tuple[float, float]], time_s: float) -> float:
    """Linear between two knots; held outside of them."""
    after = bisect_left(knots, (time_s, -math.inf))
    if after == len(knots):
        return knots[-1][1]
    if after == 0 or knots[after][0] == time_s:
        return knots[after][1]
    (sooner_s, sooner), (later_s, later) = knots[after - 1], knots[after]
    return sooner + (later - sooner) * (time_s - sooner_s) / (later_s - sooner_s)


def _reason(reason: str, track: Track, begin_s: float, end_s: float) -> str:
    """Why readings are missing is told better by the meter's own failure, where it failed at that time."""
    if reason not in ("no_samples", "not_bracketed", "sampling_gap"):
        return reason
    near = [why for at_s, why in track.failures if begin_s - LARGEST_GAP_S <= at_s <= end_s + LARGEST_GAP_S]
    return near[-1] if near else reason


def _disagree(facts: MeterFacts, main_j: float, other_j: float | None, window_s: float) -> bool:
    if other_j is None or facts.counter_refresh_s is None or facts.power_refresh_s is None:
        return False
    slowest_s = max(facts.counter_refresh_s, facts.power_refresh_s, facts.averaged_s)
    largest_j = max(main_j, other_j)
    if window_s < _CHECK_REFRESHES * slowest_s or largest_j < _CHECK_REFRESHES * facts.counter_step_j:
        return False
    return abs(main_j - other_j) > DISAGREEMENT * largest_j
