"""What a report takes in beside the results, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bendi.energy.cost import CloudPrice, CostOptions
from bendi.energy.reasons import reason_text


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval of 95 %; None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class QualityRow:
    """How good the answers of one configuration (`Cell.configuration`) are. `measure`: as it is to be read on an axis,
    such as `"same top token"`, with its `unit` (may be empty)."""

    configuration: str
    measure: str
    estimate: Estimate
    unit: str = ""
    more_is_better: bool = True


@dataclass(frozen=True)
class ReportOptions:
    """`baseline`: the engine that others are compared with; empty: the first one of the study. `cost`: the prices of
    electricity and hardware. `cloud`: what others ask; a price without source and date is not shown. `explain`: a
    sentence for a code of why energy or cost is missing or doubtful, in the language in use."""

    baseline: str = ""
    cost: CostOptions = field(default_factory=CostOptions)
    cloud: tuple[CloudPrice, ...] = ()
    quality: tuple[QualityRow, ...] = ()
    explain: Callable[[str], str] = reason_text

    @property
    def dated_cloud(self) -> tuple[CloudPrice, ...]:
        return tuple(price for price in self.cloud if price.source and price.date)
