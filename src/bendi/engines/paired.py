"""Whether one of two things is faster, from timings of both taken in pairs, one right after the other.

What slows a machine down for seconds slows both of a pair, so it cancels out. The ratios of the pairs are looked at by
their ranks alone: nothing is assumed of the noise but that, of two things that are equally fast, either is as likely to
look faster, and by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bendi.stats import CONFIDENCE, LEAST_PAIRS, compare_ratios

__all__ = ["CONFIDENCE", "LEAST_PAIRS", "Speedup", "speedup"]


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
    """From the seconds of each, in pairs."""
    found = compare_ratios(first_s, second_s)
    return Speedup(found.estimate, found.low, found.high)
