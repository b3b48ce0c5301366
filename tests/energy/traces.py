"""Readings of meters that are not there, and trees of /sys of machines that are."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bendi.energy.fake import FakeMeter, PowerOverTime
from bendi.energy.meter import Meter, MeterFacts, MeterFailed, Sample
from bendi.energy.windows import Track

COUNTER = MeterFacts("counter", "counter", ("gpu board",), 0.05, counter_refresh_s=0.1)
POWER = MeterFacts("power", "sampled", ("gpu board",), 0.05, power_refresh_s=0.1, prefers="power")
BOTH = replace(COUNTER, name="both", power_refresh_s=0.1)
AVERAGE = replace(POWER, name="average", averaged_s=1.0)
WALL = MeterFacts(
    "wall",
    "wall",
    ("wall",),
    1.0,
    counter_refresh_s=60.0,
    power_refresh_s=1.0,
    prefers="power",
    counter_step_j=3600.0,
)
STEADY = PowerOverTime([(0.0, 250.0)])
BURST = PowerOverTime([(0.0, 20.0), (10.0, 300.0), (40.0, 20.0)])
"""Twenty watts, and three hundred from second 10 to 40: 9000 J in that time."""


class Clock:
    """Time that goes on only when it is told."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def track_of(meter: Meter, clock: Clock, times: Iterable[float]) -> Track:
    """What the meter shows at these times."""
    samples: list[Sample] = []
    failures: list[tuple[float, str]] = []
    for time_s in times:
        clock.now_s = time_s
        try:
            samples.append(meter.sample())
        except MeterFailed as error:
            failures.append((time_s, error.reason))
    return Track(samples, failures)


def times(begin_s: float, end_s: float, period_s: float) -> list[float]:
    return [begin_s + i * period_s for i in range(int((end_s - begin_s) / period_s + 1e-9) + 1)]


def trace(
    facts: MeterFacts,
    power: PowerOverTime,
    at_s: Iterable[float],
    *,
    factor: float = 1.0,
    reset_at_s: float | None = None,
    error_at: Callable[[float], str] = lambda _time_s: "",
) -> Track:
    """What a meter of these facts shows of that power."""
    clock = Clock()
    meter = FakeMeter(facts, power, clock, factor=factor, reset_at_s=reset_at_s, error_at=error_at)
    return track_of(meter, clock, at_s)


def write(root: Path, tree: dict[str, object]) -> Path:
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", "utf-8")
    return root


def zone(number: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> dict[str, object]:
    """`number`: `"0"` of a package, `"0:1"` of a part of it."""
    folder = f"sys/class/powercap/intel-rapl:{number}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": energy_uj, f"{folder}/max_energy_range_uj": range_uj}


def card(index: int, vendor: str, driver: str, **files: object) -> dict[str, object]:
    """A card and its sensors; `files`: of the folder of sensors, or with `device_` before, of the card."""
    folder = f"sys/class/drm/card{index}/device"
    tree: dict[str, object] = {f"{folder}/vendor": vendor, f"{folder}/hwmon/hwmon{index}/name": driver}
    for name, value in files.items():
        place = "" if name.startswith("device_") else f"hwmon/hwmon{index}/"
        tree[f"{folder}/{place}{name.removeprefix('device_')}"] = value
    return tree


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Another user, where this one is root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """One that every user can look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
