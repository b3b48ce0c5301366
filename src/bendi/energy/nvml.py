"""NVIDIA GPUs: the counter of energy since the driver was loaded (Volta and later), and power, through NVML.

The library is `pynvml` of the package nvidia-ml-py. All functions take it as a value, so that another one of the same
shape can stand in (`fake.FakeNvml`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from bendi.energy.meter import Clock, Counter, Meter, MeterFacts, MeterFailed, Sample, SummedMeter
from bendi.lazy import lazily

COUNTER_REFRESH_S = 0.1
"""Measured by ML.ENERGY."""
POWER_REFRESH_S = 0.1
AVERAGED_S = 1.0
"""`nvmlDeviceGetPowerUsage` is the mean of a second on Ampere and later, but for GA100 (NVML API reference)."""
PERIOD_S = 0.05
_ABOVE_LIMIT = 2.5
"""Single readings go far above the limit for milliseconds; by so much, none does."""
_MOST_W = 3000.0
_LEAST_W = 1.0


def nvml_library() -> Any:
    """`pynvml`, or None where it is not installed."""
    try:
        return lazily("pynvml")
    except ImportError:
        return None


def find_nvml(
    library: Any, *, gpus: Sequence[int] | None = None, clock: Clock = time.monotonic
) -> tuple[Meter | None, str]:
    """One meter for all GPUs (or those of the numbers `gpus`), or None and the reason; no reason where there is no
    GPU. Layers may be split over several GPUs, and the ones that wait use power too: so it is the sum.

    `library`: `nvml_library()`. The meter keeps NVML open until it is closed.
    """
    if library is None:
        return None, "nvml_missing"
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        return None, _reason(library, error)
    boards: list[_Board] = []
    try:
        chosen = range(library.nvmlDeviceGetCount()) if gpus is None else gpus
        boards = [_Board(library, library.nvmlDeviceGetHandleByIndex(index), clock) for index in chosen]
        for board in boards:
            board.look()
        if boards:
            boards[0].closes = True
            return SummedMeter(_facts(boards), boards), ""
        reason = ""
    except library.NVMLError as error:
        reason = _reason(library, error)
    except MeterFailed as error:
        reason = error.reason
    library.nvmlShutdown()
    return None, reason


def power_limit_w(library: Any) -> float | None:
    """What all GPUs together may use at most, a bound; None where it is not known."""
    if library is None:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    try:
        handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        return sum(library.nvmlDeviceGetEnforcedPowerLimit(handle) for handle in handles) / 1000 or None
    except library.NVMLError:
        return None
    finally:
        library.nvmlShutdown()


class _Board:
    """One GPU. `closes`: it ends NVML when it is closed, which counts how often it was opened and closed."""

    def __init__(self, library: Any, handle: Any, clock: Clock) -> None:
        self._library, self._handle, self._clock = library, handle, clock
        self.has_counter = self.has_power = self.instant = False
        self.limit_w: float | None = None
        self.name = ""
        self._counter = Counter(None)
        self.closes = False

    @property
    def facts(self) -> MeterFacts:
        return _facts([self])

    def look(self) -> None:
        """What this GPU can tell. Raises MeterFailed where it is nothing, or nothing of its own."""
        library, handle = self._library, self._handle
        name = library.nvmlDeviceGetName(handle)
        self.name = name.decode(errors="replace") if isinstance(name, bytes) else name
        current = self._ask(lambda: library.nvmlDeviceGetMigMode(handle)[0])
        if current == 1:
            raise MeterFailed("mig")
        self.has_counter = self._ask(lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle)) is not None
        self.instant = self._ask(self._instant_mw) is not None
        self.has_power = self.instant or self._ask(lambda: library.nvmlDeviceGetPowerUsage(handle)) is not None
        if not self.has_counter and not self.has_power:
            raise MeterFailed("nvml_unsupported")
        limit_mw = self._ask(lambda: library.nvmlDeviceGetEnforcedPowerLimit(handle))
        self.limit_w = limit_mw / 1000 if limit_mw else None

    def sample(self) -> Sample:
        library, handle = self._library, self._handle
        began_s = self._clock()
        try:
            energy_mj = library.nvmlDeviceGetTotalEnergyConsumption(handle) if self.has_counter else None
            power_mw = None
            if self.has_power:
                power_mw = self._instant_mw() if self.instant else library.nvmlDeviceGetPowerUsage(handle)
        except library.NVMLError as error:
            raise MeterFailed(_reason(library, error)) from error
        time_s = (began_s + self._clock()) / 2
        return Sample(
            time_s,
            None if energy_mj is None else self._counter.add(time_s, energy_mj / 1000),
            None if power_mw is None else power_mw / 1000,
            self._counter.resets,
        )

    def close(self) -> None:
        if self.closes:
            self._library.nvmlShutdown()

    def _instant_mw(self) -> Any:
        (value,) = self._library.nvmlDeviceGetFieldValues(self._handle, [self._library.NVML_FI_DEV_POWER_INSTANT])
        if value.nvmlReturn != self._library.NVML_SUCCESS:
            raise self._library.NVMLError(value.nvmlReturn)
        return value.value.uiVal

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The answer, or None where this GPU or driver has none. An older library lacks whole functions."""
        try:
            return question()
        except AttributeError:
            return None
        except self._library.NVMLError as error:
            if _reason(self._library, error) == "nvml_permission":
                raise
            return None


def _facts(boards: Sequence[_Board]) -> MeterFacts:
    counter = all(board.has_counter for board in boards)
    power = all(board.has_power for board in boards)
    if not counter and not power:
        raise MeterFailed("nvml_unsupported")
    names = [board.name for board in boards]
    # On Grace Hopper the counter is that of the module, processor included (NVML API reference).
    covers = "gpu module" if any("GH200" in name or "Grace" in name for name in names) else "gpu board"
    limits_w = [board.limit_w for board in boards]
    return MeterFacts(
        name="nvml",
        tier="counter" if counter else "sampled",
        covers=(covers,),
        period_s=PERIOD_S,
        counter_refresh_s=COUNTER_REFRESH_S if counter else None,
        power_refresh_s=POWER_REFRESH_S if power else None,
        prefers="counter" if counter else "power",
        averaged_s=0.0 if all(board.instant for board in boards) else AVERAGED_S,
        least_w=_LEAST_W * len(boards),
        most_w=sum(_MOST_W if limit_w is None else limit_w * _ABOVE_LIMIT for limit_w in limits_w),
    )


def _reason(library: Any, error: Exception) -> str:
    kinds = (
        ("NVMLError_LibraryNotFound", "nvml_missing"),
        ("NVMLError_DriverNotLoaded", "nvml_missing"),
        ("NVMLError_NoPermission", "nvml_permission"),
    )
    return next((code for name, code in kinds if isinstance(error, getattr(library, name, ()))), "meter_failed")
