"""Meters of machines of many kinds, as their files and libraries show them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from traces import Clock, card, nobody, public_folder, track_of, write, zone

from bendi.energy import EnergyOptions, MeterFailed, energy_of, find_meters
from bendi.energy.apple import apple_library, find_apple
from bendi.energy.declared import ConstantMeter
from bendi.energy.fake import FakeGpu, FakeNvml
from bendi.energy.found import Absent, Libraries
from bendi.energy.hwmon import find_amd, find_intel
from bendi.energy.meter import Counter, Meter
from bendi.energy.rapl import find_rapl, rapl_limit_w

NOTHING = Libraries(nvml=lambda: None, apple=lambda: None)


def found(answer: tuple[Meter | None, str]) -> Meter:
    meter, reason = answer
    assert meter is not None, reason
    return meter


# Counters


def test_counter_wraps() -> None:
    counter = Counter(range_j=1000.0, most_w=500.0)
    assert [counter.add(time_s, 100.0 * time_s % 1000) for time_s in range(40)][-1] == 3900.0
    assert counter.resets == 0


def test_counter_set_to_zero_is_no_wrap() -> None:
    counter = Counter(range_j=262143.0, most_w=1000.0)
    counter.add(0.0, 5000.0)
    counter.add(1.0, 5100.0)
    assert counter.add(2.0, 3.0) == 5100.0  # a wrap would mean a quarter of a MJ in a second
    assert counter.add(3.0, 103.0) == 5200.0
    assert counter.resets == 1


def test_counter_that_may_have_wrapped_twice() -> None:
    counter = Counter(range_j=1000.0, most_w=100.0)
    counter.add(0.0, 0.0)
    counter.add(9.0, 300.0)
    assert counter.resets == 0
    counter.add(19.0, 400.0)
    assert counter.resets == 1


def test_counter_without_range_never_wraps() -> None:
    counter = Counter()
    assert [counter.add(0, 50), counter.add(1, 70), counter.add(2, 10), counter.add(3, 15)] == [50, 70, 70, 75]
    assert counter.resets == 1


# Processors


def test_rapl_counts_packages_and_memory_once(tmp_path: Path) -> None:
    tree = zone("0", "package-0", 1_000_000) | zone("0:0", "core", 5) | zone("0:1", "uncore", 6)
    tree |= zone("0:2", "dram", 2_000_000) | zone("1", "package-1", 4_000_000) | zone("1:0", "dram", 8_000_000)
    tree |= zone("2", "psys", 16_000_000)
    tree |= {"sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
             "sys/class/powercap/intel-rapl-mmio:0/energy_uj": 32_000_000}  # fmt: skip
    tree |= {"sys/class/powercap/intel-rapl/enabled": 1, "sys/class/powercap/dtpm/name": "package"}
    meter = found(find_rapl(write(tmp_path, tree)))
    assert meter.sample().energy_j == pytest.approx(1 + 2 + 4 + 8)
    assert (meter.facts.tier, meter.facts.covers) == ("counter", ("cpu package", "dram"))


def test_rapl_of_dies_that_share_a_counter(tmp_path: Path) -> None:
    """A Threadripper: both dies show the socket. Real dies differ, and so do sockets that happen to be equal."""
    twins = zone("0", "package-0-die-0", 10_359_908_363) | zone("1", "package-0-die-1", 10_359_908_999)
    assert found(find_rapl(write(tmp_path / "a", twins))).sample().energy_j == pytest.approx(10_359.908363)
    real = zone("0", "package-0-die-0", 10_000_000_000) | zone("1", "package-0-die-1", 11_000_000_000)
    assert found(find_rapl(write(tmp_path / "b", real))).sample().energy_j == pytest.approx(21_000)
    sockets = zone("0", "package-0", 10_000_000_000) | zone("1", "package-1", 10_000_000_000)
    assert found(find_rapl(write(tmp_path / "c", sockets))).sample().energy_j == pytest.approx(20_000)


def test_rapl_wraps_in_the_window(tmp_path: Path) -> None:
    """200 W, with a counter of 1000 J that begins just below its end: it wraps every five seconds."""
    clock = Clock()
    tree = zone("0", "package-0", 0, range_uj=1_000_000_000)
    file = write(tmp_path, tree) / "sys/class/powercap/intel-rapl:0/energy_uj"

    def now(time_s: float) -> float:
        file.write_text(f"{int((990 + 200 * time_s) * 1e6) % 1_000_000_000}\n")
        return time_s

    clock.now_s = now(0.0)
    meter = found(find_rapl(tmp_path, clock))
    track = track_of(meter, clock, (now(0.1 * step) for step in range(400)))
    energy = energy_of(meter.facts, track, 5.0, 35.0)
    assert energy.gross_j == pytest.approx(200 * 30, rel=0.001)
    assert energy.flags == ()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as on POSIX")
def test_rapl_for_root_only() -> None:
    with public_folder() as root:
        file = write(root, zone("0", "package-0", 7)) / "sys/class/powercap/intel-rapl:0/energy_uj"
        meter = found(find_rapl(root))
        file.chmod(0o400 if os.geteuid() == 0 else 0)
        with nobody():
            assert find_rapl(root) == (None, "rapl_permission")
            with pytest.raises(MeterFailed, match="rapl_permission"):
                meter.sample()


def test_rapl_that_is_not_there(tmp_path: Path) -> None:
    assert find_rapl(tmp_path) == (None, "rapl_missing")
    write(tmp_path, {"sys/class/powercap/intel-rapl:0/name": "package-0"})  # hidden from containers
    assert find_rapl(tmp_path) == (None, "rapl_missing")
    write(tmp_path, zone("0", "package-0", 7) | {"sys/class/powercap/intel-rapl:0/energy_uj": "nonsense"})
    assert find_rapl(tmp_path) == (None, "unreadable")


def test_rapl_that_goes_away(tmp_path: Path) -> None:
    meter = found(find_rapl(write(tmp_path, zone("0", "package-0", 7))))
    shutil.rmtree(tmp_path / "sys")
    with pytest.raises(MeterFailed, match="unreadable"):
        meter.sample()
    meter.close()


def test_limits_of_processors(tmp_path: Path) -> None:
    assert rapl_limit_w(tmp_path) is None
    folder = "sys/class/powercap/intel-rapl"
    tree = zone("0", "package-0", 1) | {f"{folder}:0/constraint_0_power_limit_uw": 125_000_000,
                                        f"{folder}:0/constraint_1_power_limit_uw": 253_000_000}  # fmt: skip
    assert rapl_limit_w(write(tmp_path, tree)) == 253.0
    write(tmp_path, zone("1", "package-1", 1))
    assert rapl_limit_w(tmp_path) is None  # of one of two packages there is no limit


# AMD and Intel GPUs


def test_amd_card(tmp_path: Path) -> None:
    tree = card(0, "0x1002", "amdgpu", power1_average=35_000_000, device_mem_info_vram_vendor="samsung")
    tree |= card(1, "0x1002", "amdgpu", power1_average=300_500_000, device_mem_info_vram_vendor="hynix")
    meter = found(find_amd(write(tmp_path, tree)))
    assert meter.sample().power_w == 335.5 and meter.sample().energy_j is None
    assert (meter.facts.tier, meter.facts.covers, meter.facts.averaged_s) == ("sampled", ("gpu board",), 1.0)


def test_amd_processor_with_graphics_counts_all_of_it(tmp_path: Path) -> None:
    meter = found(find_amd(write(tmp_path, card(0, "0x1002", "amdgpu", power1_input=28_000_000))))
    assert meter.sample().power_w == 28.0
    assert (meter.facts.covers, meter.facts.averaged_s) == (("cpu package", "gpu"), 0.0)
    tree = card(0, "0x1002", "amdgpu", power1_input=9, device_class="0x120000")
    assert found(find_amd(write(tmp_path / "accelerator", tree))).facts.covers == ("gpu board",)


def test_amd_card_without_power(tmp_path: Path) -> None:
    assert find_amd(tmp_path) == (None, "")
    write(tmp_path, card(0, "0x1002", "amdgpu", power1_average=35_000_000))
    write(tmp_path, card(1, "0x1002", "amdgpu", temp1_input=50_000))
    assert find_amd(tmp_path) == (None, "hwmon_missing")  # a sum of some cards would mislead


@pytest.mark.parametrize(("file", "covers"), [("energy1_input", "gpu board"), ("energy2_input", "gpu package")])
def test_intel_card(tmp_path: Path, file: str, covers: str) -> None:
    tree = card(0, "0x8086", "xe", **{file: 5_000_000})
    # The parts of an i915 have sensors of their own.
    folder = "sys/class/drm/card0/device/hwmon"
    tree |= {f"{folder}/hwmon7/name": "i915_gt0", f"{folder}/hwmon7/energy1_input": 1}
    meter = found(find_intel(write(tmp_path, tree)))
    assert (meter.sample().energy_j, meter.facts.covers, meter.facts.tier) == (5.0, (covers,), "counter")
    (tmp_path / folder / "hwmon0" / file).write_text("9000000\n")
    assert meter.sample().energy_j == 9.0
    (tmp_path / folder / "hwmon0" / file).write_text("\n")
    with pytest.raises(MeterFailed, match="unreadable"):
        meter.sample()


def test_intel_graphics_without_counter(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/drm/card0/device/vendor": "0x8086", "sys/class/drm/card0-eDP-1/status": "connected"})
    assert find_intel(tmp_path) == (None, "")  # integrated: no sensors at all
    write(tmp_path, card(0, "0x8086", "i915", power1_max=1))
    assert find_intel(tmp_path) == (None, "hwmon_missing")


# Apple


class AppleMonitor:
    def __init__(self, **metrics: int | None) -> None:
        self.metrics: dict[str, Any] = {"efficiency_cores_mj": [500, 500], **metrics}

    def get_cumulative_energy(self) -> SimpleNamespace:
        if not self.metrics:
            raise RuntimeError("IOReport")
        return SimpleNamespace(**self.metrics)


def test_apple_counts_parts_once() -> None:
    monitor = AppleMonitor(cpu_total_mj=1000, gpu_mj=2000, gpu_sram_mj=None, dram_mj=500, ane_mj=0)
    meter = found(find_apple(SimpleNamespace(AppleEnergyMonitor=lambda: monitor)))
    assert meter.sample().energy_j == 3.5
    assert meter.facts.covers == ("cpu", "gpu", "dram", "neural engine")
    assert meter.facts.flags == ("modelled",)
    monitor.metrics["gpu_mj"] = None
    with pytest.raises(MeterFailed, match="unreadable"):
        meter.sample()


def test_apple_without_library_or_counters() -> None:
    assert apple_library() is None  # it exists for macOS only
    assert find_apple(None) == (None, "apple_library_missing")
    assert find_apple(SimpleNamespace(AppleEnergyMonitor=AppleMonitor)) == (None, "unreadable")
    broken = AppleMonitor(gpu_mj=1)
    broken.metrics.clear()
    with pytest.raises(RuntimeError):
        broken.get_cumulative_energy()
    assert find_apple(SimpleNamespace(AppleEnergyMonitor=lambda: broken)) == (None, "unreadable")


# All together


def test_declared_power() -> None:
    clock = Clock()
    meter = ConstantMeter(320.0, "declared", idle_w=60.0, clock=clock)
    energy = energy_of(meter.facts, track_of(meter, clock, range(60)), 10.25, 40.75)
    assert (energy.gross_j, energy.net_j) == (pytest.approx(320 * 30.5), pytest.approx(260 * 30.5))
    assert (energy.tier, energy.covers, energy.flags) == ("declared", ("wall",), ())


def test_workstation(tmp_path: Path) -> None:
    write(tmp_path, zone("0", "package-0", 1) | {"proc/driver/nvidia/version": "Kernel Module 580.1"})
    nvml = FakeNvml([FakeGpu(energy_mj=lambda: 1000, power_mw=lambda: 60_000)])
    options = EnergyOptions(declared_w=500.0)
    machine = find_meters(options, root=tmp_path, libraries=Libraries(lambda: nvml), system="Linux")
    assert [(meter.facts.name, meter.facts.tier) for meter in machine.meters] == [
        ("nvml", "counter"), ("rapl", "counter"), ("declared", "declared")]  # fmt: skip
    assert machine.absent == ()
    machine.close()
    assert nvml.opened == 0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"proc/driver/nvidia/version": "Kernel Module 580.1"} | card(0, "0x1002", "amdgpu"))
    machine = find_meters(root=tmp_path, libraries=NOTHING, system="Linux")
    assert machine.meters == ()
    assert machine.absent == (Absent("nvml", "nvml_missing"), Absent("amdgpu", "hwmon_missing"))
    assert machine.absent[0].energy(12.0).gross_j is None
    write(tmp_path, card(0, "0x1002", "amdgpu", power1_input=1_000_000))
    machine = find_meters(root=tmp_path, libraries=NOTHING, system="Linux")
    assert machine.absent == (Absent("nvml", "nvml_missing"), Absent("rapl", "rapl_missing"))


@pytest.mark.parametrize(("flags", "reason"), [("fpu hypervisor avx2", "vm_no_counter"), ("fpu avx2", "no_meter")])
def test_no_meter_at_all(tmp_path: Path, flags: str, reason: str) -> None:
    write(tmp_path, {"proc/cpuinfo": f"flags\t\t: {flags}"})
    for system in ("Linux", "FreeBSD"):
        machine = find_meters(root=tmp_path, libraries=NOTHING, system=system)
        assert (machine.meters, machine.absent) == ((), (Absent("any", reason),))


def test_windows(tmp_path: Path) -> None:
    machine = find_meters(root=tmp_path, libraries=NOTHING, system="Windows")
    assert (machine.meters, machine.absent) == ((), (Absent("any", "no_meter"),))
    nvml = FakeNvml([FakeGpu(energy_mj=lambda: 1000)])
    machine = find_meters(root=tmp_path, libraries=Libraries(lambda: nvml), system="Windows")
    assert [meter.facts.name for meter in machine.meters] == ["nvml"]


def test_mac(tmp_path: Path) -> None:
    machine = find_meters(root=tmp_path, libraries=NOTHING, system="Darwin")
    assert machine.absent == (Absent("apple", "apple_library_missing"),)
    library = SimpleNamespace(AppleEnergyMonitor=lambda: AppleMonitor(gpu_mj=5))
    machine = find_meters(root=tmp_path, libraries=Libraries(lambda: None, lambda: library), system="Darwin")
    assert [meter.facts.name for meter in machine.meters] == ["apple"]


def test_bounds_are_asked_for(tmp_path: Path) -> None:
    limits = {"sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw": 125_000_000}
    write(tmp_path, zone("0", "package-0", 1) | limits | {"proc/driver/nvidia/version": "x"})
    nvml = FakeNvml([FakeGpu(energy_mj=lambda: 1, mig=True), FakeGpu(limit_mw=300_000)])
    libraries = Libraries(lambda: nvml)
    machine = find_meters(root=tmp_path, libraries=libraries, system="Linux")
    assert [meter.facts.tier for meter in machine.meters] == ["counter"]
    assert machine.absent == (Absent("nvml", "mig"),)
    machine = find_meters(EnergyOptions(bounds=True, hardware=False), root=tmp_path, libraries=libraries)
    (bound,) = machine.meters
    assert (bound.facts.tier, bound.facts.covers) == ("bound", ("gpu board", "cpu package"))
    assert bound.sample().power_w == 450 + 300 + 125
    assert nvml.opened == 0
    nothing = find_meters(EnergyOptions(bounds=True, hardware=False), root=tmp_path / "x", libraries=NOTHING)
    assert nothing.meters == ()
