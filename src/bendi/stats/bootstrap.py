"""How sure a figure is: intervals by the bootstrap.

The median of resamples takes few values, and how often each of them comes is known from order statistics (Efron, The
Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 10), so no random numbers are needed for it. With
few repeats the percentile interval covers less than it says: of seven, the second to the sixth, 87.5 % and not 95 %.
So it is widened to the next values until the binomial distribution guarantees what is promised, whatever the
distribution of the values; with fewer than six repeats not even all of them can promise 95 %, and that is said.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import TypeVar

from bendi.stats.describe import quantile

CONFIDENCE = 0.95
RESAMPLES = 4000
MANY = 200
"""With more values, the percentile interval and the one from ranks alone are the same but for less than a value."""
_Unit = TypeVar("_Unit")


@dataclass(frozen=True)
class Interval:
    """`coverage`: how probable it is, at least, that such an interval holds the true value; below `CONFIDENCE` where
    there are too few values to promise it. None where it is only approximately `CONFIDENCE`."""

    low: float
    high: float
    coverage: float | None = None

    @property
    def promised(self) -> bool:
        """Whether it is as sure as it should be."""
        return self.coverage is None or self.coverage >= CONFIDENCE


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Of the median of what the values, independent of each other, are a sample of; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    ordered = sorted(values)
    lower, upper = _ranks(n, confidence)
    sure = Interval(ordered[lower - 1], ordered[upper - 1], _coverage(n, lower, upper))
    if n > MANY:
        return sure
    low, high = percentile_interval(values, confidence)
    # The outermost values that it holds; what lies beyond them, between two values, promises nothing.
    coverage = _coverage(n, 1 + sum(value < low for value in values), sum(value <= high for value in values))
    if coverage >= confidence:
        return Interval(low, high, coverage)
    return Interval(min(low, sure.low), max(high, sure.high), sure.coverage)


def percentile_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The percentile interval of the bootstrap of the median, without chance."""
    tail = (1 - confidence) / 2
    masses = bootstrap_medians(values)
    below, low, high = 0.0, masses[0][0], masses[-1][0]
    for value, mass in masses:
        if below <= tail < below + mass:
            low = value
        if below < 1 - tail <= below + mass:
            high = value
        below += mass
    return low, high


def bootstrap_medians(values: Sequence[float]) -> list[tuple[float, float]]:
    """Every median that a resample can have, ascending, with its probability. Raises ValueError without values."""
    n = len(values)
    if not n:
        raise ValueError(values)
    ordered = sorted(values)
    masses: dict[float, float] = {}
    middle = (n + 1) // 2
    # The chance that the value at rank `middle` of a resample is at most ordered[i - 1].
    at_most = [_binomial_at_least(n, middle, i / n) for i in range(n + 1)]
    for i in range(1, n + 1):
        same = at_most[i] - at_most[i - 1]
        if n % 2 == 0:
            # The lower half ends at i, the upper one begins at j: n/2 draws on either side, one of them at the edge.
            lower_half = (i / n) ** middle - ((i - 1) / n) ** middle
            for j in range(i + 1, n + 1):
                upper_half = ((n - j + 1) / n) ** middle - ((n - j) / n) ** middle
                mass = comb(n, middle) * lower_half * upper_half
                same -= mass
                between = (ordered[i - 1] + ordered[j - 1]) / 2
                masses[between] = masses.get(between, 0.0) + mass
        masses[ordered[i - 1]] = masses.get(ordered[i - 1], 0.0) + max(same, 0.0)
    return sorted(masses.items())


def bootstrap_interval(
    units: Sequence[_Unit],
    statistic: Callable[[Sequence[_Unit]], float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Of any figure computed from independent `units`, such as a ratio of sums over repeats: the percentile interval
    of resampled units, the same for the same seed. None for fewer than two units. With fewer than about ten it is too
    narrow: for the mean by a factor of √((n-1)/n) and more (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, section 5.3)."""
    if len(units) < 2:
        return None
    generator = random.Random(seed)
    found = sorted(statistic(generator.choices(units, k=len(units))) for _ in range(resamples))
    tail = (1 - confidence) / 2
    return Interval(quantile(found, tail), quantile(found, 1 - tail))


def best_coverage(n: int) -> float:
    """What the interval from the lowest to the highest of `n` values covers of their median: 1 - 2^(1-n)."""
    return 1 - 2.0 ** (1 - n)


def _ranks(n: int, confidence: float) -> tuple[int, int]:
    """The innermost pair of ranks, as far from either end, with that coverage; the ends where there is none."""
    rank = 1
    while rank + 1 <= n // 2 and _coverage(n, rank + 1, n - rank) >= confidence:
        rank += 1
    return rank, n + 1 - rank


def _coverage(n: int, lower: int, upper: int) -> float:
    """The chance that the median of a continuous distribution lies between the values of these ranks (from 1) of a
    sample: David and Nagaraja, Order Statistics, 3rd edition, section 7.1."""
    return sum(comb(n, below) for below in range(lower, upper)) / (1 << n)


def _binomial_at_least(n: int, least: int, chance: float) -> float:
    return min(1.0, sum(comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(least, n + 1)))
