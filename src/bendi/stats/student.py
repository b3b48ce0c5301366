"""Student's t distribution, for whole degrees of freedom."""

from __future__ import annotations

import math

_FARTHEST = 1e9


def t_cdf(t: float, freedom: int) -> float:
    """Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: finite sums. Raises ValueError
    for less than one degree of freedom."""
    if freedom < 1:
        raise ValueError(freedom)
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for step in range(1 + odd, freedom - 2, 2):
        term *= cosine * cosine * step / (step + 1)
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + inside) / 2


def t_quantile(share: float, freedom: int) -> float:
    """The value below which `share` of the distribution lies. Raises ValueError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise ValueError(share)
    low, high = -_FARTHEST, _FARTHEST
    for _step in range(200):
        middle = (low + high) / 2
        if t_cdf(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
