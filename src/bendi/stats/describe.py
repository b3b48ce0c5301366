"""What a few numbers look like: middle, spread, and the box of Tukey.

Quartiles are those of type 7 (Hyndman and Fan, Sample Quantiles in Statistical Packages, The American Statistician 50,
1996): between neighbours in proportion, what numpy, R and spreadsheets do when nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

WHISKER = 1.5
"""Whiskers reach to the farthest value within so many interquartile ranges of the box (Tukey, Exploratory Data
Analysis, 1977). About 0.7 % of normally distributed values lie beyond."""


@dataclass(frozen=True)
class TukeyBox:
    """`whisker_low`, `whisker_high`: the farthest values that are no outliers. `outliers`: all the others, ascending;
    they are shown, and are part of every statistic."""

    n: int
    q1: float
    median: float
    q3: float
    whisker_low: float
    whisker_high: float
    outliers: tuple[float, ...]

    @property
    def iqr(self) -> float:
        return self.q3 - self.q1


@dataclass(frozen=True)
class Description:
    """Of independent repeats. `sd`: of the sample (n - 1), None for one value."""

    n: int
    median: float
    q1: float
    q3: float
    mean: float
    sd: float | None
    lowest: float
    highest: float

    @property
    def iqr(self) -> float:
        return self.q3 - self.q1


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by type 7. Raises ValueError without values."""
    if not values or not 0 <= share <= 1:
        raise ValueError(share)
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def describe(values: Sequence[float]) -> Description:
    """Raises ValueError without values."""
    if not values:
        raise ValueError(values)
    return Description(
        n=len(values),
        median=median(values),
        q1=quantile(values, 0.25),
        q3=quantile(values, 0.75),
        mean=fmean(values),
        sd=stdev(values) if len(values) > 1 else None,
        lowest=min(values),
        highest=max(values),
    )


def tukey_box(values: Sequence[float]) -> TukeyBox:
    """Raises ValueError without values."""
    if not values:
        raise ValueError(values)
    q1, q3 = quantile(values, 0.25), quantile(values, 0.75)
    reach = WHISKER * (q3 - q1)
    inside = [value for value in values if q1 - reach <= value <= q3 + reach]
    return TukeyBox(
        n=len(values),
        q1=q1,
        median=median(values),
        q3=q3,
        # A whisker never ends inside of the box, also where no value lies between the box and its reach.
        whisker_low=min([q1, *inside]),
        whisker_high=max([q3, *inside]),
        outliers=tuple(sorted(value for value in values if not q1 - reach <= value <= q3 + reach)),
    )


def ratio_of_sums(amounts: Iterable[float], divisors: Iterable[float]) -> float:
    """The rate of all together, such as tokens and their seconds; a mean of single rates would count short ones too
    much. Raises ValueError where the divisors add up to nothing."""
    pairs = list(zip(amounts, divisors, strict=True))
    below = math.fsum(divisor for _amount, divisor in pairs)
    if below <= 0:
        raise ValueError(below)
    return math.fsum(amount for amount, _divisor in pairs) / below


def harmonic_mean(rates: Sequence[float]) -> float:
    """The rate of all together where each stands for the same amount. Raises ValueError for none, or one of zero."""
    if not rates or min(rates) <= 0:
        raise ValueError(rates)
    return len(rates) / math.fsum(1 / rate for rate in rates)
