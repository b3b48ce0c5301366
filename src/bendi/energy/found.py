"""Which meters this machine has, and why others are missing."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.energy.apple import apple_library, find_apple
from bendi.energy.declared import ConstantMeter
from bendi.energy.hwmon import find_amd, find_intel
from bendi.energy.meter import Clock, Meter
from bendi.energy.nvml import find_nvml, nvml_library, power_limit_w
from bendi.energy.plugs import find_plug
from bendi.energy.rapl import find_rapl, rapl_limit_w
from bendi.hardware.gpus import has_nvidia
from bendi.hardware.sysfs import each_line, read_text
from bendi.results import Energy


@dataclass(frozen=True)
class EnergyOptions:
    """What the user declares. `plug_url`, `plug_kind`, `plug_channel`: of a plug that this machine alone hangs on.
    `declared_w`, `declared_idle_w`: power of the whole machine under load and without, by the user's own measurement.
    `gpus`: numbers of the NVIDIA GPUs to count; None: all. `bounds`: also count what the power limits allow at most.
    `hardware`: False leaves the meters in the hardware out."""

    plug_url: str = ""
    plug_kind: str = ""
    plug_channel: int = 0
    declared_w: float | None = None
    declared_idle_w: float | None = None
    gpus: tuple[int, ...] | None = None
    bounds: bool = False
    hardware: bool = True


@dataclass(frozen=True)
class Absent:
    """A meter that should be there. `kind`: as its `MeterFacts.name`, or `"any"` where there is none at all."""

    kind: str
    reason: str

    def energy(self, window_s: float) -> Energy:
        return Energy(self.kind, "none", window_s=window_s, reason=self.reason)


@dataclass(frozen=True)
class Found:
    meters: tuple[Meter, ...]
    absent: tuple[Absent, ...]

    def close(self) -> None:
        for meter in self.meters:
            meter.close()


@dataclass(frozen=True)
class Libraries:
    """Where the libraries of makers come from, so that others can stand in."""

    nvml: Callable[[], Any] = nvml_library
    apple: Callable[[], Any] = apple_library


def find_meters(
    options: EnergyOptions | None = None,
    *,
    root: Path = Path("/"),
    libraries: Libraries | None = None,
    system: str = "",
    clock: Clock = time.monotonic,
) -> Found:
    """All meters, and for hardware that is there without one the reason. `root`: where the file system begins;
    `system`: as `platform.system()`. Raises ConfigError for a plug whose address cannot be."""
    options = options or EnergyOptions()
    libraries = libraries or Libraries()
    system = system or platform.system()
    meters: list[Meter] = []
    absent: list[Absent] = []

    def take(kind: str, answer: tuple[Meter | None, str]) -> None:
        meter, reason = answer
        if meter is not None:
            meters.append(meter)
        elif reason:
            absent.append(Absent(kind, reason))

    if options.plug_url:
        take("plug", find_plug(options.plug_url, options.plug_kind, options.plug_channel, clock))
    nvidia = has_nvidia(root)
    if options.hardware:
        if nvidia or system == "Windows":
            meter, reason = find_nvml(libraries.nvml(), gpus=options.gpus, clock=clock)
            # On Windows only the library itself tells whether there is such a GPU.
            take("nvml", (meter, "" if reason == "nvml_missing" and not nvidia else reason))
        if system == "Linux":
            take("amdgpu", find_amd(root, clock))
            take("intel gpu", find_intel(root, clock))
            take("rapl", find_rapl(root, clock))
        if system == "Darwin":
            take("apple", find_apple(libraries.apple(), clock))
    if options.declared_w is not None:
        meters.append(ConstantMeter(options.declared_w, "declared", idle_w=options.declared_idle_w, clock=clock))
    if options.bounds:
        meters += _bounds(root, libraries.nvml() if nvidia or system == "Windows" else None, clock)
    if not meters:
        absent = [each for each in absent if each.reason != "rapl_missing"]
        absent = absent or [Absent("any", "vm_no_counter" if _is_virtual(root) else "no_meter")]
    return Found(tuple(meters), tuple(absent))


def _bounds(root: Path, library: Any, clock: Clock) -> list[Meter]:
    """What GPUs and processors together are allowed to use at most, of those whose limits are known."""
    gpu_w, cpu_w = power_limit_w(library), rapl_limit_w(root)
    limits_w = {name: watts for name, watts in (("gpu board", gpu_w), ("cpu package", cpu_w)) if watts is not None}
    if not limits_w:
        return []
    return [ConstantMeter(sum(limits_w.values()), "bound", tuple(limits_w), clock=clock)]


def _is_virtual(root: Path) -> bool:
    return any(
        line.startswith("flags") and " hypervisor" in line for line in each_line(read_text(root / "proc/cpuinfo"))
    )
