"""The counters of x86 processors (RAPL) under /sys/class/powercap (kernel document power/powercap/powercap.rst).

Zones overlap: `psys` holds the packages, a package holds `core` and `uncore`. Only packages are summed, and `dram`,
which is beside them. `intel-rapl-mmio` shows the same packages once more and is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from bendi.energy.meter import Clock, Counter, Meter, MeterFacts, MeterFailed, Sample, SummedMeter, read_at
from bendi.hardware.sysfs import read_int, read_text, subfolders

REFRESH_S = 0.001
PERIOD_S = 0.1
_MOST_W = 1000.0
"""Of one package or its memory."""
_SAME = 1e-4
"""Counters of two dies so close to one another are one counter."""


def find_rapl(root: Path, clock: Clock = time.monotonic) -> tuple[Meter | None, str]:
    """A meter of all packages and their memory, or None and the reason."""
    zones = [folder for folder in subfolders(root / "sys/class/powercap", "intel-rapl:*") if _counts(folder)]
    if not zones:
        return None, "rapl_missing"
    try:
        zones = _different(zones)
    except PermissionError:
        return None, "rapl_permission"
    except (OSError, ValueError):
        return None, "unreadable"
    covers = tuple(dict.fromkeys("dram" if _name(zone) == "dram" else "cpu package" for zone in zones))
    facts = MeterFacts(
        name="rapl",
        tier="counter",
        covers=covers,
        period_s=PERIOD_S,
        counter_refresh_s=REFRESH_S,
        most_w=_MOST_W * len(zones),
    )
    return SummedMeter(facts, [_Zone(zone, facts, clock) for zone in zones]), ""


def rapl_limit_w(root: Path) -> float | None:
    """The largest limit of power of all packages together, which everybody may read: a bound."""
    packages = [zone for zone in subfolders(root / "sys/class/powercap", "intel-rapl:*") if _is_package(zone)]
    limits_w = []
    for package in packages:
        limits = [read_int(file) or 0 for file in sorted(package.glob("constraint_*_power_limit_uw"))]
        if not any(limits):
            return None
        limits_w.append(max(limits) / 1e6)
    return math.fsum(limits_w) or None


class _Zone:
    def __init__(self, folder: Path, facts: MeterFacts, clock: Clock) -> None:
        self.facts = facts
        self._file, self._clock = folder / "energy_uj", clock
        range_uj = read_int(folder / "max_energy_range_uj")
        self._counter = Counter(range_uj / 1e6 if range_uj else None, _MOST_W, PERIOD_S)

    def sample(self) -> Sample:
        try:
            time_s, raw_uj = read_at(self._clock, lambda: _energy_uj(self._file))
        except PermissionError as error:
            raise MeterFailed("rapl_permission") from error
        except (OSError, ValueError) as error:
            raise MeterFailed("unreadable") from error
        return Sample(time_s, self._counter.add(time_s, raw_uj / 1e6), None, self._counter.resets)

    def close(self) -> None:
        """Nothing is held."""


def _counts(zone: Path) -> bool:
    return (_is_package(zone) or _name(zone) == "dram") and (zone / "energy_uj").exists()


def _is_package(zone: Path) -> bool:
    return zone.name.count(":") == 1 and _name(zone).startswith("package")


def _name(zone: Path) -> str:
    return read_text(zone / "name")


def _different(zones: Sequence[Path]) -> list[Path]:
    """Each counter once. On Threadripper and EPYC each die shows the counter of the whole socket (`package-0-die-0`,
    `package-0-die-1`; a 1950X of 125 W at the wall shows 68 W for either, CodeCarbon, docs on RAPL)."""
    kept: list[tuple[str, float, Path]] = []
    for zone in zones:
        package, is_die, _die = _name(zone).partition("-die-")
        raw_uj = _energy_uj(zone / "energy_uj")
        twin = any(
            bool(is_die) and package == other and abs(raw_uj - value) <= _SAME * max(raw_uj, value)
            for other, value, _zone in kept
        )
        if not twin:
            kept.append((package, raw_uj, zone))
    return [zone for _package, _raw_uj, zone in kept]


def _energy_uj(file: Path) -> int:
    with file.open("rb") as opened:
        return int(opened.read(64))
