"""Predictions that learn from what was measured after earlier ones."""

from __future__ import annotations

from math import exp, isfinite, log, sqrt
from typing import Protocol

from bendi.planner.speed import Rate

_PATIENCE = (4.0, 6.0, 12.0)
"""So many observations weigh as much as the prediction itself: of the same model; of models (each counts once) with the
same quantization; of all models with the same engine build."""
_LEAST_ERROR = 0.03
_FURTHEST = log(20.0)


class Observed(Protocol):
    """Measured rates over predicted ones: `median` of `n` observations, `spread` half the relative width of their
    middle 80 %."""

    @property
    def n(self) -> int: ...

    @property
    def median(self) -> float: ...

    @property
    def spread(self) -> float: ...


def adjusted(rate: Rate, *levels: Observed) -> Rate:
    """`rate`, moved towards what was observed, with an error bar that follows the evidence.

    `levels`: observations of predictions like `rate` (before any adjustment), the most specific first: of the same
    model, of the same quantization, of the same engine build. Each pulls with weight n / (n + k) (the mean of a normal
    prior and n observations, on the logarithm of the ratio); the most specific one has the last word.
    """
    assert len(levels) <= len(_PATIENCE)
    shift, variance = 0.0, rate.error**2
    for observed, patience in reversed(list(zip(levels, _PATIENCE, strict=False))):
        if observed.n <= 0 or not observed.median > 0 or not isfinite(observed.median):
            continue
        weight = observed.n / (observed.n + patience)
        shift += weight * (log(observed.median) - shift)
        variance += weight * (max(observed.spread, _LEAST_ERROR) ** 2 - variance)
    # What is further off than that is not a slow machine but another experiment.
    shift = min(max(shift, -_FURTHEST), _FURTHEST)
    return Rate(rate.tok_s * exp(shift), sqrt(variance))
