"""Every code of a missing or doubtful figure is given by something, and has a sentence."""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from traces import (
    AVERAGE,
    BOTH,
    BURST,
    COUNTER,
    POWER,
    STEADY,
    card,
    nobody,
    public_folder,
    times,
    trace,
    write,
    zone,
)

import bendi.energy
from bendi.energy import (
    DOUBTS,
    MISSING,
    CloudPrice,
    CostOptions,
    EnergyOptions,
    Hardware,
    MeterFacts,
    Repeated,
    Speed,
    Tariff,
    break_even,
    cost_per_mtok,
    energy_of,
    find_meters,
    phases_of,
    reason_text,
    with_idle,
)
from bendi.energy.fake import FakeGpu, FakeNvml, PowerOverTime
from bendi.energy.found import Libraries
from bendi.energy.windows import Track
from bendi.results import Energy
from plug_server import Plug

SOURCE = Path(bendi.energy.__file__).parent
TARIFF, CARD = Tariff("EUR", 0.3), Hardware(2000.0)
SPEED, CLOUD = Speed(0.001, 50.0), CloudPrice("m", 1.0, 2.0, "s", "2026-01-01")


def absent(tree: dict[str, object], nvml: object = None, system: str = "Linux") -> Callable[[Path], set[str]]:
    def look(root: Path) -> set[str]:
        libraries = Libraries(lambda: nvml, lambda: None)
        return {each.reason for each in find_meters(root=write(root, tree), libraries=libraries, system=system).absent}

    return look


def permission(_root: Path) -> set[str]:
    with public_folder() as root:
        file = write(root, zone("0", "package-0", 7)) / f"{RAPL}/energy_uj"
        file.chmod(0o400 if os.geteuid() == 0 else 0)
        with nobody():
            return absent({})(root)


def plug(status: int, body: bytes) -> Callable[[Path], set[str]]:
    def look(_root: Path) -> set[str]:
        with Plug(lambda _path: (status, body, {})) as server:
            return {each.reason for each in find_meters(EnergyOptions(plug_url=server.url, hardware=False)).absent}

    return look


def closed_port(_root: Path) -> set[str]:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    return {each.reason for each in find_meters(EnergyOptions(plug_url=url, hardware=False)).absent}


def window(
    facts: MeterFacts,
    begin_s: float = 10.0,
    end_s: float = 40.0,
    power: PowerOverTime = STEADY,
    without: tuple[float, float] = (-1.0, -1.0),
    **trouble: object,
) -> Callable[[Path], set[str]]:
    def measure(_root: Path) -> set[str]:
        at_s = [time_s for time_s in times(0, 100, facts.period_s) if not without[0] < time_s < without[1]]
        energy = energy_of(facts, trace(facts, power, at_s, **trouble), begin_s, end_s)  # type: ignore[arg-type]
        assert (energy.gross_j is None) == bool(energy.reason)
        return {energy.reason, *energy.flags} - {""}

    return measure


def idle(*watts: float) -> Callable[[Path], set[str]]:
    busy = Energy("counter", "counter", ("gpu board",), 10.0, 1000.0)
    windows = [[replace(busy, gross_j=each * 10)] for each in watts]
    return lambda _root: set(with_idle([busy], windows)[0].flags)


def because(reason: str) -> Callable[[Path], set[str]]:
    return lambda _root: {reason}


NVIDIA: dict[str, object] = {"proc/driver/nvidia/version": "Kernel Module 580.1"}
RAPL = "sys/class/powercap/intel-rapl:0"
CASES: dict[str, Callable[[Path], set[str]]] = {
    "no_meter": absent({}),
    "vm_no_counter": absent({"proc/cpuinfo": "flags : fpu hypervisor"}),
    "rapl_permission": permission,
    "rapl_missing": absent(card(0, "0x1002", "amdgpu", power1_input=1)),
    "nvml_missing": absent(NVIDIA),
    "nvml_permission": absent(NVIDIA, FakeNvml(init_error="NVMLError_NoPermission")),
    "nvml_unsupported": absent(NVIDIA, FakeNvml([FakeGpu()])),
    "mig": absent(NVIDIA, FakeNvml([FakeGpu(energy_mj=lambda: 1, mig=True)])),
    "hwmon_missing": absent(card(0, "0x1002", "amdgpu")),
    "apple_library_missing": absent({}, system="Darwin"),
    "plug_unreachable": closed_port,
    "plug_refused": plug(401, b""),
    "plug_unknown": plug(200, b"hello"),
    "unreadable": absent({f"{RAPL}/name": "package-0", f"{RAPL}/energy_uj": "nonsense"}),
    "meter_failed": absent(NVIDIA, FakeNvml([FakeGpu(energy_mj=lambda: 1)], init_error="NVMLError_GpuIsLost")),
    "window_too_short": window(COUNTER, 10.0, 10.9),
    "no_samples": lambda _root: {energy_of(COUNTER, Track(), 1.0, 20.0).reason},
    "not_bracketed": window(COUNTER, 90.0, 120.0),
    "sampling_gap": window(POWER, without=(20.0, 24.0)),
    "counter_reset": window(COUNTER, reset_at_s=20.0),
    "counter_stuck": window(COUNTER, factor=0.0),
    "implausible": window(replace(COUNTER, most_w=200.0)),
    "counter_vs_integral": window(BOTH, factor=0.9),
    "late_samples": window(POWER, power=BURST, without=(20.0, 22.0)),
    "short_window": window(COUNTER, 10.0, 15.0),
    "averaged_power": window(AVERAGE, 8.0, 20.0, BURST),
    "constant": window(POWER),
    "low": window(replace(COUNTER, least_w=300.0)),
    "modelled": window(replace(COUNTER, flags=("modelled",))),
    "idle_drift": idle(20.0, 30.0),
    "idle_unknown": idle(),
    "idle_above_load": idle(120.0, 121.0),
    "too_few_repeats": because(phases_of([]).reason),
    "shapes_alike": because(phases_of([Repeated(1.0, 5, 5)] * 9).reason),
    "no_energy": because(cost_per_mtok(Speed(None, None), CostOptions(TARIFF)).reason),
    "no_speed": because(cost_per_mtok(Speed(0.1, None), CostOptions(TARIFF, CARD)).reason),
    "no_price": because(cost_per_mtok(SPEED, CostOptions()).reason),
    "no_exchange_rate": because(break_even(SPEED, SPEED, CLOUD, CostOptions(TARIFF, CARD), 1.0).reason),
    "no_saving": because(break_even(SPEED, SPEED, CLOUD, CostOptions(TARIFF, CARD, usd=1e-6), 1.0).reason),
}


def test_no_code_without_a_case() -> None:
    assert set(CASES) == set(MISSING) | set(DOUBTS)
    assert not set(MISSING) & set(DOUBTS)


@pytest.mark.parametrize("code", CASES)
def test_case_gives_its_code_and_no_other(code: str, tmp_path: Path) -> None:
    assert CASES[code](tmp_path) == {code}


@pytest.mark.parametrize("code", CASES)
def test_sentences(code: str) -> None:
    text = reason_text(code)
    assert text.endswith(".") and text[0].isupper() and code not in text


def test_code_of_a_later_version() -> None:
    assert reason_text("quantum_meter") == "quantum_meter"


def test_no_code_is_spelled_otherwise() -> None:
    """Every text in the package that looks like a code and is given as a reason is one."""
    known = set(MISSING) | set(DOUBTS) | {""}
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "reason" and isinstance(node.value, ast.Constant):
                assert node.value.value in known, f"{path.name}: {node.value.value}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MeterFailed":
                for text in (each.value for each in ast.walk(node) if isinstance(each, ast.Constant)):
                    assert text in known, f"{path.name}: {text}"
