"""When a speed has become steady: the coefficient of variation of the last few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

STEADY = 0.03
"""Below this coefficient of variation."""
WINDOW = 5


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Standard deviation (n - 1) over mean; infinity for fewer than two values, or a mean that is not above zero."""
    if len(values) < 2 or fmean(values) <= 0:
        return math.inf
    return stdev(values) / fmean(values)


def rolling_variation(values: Sequence[float], window: int = WINDOW) -> list[float]:
    """Of every `window` values in a row."""
    return [coefficient_of_variation(values[start : start + window]) for start in range(len(values) - window + 1)]


def is_steady(values: Sequence[float], window: int = WINDOW, limit: float = STEADY) -> bool:
    """Whether the last `window` values vary less than `limit`."""
    return len(values) >= window and coefficient_of_variation(values[-window:]) < limit


def steady_from(values: Sequence[float], window: int = WINDOW, limit: float = STEADY) -> int | None:
    """Where the first steady window begins; None where there is none."""
    return next((start for start, found in enumerate(rolling_variation(values, window)) if found < limit), None)
