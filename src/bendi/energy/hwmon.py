"""AMD and Intel GPUs as their kernel drivers show them under /sys/class/drm/card*/device/hwmon.

amdgpu: power in microwatts, either a mean (`power1_average`) or of now (`power1_input`), on processors with graphics
that of the whole chip (kernel document gpu/amdgpu/thermal.rst). i915 and xe: a counter in microjoules, `energy1_input`
of the card and for xe else `energy2_input` of the package (kernel ABI sysfs-driver-intel-i915-hwmon, -xe-hwmon).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bendi.energy.meter import Clock, Counter, Meter, MeterFacts, MeterFailed, Sample, SummedMeter, read_at
from bendi.hardware.sysfs import read_text, subfolders

PERIOD_S = 0.1
_AMD_REFRESH_S = 0.1
_AMD_AVERAGED_S = 1.0
_INTEL_REFRESH_S = 0.1
_MOST_W = 2000.0
_LEAST_W = 1.0
_ACCELERATOR_CLASS = "0x1200"


def find_amd(root: Path, clock: Clock = time.monotonic) -> tuple[Meter | None, str]:
    """A meter of all AMD GPUs, or None and the reason; no reason where there is no such GPU."""
    cards = _cards(root, "0x1002")
    files = [_first(_sensors(card, ("amdgpu",)), ("power1_average", "power1_input")) for card in cards]
    readable = _readable(files)
    if readable is None:
        return None, "hwmon_missing" if cards else ""
    covers = tuple(dict.fromkeys(name for card in cards for name in _amd_covers(card)))
    facts = MeterFacts(
        name="amdgpu",
        tier="sampled",
        covers=covers,
        period_s=PERIOD_S,
        power_refresh_s=_AMD_REFRESH_S,
        prefers="power",
        averaged_s=_AMD_AVERAGED_S if any(file.name == "power1_average" for file in readable) else 0.0,
        least_w=_LEAST_W * len(cards),
        most_w=_MOST_W * len(cards),
    )
    return SummedMeter(facts, [_Power(file, facts, clock) for file in readable]), ""


def find_intel(root: Path, clock: Clock = time.monotonic) -> tuple[Meter | None, str]:
    """A meter of all Intel GPUs, or None and the reason; no reason where there is no card, as integrated graphics show
    no energy and are part of the processor's."""
    cards = [card for card in _cards(root, "0x8086") if _sensors(card, ("i915", "xe"))]
    files = [_first(_sensors(card, ("i915", "xe")), ("energy1_input", "energy2_input")) for card in cards]
    readable = _readable(files)
    if readable is None:
        return None, "hwmon_missing" if cards else ""
    whole = all(file.name == "energy1_input" for file in readable)
    facts = MeterFacts(
        name="intel gpu",
        tier="counter",
        covers=("gpu board" if whole else "gpu package",),
        period_s=PERIOD_S,
        counter_refresh_s=_INTEL_REFRESH_S,
        least_w=_LEAST_W * len(cards),
        most_w=_MOST_W * len(cards),
    )
    return SummedMeter(facts, [_Energy(file, facts, clock) for file in readable]), ""


class _Power:
    def __init__(self, file: Path, facts: MeterFacts, clock: Clock) -> None:
        self.facts = facts
        self._file, self._clock = file, clock

    def sample(self) -> Sample:
        time_s, micro = _read(self._file, self._clock)
        return Sample(time_s, None, micro / 1e6)

    def close(self) -> None:
        """Nothing is held."""


class _Energy:
    def __init__(self, file: Path, facts: MeterFacts, clock: Clock) -> None:
        self.facts = facts
        self._file, self._clock = file, clock
        self._counter = Counter(None)  # the drivers take wrap-around out

    def sample(self) -> Sample:
        time_s, micro = _read(self._file, self._clock)
        return Sample(time_s, self._counter.add(time_s, micro / 1e6), None, self._counter.resets)

    def close(self) -> None:
        """Nothing is held."""


def _read(file: Path, clock: Clock) -> tuple[float, float]:
    try:
        return read_at(clock, lambda: _number(file))
    except (OSError, ValueError) as error:
        raise MeterFailed("unreadable") from error


def _number(file: Path) -> int:
    with file.open("rb") as opened:
        return int(opened.read(64))


def _cards(root: Path, vendor: str) -> list[Path]:
    folders = subfolders(root / "sys/class/drm", "card*")
    return [
        card
        for card in folders
        if card.name.removeprefix("card").isdigit() and read_text(card / "device/vendor") == vendor
    ]


def _sensors(card: Path, names: Sequence[str]) -> list[Path]:
    """Of the device as a whole: `i915_gt0` and the like are its parts."""
    return [folder for folder in subfolders(card / "device/hwmon", "hwmon*") if read_text(folder / "name") in names]


def _first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names for folder in folders if (folder / name).exists()), None)


def _readable(files: Sequence[Path | None]) -> list[Path] | None:
    """All of them, if each card has one that gives a number: a sum of some of the cards would mislead."""
    found = []
    for file in files:
        try:
            if file is None:
                return None
            _number(file)
        except (OSError, ValueError):
            return None
        found.append(file)
    return found or None


def _amd_covers(card: Path) -> tuple[str, ...]:
    # The same signs as in hardware/gpus.py: memory soldered to a card has a maker.
    maker = read_text(card / "device/mem_info_vram_vendor")
    integrated = maker in ("", "unknown") and not read_text(card / "device/class").startswith(_ACCELERATOR_CLASS)
    return ("cpu package", "gpu") if integrated else ("gpu board",)
