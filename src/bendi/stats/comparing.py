"""Whether two configurations differ, by how much, and what could have been seen.

What was measured in the same block is a pair: a machine that is slow for a while slows both of a pair, so it cancels
out. Ratios of pairs are looked at on a logarithmic scale, so that a over b and b over a say the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from statistics import NormalDist, median, stdev

from bendi.stats.bootstrap import CONFIDENCE, MANY
from bendi.stats.describe import quantile
from bendi.stats.student import t_quantile

POWER = 0.8
LEAST_PAIRS = 6
"""With fewer, not even a result without exception is beyond chance: 2 / 2**5 is more than 1 - CONFIDENCE."""
_MOST_SPLITS = 2000
_NORMAL = NormalDist()
"""Of ranks of more than MANY pairs, whose exact distribution would take long and say the same."""


@dataclass(frozen=True)
class Comparison:
    """Of pairs. `estimate`: how many times as large the first one is, or (of differences) how much larger. The true
    value lies between `low` and `high` with CONFIDENCE; None where there are too few pairs to say so. `p`: how often
    chance alone gives so much or more. `detectable`: the smallest ratio above 1 (or difference above 0) that would
    have been found with a probability of POWER; None with too few pairs."""

    n: int
    estimate: float
    low: float | None
    high: float | None
    p: float
    detectable: float | None


def compare_ratios(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """How many times as large `first` is as `second`, in pairs. Raises ValueError without pairs, with different
    lengths, and for values that are not above zero."""
    if any(value <= 0 for value in (*first, *second)):
        raise ValueError(first, second)
    logs = compare_differences([math.log(value) for value in first], [math.log(value) for value in second])
    return Comparison(
        n=logs.n,
        estimate=math.exp(logs.estimate),
        low=None if logs.low is None else math.exp(logs.low),
        high=None if logs.high is None else math.exp(logs.high),
        p=logs.p,
        detectable=None if logs.detectable is None else math.exp(logs.detectable),
    )


def compare_differences(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """How much larger `first` is than `second`, in pairs: the estimator of Hodges and Lehmann with Tukey's interval,
    both from Wilcoxon's signed ranks (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition,
    sections 3.1 to 3.3). Raises ValueError without pairs or with different lengths."""
    differences = [one - other for one, other in zip(first, second, strict=True)]
    if not differences:
        raise ValueError(first)
    averages = sorted((one + other) / 2 for one, other in combinations_with_replacement(differences, 2))
    dropped = _dropped(len(differences))
    return Comparison(
        n=len(differences),
        estimate=median(averages),
        low=None if dropped is None else averages[dropped],
        high=None if dropped is None else averages[-1 - dropped],
        p=signed_rank_p(differences),
        detectable=detectable_difference(differences),
    )


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[list[float], list[float]]:
    """The values of those blocks that have both."""
    both = sorted(first.keys() & second.keys())
    return [first[block] for block in both], [second[block] for block in both]


def signed_rank_p(differences: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test, two-sided and exact: all signs are equally likely if nothing differs. Equal sizes
    share their ranks; differences of zero are left out."""
    sizes = sorted(abs(difference) for difference in differences if difference)
    if not sizes:
        return 1.0
    # Twice the rank, which is whole also where an even number of equals share one.
    rank_of = {size: 2 * sizes.index(size) + sizes.count(size) + 1 for size in sizes}
    ranks = [rank_of[size] for size in sizes]
    positive = sum(rank_of[abs(difference)] for difference in differences if difference > 0)
    extreme = min(positive, sum(ranks) - positive)
    if len(ranks) > MANY:
        spread = math.sqrt(sum(rank * rank for rank in ranks) / 4)
        return min(1.0, 2 * _NORMAL.cdf((extreme - sum(ranks) / 2) / spread))
    below = sum(_sums(ranks)[: extreme + 1])
    return min(1.0, 2 * below / (1 << len(ranks)))


def detectable_difference(differences: Sequence[float]) -> float | None:
    """The smallest true difference that as many pairs with as much noise would have shown with a probability of
    POWER: (t of the level + t of the power) · sd / √n (Bloom, Minimum Detectable Effects, Evaluation Review 19, 1995).
    None with too few pairs for any."""
    n = len(differences)
    if n < LEAST_PAIRS:
        return None
    reach = t_quantile(1 - (1 - CONFIDENCE) / 2, n - 1) + t_quantile(POWER, n - 1)
    return reach * stdev(differences) / math.sqrt(n)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, in their order, after Holm (A Simple Sequentially Rejective Multiple Test Procedure, 1979): those
    below 0.05 are, all together, wrong with a probability of less than 0.05."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def noise_floor(series: Sequence[Sequence[float]], *, share: float = CONFIDENCE, seed: int = 0) -> float | None:
    """By how much the medians of two halves of one configuration differ in `share` of all cases, as a relative
    difference (0.02 for 2 %): what nothing at all looks like. Each of `series` are the repeats of one configuration;
    those with fewer than four say nothing. None where none does.

    A half has fewer repeats than the whole, so this is rather too much than too little.
    """
    found: list[float] = []
    for values in series:
        if len(values) >= 4 and min(values) > 0:
            found += _differences_of_halves(values, seed)
    return math.expm1(quantile(found, share)) if found else None


def _differences_of_halves(values: Sequence[float], seed: int) -> list[float]:
    """The absolute logarithm of the ratio of medians, of every way to halve; of many of them where there are too
    many."""
    n, half = len(values), len(values) // 2
    if math.comb(n, half) <= _MOST_SPLITS:
        splits = [list(chosen) for chosen in combinations(range(n), half)]
    else:
        generator = random.Random(seed)
        splits = [generator.sample(range(n), half) for _ in range(_MOST_SPLITS)]
    found = []
    for chosen in splits:
        inside = set(chosen)
        one = median(values[index] for index in inside)
        other = median(value for index, value in enumerate(values) if index not in inside)
        found.append(abs(math.log(one / other)))
    return found


def _sums(ranks: Sequence[int]) -> list[int]:
    """In how many of the choices of some of the ranks they add up to 0, 1, 2 and so on."""
    counts = [1]
    for rank in ranks:
        longer = counts + [0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    return counts


def _dropped(pairs: int) -> int | None:
    """How many averages lie outside of the interval on either side; None where there can be no interval."""
    if pairs > MANY:
        middle, spread = pairs * (pairs + 1) / 4, math.sqrt(pairs * (pairs + 1) * (2 * pairs + 1) / 24)
        return math.floor(middle + _NORMAL.inv_cdf((1 - CONFIDENCE) / 2) * spread)
    allowed = (1 - CONFIDENCE) / 2 * (1 << pairs)
    below = 0
    found: int | None = None
    for total, count in enumerate(_sums(range(1, pairs + 1))):
        below += count
        if below > allowed:
            return found
        found = total
    return found
