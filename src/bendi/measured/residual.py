"""How measured rates compare with predicted ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

_PLAUSIBLE = (1 / 50, 50.0)


@dataclass(frozen=True)
class Ratio:
    """Measured over predicted. `median`: of `n` observations; 1 without any. `spread`: half the width of their middle
    80 %, relative to the median."""

    n: int = 0
    median: float = 1.0
    spread: float = 0.0


@dataclass(frozen=True)
class Residual:
    """What the predictions of PP and of TG were wrong by."""

    pp: Ratio = Ratio()
    tg: Ratio = Ratio()

    @property
    def n(self) -> int:
        return max(self.pp.n, self.tg.n)


def ratio_of(ratios: Iterable[float]) -> Ratio:
    """Summary of observations, without those that no machine can cause (a changed file, a clock that was set)."""
    kept = sorted(ratio for ratio in ratios if math.isfinite(ratio) and _PLAUSIBLE[0] <= ratio <= _PLAUSIBLE[1])
    if not kept:
        return Ratio()
    middle = median(kept)
    return Ratio(len(kept), middle, (_at(kept, 0.9) - _at(kept, 0.1)) / (2 * middle))


def ratio_between(ratios_by_model: Mapping[str, Sequence[float]]) -> Ratio:
    """The same over models: each counts once, with its median, however often it was used."""
    return ratio_of(ratio.median for ratios in ratios_by_model.values() if (ratio := ratio_of(ratios)).n)


def _at(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the ordered values lie, between neighbours in proportion."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
