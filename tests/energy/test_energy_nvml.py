"""NVIDIA GPUs: through fakes, and through nvidia-ml-py with a library of C in the place of the driver's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from traces import BURST, Clock, times, track_of

from bendi.energy import Meter, MeterFailed, energy_of
from bendi.energy.fake import FakeGpu, FakeNvml
from bendi.energy.nvml import find_nvml, nvml_library, power_limit_w


def found(library: FakeNvml, clock: Clock | None = None) -> Meter:
    meter, reason = find_nvml(library, clock=clock or Clock())
    assert meter is not None, reason
    return meter


def gpu_of(clock: Clock, factor: float = 1.0) -> FakeGpu:
    """Uses what BURST says, and tells it as a real one does: ten new values a second, power as the mean of a second."""

    def seen_s() -> float:
        return int(clock.now_s * 10 + 1e-9) / 10

    return FakeGpu(
        energy_mj=lambda: int(1e9 + factor * 1000 * BURST.energy_j(0.0, seen_s())),
        power_mw=lambda: int(1000 * BURST.energy_j(seen_s() - 1, seen_s())),
        instant_mw=lambda: int(1000 * BURST.power_w(seen_s())),
    )


def test_counter_and_integral_of_a_burst() -> None:
    clock = Clock()
    library = FakeNvml([gpu_of(clock), gpu_of(clock)])
    meter = found(library, clock)
    energy = energy_of(meter.facts, track_of(meter, clock, times(0, 60, meter.facts.period_s)), 10.0, 40.0)
    assert energy.gross_j == pytest.approx(2 * 9000, rel=0.01)  # both GPUs
    assert (energy.tier, energy.covers, energy.flags) == ("counter", ("gpu board",), ())
    assert library.opened == 1
    meter.close()
    assert library.opened == 0


def test_counter_that_disagrees() -> None:
    """As seen on consumer cards: the counter shows 57% of what the readings of power add up to."""
    clock = Clock()
    meter = found(FakeNvml([gpu_of(clock, factor=187 / 327)]), clock)
    energy = energy_of(meter.facts, track_of(meter, clock, times(0, 60, 0.05)), 10.0, 40.0)
    assert energy.flags == ("counter_vs_integral",)


def test_driver_loaded_again() -> None:
    clock = Clock()
    gpu = FakeGpu(energy_mj=lambda: int(1000 * 250 * (clock.now_s if clock.now_s < 30 else clock.now_s - 30)))
    meter = found(FakeNvml([gpu]), clock)
    track = track_of(meter, clock, times(0, 60, 0.05))
    assert energy_of(meter.facts, track, 10.0, 40.0).reason == "counter_reset"
    assert energy_of(meter.facts, track, 35.0, 55.0).gross_j == pytest.approx(5000, rel=0.01)


def test_one_of_two_begins_anew() -> None:
    """The sum of both still grows: the reset is seen in the part."""
    clock = Clock()
    small = FakeGpu(energy_mj=lambda: int(1000 * 10 * (clock.now_s if clock.now_s < 30 else clock.now_s - 30)))
    large = FakeGpu(energy_mj=lambda: int(1000 * 100_000 * clock.now_s), limit_mw=10**9)
    meter = found(FakeNvml([small, large]), clock)
    track = track_of(meter, clock, times(0, 60, 0.05))
    assert energy_of(meter.facts, track, 10.0, 40.0).reason == "counter_reset"


def test_before_volta_power_is_sampled() -> None:
    clock = Clock()
    gpu = gpu_of(clock)
    gpu.energy_mj = gpu.instant_mw = None
    meter = found(FakeNvml([gpu]), clock)
    assert (meter.facts.tier, meter.facts.averaged_s) == ("sampled", 1.0)
    energy = energy_of(meter.facts, track_of(meter, clock, times(0, 60, 0.05)), 5.0, 50.0)
    assert energy.gross_j == pytest.approx(9300, rel=0.01)


def test_cards_of_two_ages_are_sampled_together() -> None:
    meter = found(FakeNvml([FakeGpu(power_mw=lambda: 1000), FakeGpu(power_mw=lambda: 2000, energy_mj=lambda: 5)]))
    assert (meter.facts.tier, meter.sample().power_w) == ("sampled", 3.0)


def test_superchips_count_the_module() -> None:
    assert found(FakeNvml([FakeGpu("NVIDIA GH200 480GB", energy_mj=lambda: 1)])).facts.covers == ("gpu module",)


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (None, "nvml_missing"),
        (FakeNvml(init_error="NVMLError_LibraryNotFound"), "nvml_missing"),
        (FakeNvml(init_error="NVMLError_DriverNotLoaded"), "nvml_missing"),
        (FakeNvml(init_error="NVMLError_NoPermission"), "nvml_permission"),
        (FakeNvml(init_error="NVMLError"), "meter_failed"),
        (FakeNvml([FakeGpu(energy_mj=lambda: 1, mig=True)]), "mig"),
        (FakeNvml([FakeGpu()]), "nvml_unsupported"),
        (FakeNvml([FakeGpu(energy_mj=lambda: 1), FakeGpu(power_mw=lambda: 1)]), "nvml_unsupported"),
        (FakeNvml([FakeGpu(error="NVMLError_NoPermission", energy_mj=lambda: 1)]), "nvml_permission"),
        (FakeNvml(), ""),
    ],
)
def test_reasons(library: FakeNvml | None, reason: str) -> None:
    assert find_nvml(library) == (None, reason)
    if library is not None:
        assert library.opened == 0


def test_chosen_gpus() -> None:
    library = FakeNvml([FakeGpu(energy_mj=lambda: 1000, mig=True), FakeGpu(energy_mj=lambda: 2000, mig=False)])
    meter, _reason = find_nvml(library, gpus=(1,))
    assert meter is not None and meter.sample().energy_j == 2.0
    assert find_nvml(library, gpus=(2,)) == (None, "meter_failed")
    assert library.opened == 1  # the meter's


def test_gpu_that_falls_off_the_bus() -> None:
    gpu = FakeGpu(energy_mj=lambda: 1)
    meter = found(FakeNvml([gpu]))
    gpu.error = "NVMLError_GpuIsLost"
    with pytest.raises(MeterFailed, match="meter_failed"):
        meter.sample()


def test_limit() -> None:
    assert power_limit_w(FakeNvml([FakeGpu(limit_mw=450_000), FakeGpu(limit_mw=300_000)])) == 750.0
    assert power_limit_w(FakeNvml([FakeGpu(limit_mw=None)])) is None
    assert power_limit_w(FakeNvml()) is None
    assert power_limit_w(FakeNvml(init_error="NVMLError")) is None
    assert power_limit_w(None) is None


def test_library_without_driver() -> None:
    library = nvml_library()
    if library is None:
        pytest.skip("nvidia-ml-py is not installed")
    meter, reason = find_nvml(library)
    if meter is not None:
        meter.close()
        pytest.skip("this machine has an NVIDIA GPU")
    assert reason in ("nvml_missing", "")


MEASURE = """
import sys, time
from bendi.energy import EnergyOptions, Sampler, find_meters
from pathlib import Path
found = find_meters(root=Path(sys.argv[1]), system="Linux")
with Sampler(found.meters) as sampler:
    begin_s = sampler.mark()
    time.sleep(4)
    energies = sampler.energy(begin_s, sampler.mark())
for energy in energies:
    print(energy.meter, energy.tier, energy.reason or energy.mean_w, sep=",")
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="the library has another name there")
def test_through_nvidia_ml_py(tmp_path: Path) -> None:
    if nvml_library() is None:
        pytest.skip("nvidia-ml-py is not installed")
    source = Path(__file__).with_name("nvml.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", source], check=True)
    driver = tmp_path / "root/proc/driver/nvidia"
    driver.mkdir(parents=True)
    (driver / "version").write_text("NVRM version: Kernel Module  580.1")
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "root")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["nvml", "counter"], ["nvml power", "sampled"]]
    assert float(rows[0][2]) == pytest.approx(200, rel=0.05)
    assert float(rows[1][2]) == pytest.approx(201)  # the power of now, not the mean of a second
