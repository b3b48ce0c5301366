"""Whether two runs differ that have nothing to do with each other: on other days, on other machines.

Their repeats are no pairs, so what slowed one run down as a whole looks like a difference; the comparison says what the
numbers say, not why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, median

from bendi.stats.bootstrap import CONFIDENCE
from bendi.stats.comparing import POWER, Comparison
from bendi.stats.student import t_quantile


def compare_independent(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """How many times as large `first` is as `second`: the estimator of Hodges and Lehmann for two samples on a
    logarithmic scale, with the interval of Moses, both from the exact distribution of Mann and Whitney's U (Hollander,
    Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition, sections 4.1 to 4.3). `n` of the result: repeats
    of the smaller sample. Raises ValueError where one is empty, or has values that are not above zero."""
    if not first or not second or min(*first, *second) <= 0:
        raise ValueError(first, second)
    logs, others = [math.log(value) for value in first], [math.log(value) for value in second]
    shifts = sorted(one - other for one in logs for other in others)
    dropped = _dropped(len(first), len(second))
    detectable = _detectable(logs, others)
    return Comparison(
        n=min(len(first), len(second)),
        estimate=math.exp(median(shifts)),
        low=None if dropped is None else math.exp(shifts[dropped]),
        high=None if dropped is None else math.exp(shifts[-1 - dropped]),
        p=mann_whitney_p(logs, others),
        detectable=None if detectable is None else math.exp(detectable),
    )


def mann_whitney_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Mann and Whitney's test, two-sided and exact for samples without equal values; with equal values, which count
    half, rather too large than too small."""
    wins = sum((one > other) + (one == other) / 2 for one in first for other in second)
    extreme = math.ceil(min(wins, len(first) * len(second) - wins))
    counts = _orders(len(first), len(second))
    return min(1.0, 2 * sum(counts[: extreme + 1]) / sum(counts))


def _dropped(n: int, m: int) -> int | None:
    """How many shifts lie outside of the interval on either side; None where there can be no interval."""
    counts = _orders(n, m)
    allowed = (1 - CONFIDENCE) / 2 * sum(counts)
    below = 0
    for wins, count in enumerate(counts):
        below += count
        if below > allowed:
            return wins - 1 if wins else None
    return None


@cache
def _orders(n: int, m: int) -> tuple[int, ...]:
    """In how many of all orders of `n` and `m` things the first ones win 0, 1, 2 and so on of the n·m comparisons: the
    coefficients of the Gaussian binomial."""
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for wins in range(n * m, m + i - 1, -1):
            counts[wins] -= counts[wins - m - i]
        for wins in range(i, n * m + 1):
            counts[wins] += counts[wins - i]
    return tuple(counts)


def _detectable(first: Sequence[float], second: Sequence[float]) -> float | None:
    """As `comparing.detectable_difference`, for two samples with a common spread."""
    freedom = len(first) + len(second) - 2
    if min(len(first), len(second)) < 2:
        return None
    squares = sum((value - fmean(each)) ** 2 for each in (first, second) for value in each)
    reach = t_quantile(1 - (1 - CONFIDENCE) / 2, freedom) + t_quantile(POWER, freedom)
    return reach * math.sqrt(squares / freedom * (1 / len(first) + 1 / len(second)))
