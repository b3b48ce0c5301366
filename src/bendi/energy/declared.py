"""Power that nothing measures: what the user says, or a bound that cannot be exceeded."""

from __future__ import annotations

import time
from typing import Literal

from bendi.energy.meter import Clock, MeterFacts, Sample

PERIOD_S = 1.0


class ConstantMeter:
    """Shows the same power at all times. `tier`: `"declared"`, or `"bound"`: then the energy is at most so much.
    `idle_w`: without load, where that is known."""

    def __init__(
        self,
        power_w: float,
        tier: Literal["declared", "bound"],
        covers: tuple[str, ...] = ("wall",),
        *,
        idle_w: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._power_w, self._clock = power_w, clock
        self.facts = MeterFacts(
            name=tier,
            tier=tier,
            covers=covers,
            period_s=PERIOD_S,
            power_refresh_s=0.0,
            prefers="power",
            idle_w=idle_w,
        )

    def sample(self) -> Sample:
        return Sample(self._clock(), None, self._power_w)

    def close(self) -> None:
        """Nothing is held."""
