"""Whether one of two things is faster, from timings of both taken in pairs, one right after the other.

What slows a machine down for seconds slows both of a pair, so it cancels out. The ratios of the pairs are looked at by
their ranks alone: nothing is assumed of the noise but that, of two things that are equally fast, either is as likely to
look faster, and by as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from statistics import median

CONFIDENCE = 0.95
LEAST_PAIRS = 6
"""With fewer, not even a result without exception is beyond chance: 2 / 2**5 is more than 1 - CONFIDENCE."""


@dataclass(frozen=True)
class Speedup:
    """How many times as fast the second of the pairs is as the first: `middle`. The true value lies between `low` and
    `high` with CONFIDENCE; both are None where there are too few pairs to say so."""

    middle: float
    low: float | None = None
    high: float | None = None

    @property
    def certain(self) -> bool:
        """Whether the second is faster beyond chance."""
        return self.low is not None and self.low > 1


def speedup(first_s: Sequence[float], second_s: Sequence[float]) -> Speedup:
    """From the seconds of each, in pairs.

    The middle is the Hodges-Lehmann estimator, the interval Tukey's, both from Wilcoxon's signed ranks: Hollander,
    Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition, sections 3.2 and 3.3.
    """
    logs = [math.log(first / second) for first, second in zip(first_s, second_s, strict=True)]
    averages = sorted((one + other) / 2 for one, other in combinations_with_replacement(logs, 2))
    middle = math.exp(median(averages))
    dropped = _dropped(len(logs))
    if dropped is None:
        return Speedup(middle)
    return Speedup(middle, math.exp(averages[dropped]), math.exp(averages[-1 - dropped]))


def _dropped(pairs: int) -> int | None:
    """How many averages lie outside of the interval on either side; None where there can be no interval.

    The number of the signs of `pairs` ranks with which the ranks of one sign add up to so much is counted, one rank
    after the other.
    """
    counts = [1]
    for rank in range(1, pairs + 1):
        longer = counts + [0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    allowed = (1 - CONFIDENCE) / 2 * 2**pairs
    below = 0
    found: int | None = None
    for total, count in enumerate(counts):
        below += count
        if below > allowed:
            return found
        found = total
    return found
