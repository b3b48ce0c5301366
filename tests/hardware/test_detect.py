from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import (
    GIB,
    MIB,
    Tree,
    arm_board,
    arm_server,
    container,
    dual_socket,
    laptop,
    old_desktop,
    small_vm,
    write,
)

from bendi.hardware import Cpu, Machine, Memory, detect_machine, machine_to_json, macos, windows
from bendi.hardware.sysfs import cpu_list, read_fields, read_int, read_size, read_text

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads this machine's /proc")


@pytest.mark.parametrize("make", [small_vm, laptop, container, arm_server, arm_board, dual_socket, old_desktop, dict])
def test_json_of_recorded_machines(tmp_path: Path, make: Callable[[], Tree]) -> None:
    machine = detect_machine(write(tmp_path, make()), [tmp_path])
    again = json.loads(json.dumps(machine_to_json(machine)))
    assert again["cpu"]["isa"] == sorted(machine.cpu.isa)
    assert again["memory"]["usable_bytes"] == machine.memory.usable_bytes
    assert again["disks"][0]["path"] == str(tmp_path)
    assert again["system"] == "Linux"


def test_an_unknown_machine_is_still_a_machine() -> None:
    assert machine_to_json(Machine())["gpus"] == []


@LINUX
def test_this_machine() -> None:
    machine = detect_machine()
    assert machine.cpu.usable_cores <= len(os.sched_getaffinity(0))
    assert 1 <= machine.cpu.usable_cores <= machine.cpu.physical_cores <= machine.cpu.logical_cores
    pages_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.memory.total_bytes == pages_bytes
    assert 0 < machine.memory.usable_bytes <= machine.memory.available_bytes <= pages_bytes


@LINUX
def test_affinity_is_followed() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert detect_machine().cpu.usable_cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


@given(st.frozensets(st.integers(0, 300)))
def test_cpu_lists(numbers: frozenset[int]) -> None:
    assert cpu_list(",".join(str(number) for number in numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "count"), [("0-3", 4), ("0-1,4,6-7", 5), ("", 0), (" 3 ", 1), ("7-5", 0), ("0-70000", 0)]
)
def test_cpu_list_forms(text: str, count: int) -> None:
    assert len(cpu_list(text)) == count


@given(st.binary(max_size=300))
def test_any_bytes_in_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    assert isinstance(read_text(path), str)
    assert all(isinstance(number, int) for number in read_fields(path).values())
    assert read_size(path) >= 0
    assert read_int(path) is None or isinstance(read_int(path), int)


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert read_text(tmp_path) == read_text(tmp_path / "absent") == ""
    assert read_fields(tmp_path / "absent") == {}
    assert read_int(tmp_path / "absent") is None


@pytest.mark.parametrize(("text", "size"), [("32K", 32768), ("1M", MIB), ("512", 512), ("x", 0), ("-4K", 0), ("", 0)])
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    (tmp_path / "size").write_text(text)
    assert read_size(tmp_path / "size") == size


SYSCTL = """hw.memsize: 17179869184
hw.physicalcpu: 8
hw.logicalcpu: 8
hw.optional.arm64: 1
hw.optional.neon: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 0
hw.perflevel0.physicalcpu: 4
hw.perflevel0.l2cachesize: 16777216
hw.perflevel0.cpusperl2: 4
hw.perflevel1.physicalcpu: 4
hw.perflevel1.l2cachesize: 4194304
hw.perflevel1.cpusperl2: 4
iogpu.wired_limit_mb: 0
machdep.cpu.brand_string: Apple M2
vm.swapusage: total = 2048.00M  used = 1024.00M  free = 1024.00M  (encrypted)
"""
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               100000.
Pages active:                             300000.
Pages inactive:                           200000.
Pages speculative:                         10000.
Pages purgeable:                            2000.
"""


def test_recorded_mac() -> None:
    cpu = macos.parse_cpu(SYSCTL)
    assert (cpu.model, cpu.vendor, cpu.architecture) == ("Apple M2", "Apple", "aarch64")
    assert (cpu.physical_cores, cpu.performance_cores, cpu.l2_bytes) == (8, 4, 20 * MIB)
    assert cpu.isa == {"neon", "dotprod"}
    memory = macos.parse_memory(SYSCTL, VM_STAT)
    assert memory.total_bytes == 16 * GIB
    assert memory.usable_bytes == memory.available_bytes == 312_000 * 16384
    assert (memory.swap_total_bytes, memory.swap_free_bytes) == (2 * GIB, GIB)
    (gpu,) = macos.parse_gpus(SYSCTL, memory)
    assert gpu.unified and gpu.memory_total_bytes == int(16 * GIB * 2 / 3)
    assert gpu.memory_free_bytes == memory.available_bytes


def test_mac_with_a_raised_limit() -> None:
    raised = SYSCTL.replace("wired_limit_mb: 0", "wired_limit_mb: 14336")
    (gpu,) = macos.parse_gpus(raised, macos.parse_memory(raised, VM_STAT))
    assert gpu.memory_total_bytes == 14 * GIB


def test_mac_that_answers_nothing() -> None:
    assert macos.parse_cpu("").physical_cores == 1
    assert macos.parse_memory("", "") == Memory()
    assert macos.parse_gpus("", Memory()) == ()


@pytest.mark.skipif(sys.platform == "win32", reason="for other systems")
def test_windows_facts_are_unknown_elsewhere() -> None:
    assert windows.read_cpu() == Cpu()
    assert windows.read_memory() == Memory()
