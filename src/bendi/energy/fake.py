"""Meters of hardware that is not there: for trying everything above them, and for tests."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from bendi.energy.meter import Clock, MeterFacts, MeterFailed, Sample


@dataclass(frozen=True)
class PowerOverTime:
    """Power in steps: `(from_s, power_w)`, the first from the beginning of time. Its integral is exact."""

    steps: Sequence[tuple[float, float]]

    def power_w(self, time_s: float) -> float:
        return self.steps[max(bisect.bisect_right([from_s for from_s, _w in self.steps], time_s) - 1, 0)][1]

    def energy_j(self, begin_s: float, end_s: float) -> float:
        edges = [begin_s, *(from_s for from_s, _w in self.steps if begin_s < from_s < end_s), end_s]
        return sum((later - sooner) * self.power_w((sooner + later) / 2) for sooner, later in pairwise(edges))


class FakeMeter:
    """Shows what `power` says, as hardware would: with new values every `facts` refresh only.

    `factor`: of the counter, to make it disagree. `error_at`: the reason for which reading fails at a time, or empty.
    `reset_at_s`: when the counter begins anew.
    """

    def __init__(
        self,
        facts: MeterFacts,
        power: PowerOverTime,
        clock: Clock,
        *,
        factor: float = 1.0,
        error_at: Callable[[float], str] = lambda _time_s: "",
        reset_at_s: float | None = None,
    ) -> None:
        self.facts = facts
        self._power, self._clock, self._factor = power, clock, factor
        self._error_at, self._reset_at_s = error_at, reset_at_s
        self.closed = False

    def sample(self) -> Sample:
        now_s = self._clock()
        reason = self._error_at(now_s)
        if reason:
            raise MeterFailed(reason)
        energy_j = power_w = None
        resets = 0
        if self.facts.counter_refresh_s is not None:
            seen_s = _last_refresh_s(now_s, self.facts.counter_refresh_s)
            begin_s = 0.0
            if self._reset_at_s is not None and seen_s >= self._reset_at_s:
                begin_s, resets = self._reset_at_s, 1
            energy_j = self._factor * self._power.energy_j(begin_s, seen_s)
        if self.facts.power_refresh_s is not None:
            seen_s = _last_refresh_s(now_s, self.facts.power_refresh_s)
            averaged_s = self.facts.averaged_s
            power_w = self._power.power_w(seen_s)
            if averaged_s:
                power_w = self._power.energy_j(seen_s - averaged_s, seen_s) / averaged_s
        return Sample(now_s, energy_j, power_w, resets)

    def close(self) -> None:
        self.closed = True


def _last_refresh_s(now_s: float, refresh_s: float) -> float:
    return now_s if refresh_s <= 0 else refresh_s * int(now_s / refresh_s + 1e-9)


@dataclass
class FakeGpu:
    """One GPU of `FakeNvml`. Energy in mJ and power in mW as NVML tells them; None: not supported."""

    name: str = "NVIDIA GeForce RTX 4090"
    energy_mj: Callable[[], int] | None = None
    power_mw: Callable[[], int] | None = None
    instant_mw: Callable[[], int] | None = None
    limit_mw: int | None = 450_000
    mig: bool | None = None
    error: str = ""
    """The name of an error that every question ends with, such as `"NVMLError_GpuIsLost"`."""


class NVMLError(Exception):
    """This and those below have the names of pynvml's."""


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_DriverNotLoaded(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


_ERRORS = {
    each.__name__: each
    for each in (
        NVMLError, NVMLError_NotSupported, NVMLError_NoPermission, NVMLError_LibraryNotFound, NVMLError_DriverNotLoaded,
        NVMLError_GpuIsLost,
    )
}  # fmt: skip


@dataclass
class FakeNvml:
    """Has the functions of `pynvml` that are used here. `init_error`: the name of the error of `nvmlInit`. `opened`:
    how often it was initialised and not shut down."""

    gpus: Sequence[FakeGpu] = field(default_factory=list)
    init_error: str = ""
    opened: int = 0
    NVML_SUCCESS = 0
    NVML_FI_DEV_POWER_INSTANT = 186
    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_NoPermission = NVMLError_NoPermission
    NVMLError_LibraryNotFound = NVMLError_LibraryNotFound
    NVMLError_DriverNotLoaded = NVMLError_DriverNotLoaded

    def nvmlInit(self) -> None:
        if self.init_error:
            raise _ERRORS[self.init_error]
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        if not 0 <= index < len(self.gpus):
            raise NVMLError
        return self.gpus[index]

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return gpu.name

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        if gpu.mig is None:
            raise NVMLError_NotSupported
        return [int(gpu.mig), int(gpu.mig)]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:
        return _told(gpu, gpu.energy_mj)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        return _told(gpu, gpu.power_mw)

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        limit_mw = gpu.limit_mw
        return _told(gpu, None if limit_mw is None else lambda: limit_mw)

    def nvmlDeviceGetFieldValues(self, gpu: FakeGpu, fields: Sequence[int]) -> list[Any]:
        value = _told(gpu, gpu.instant_mw)
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=value)) for _field in fields]


def _told(gpu: FakeGpu, value: Callable[[], int] | None) -> int:
    if gpu.error:
        raise _ERRORS[gpu.error]
    if value is None:
        raise NVMLError_NotSupported
    return value()
