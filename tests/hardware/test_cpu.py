from __future__ import annotations

from pathlib import Path

import pytest
from machines import (
    X86_2013,
    Tree,
    arm_board,
    arm_server,
    container,
    cores,
    dual_socket,
    laptop,
    old_desktop,
    small_vm,
    status,
    write,
    x86,
)

from bendi.hardware import Cpu, detect_core_cpus, detect_cpu
from bendi.units import MIB

NEEDED_BY_THE_WHEEL = {"avx", "avx2", "fma", "f16c", "bmi2"}


def cpu_of(folder: Path, tree: Tree) -> Cpu:
    return detect_cpu(write(folder, tree))


def test_small_vm(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, small_vm())
    assert (cpu.model, cpu.vendor, cpu.architecture) == ("AMD EPYC", "AuthenticAMD", "x86_64")
    assert (cpu.physical_cores, cpu.logical_cores, cpu.usable_cores, cpu.performance_cores) == (2, 2, 2, 2)
    assert cpu.isa >= NEEDED_BY_THE_WHEEL | {"avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni"}
    assert (cpu.l2_bytes, cpu.l3_bytes, cpu.numa_nodes) == (2 * MIB, 32 * MIB, 1)


def test_hybrid_laptop(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, laptop())
    assert (cpu.physical_cores, cpu.logical_cores, cpu.usable_cores, cpu.performance_cores) == (14, 20, 14, 6)
    assert cpu.l2_bytes == 6 * 1280 * 1024 + 2 * 2 * MIB
    assert cpu.l3_bytes == 24 * MIB
    assert "avx512f" not in cpu.isa


@pytest.mark.parametrize(("allowed", "usable", "fast"), [("0-5", 3, 3), ("12-19", 8, 8), ("10-13", 3, 1), ("0", 1, 1)])
def test_laptop_with_an_affinity(tmp_path: Path, allowed: str, usable: int, fast: int) -> None:
    cpu = cpu_of(tmp_path, laptop() | status(allowed))
    assert (cpu.physical_cores, cpu.usable_cores, cpu.performance_cores) == (14, usable, fast)


@pytest.mark.parametrize(
    ("allowed", "cpus"),
    [
        ("0-19", (0, 2, 4, 6, 8, 10, *range(12, 20))),
        ("1-3,14", (1, 2, 14)),
        ("12-13,11", (11, 12, 13)),
        ("5", (5,)),
    ],
)
def test_one_cpu_of_each_core_the_fast_ones_first(tmp_path: Path, allowed: str, cpus: tuple[int, ...]) -> None:
    assert detect_core_cpus(write(tmp_path, laptop() | status(allowed))) == cpus


def test_no_cpus_to_choose_from(tmp_path: Path) -> None:
    assert detect_core_cpus(tmp_path) == ()


def test_quota_of_a_container(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, container())
    assert (cpu.physical_cores, cpu.usable_cores) == (16, 1)


@pytest.mark.parametrize(
    ("quota", "usable"), [("max 100000", 16), ("50000 100000", 1), ("350000 100000", 3), ("nonsense", 16), ("", 16)]
)
def test_quotas(tmp_path: Path, quota: str, usable: int) -> None:
    assert cpu_of(tmp_path, container() | {"sys/fs/cgroup/cpu.max": quota}).usable_cores == usable


def test_dual_socket_bound_to_one(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, dual_socket())
    assert (cpu.physical_cores, cpu.logical_cores) == (64, 128)
    assert cpu.usable_cores == 20  # a quota of v1, smaller than the 32 cores of the socket
    assert cpu.performance_cores == 32
    assert cpu.numa_nodes == 2
    assert {"amx_int8", "amx_bf16", "amx_tile"} <= cpu.isa
    assert cpu.l2_bytes == 64 * 2 * MIB
    assert cpu.l3_bytes == 2 * 105 * MIB


def test_arm_server(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, arm_server())
    assert (cpu.model, cpu.vendor, cpu.architecture) == ("Neoverse-N1", "ARM", "aarch64")
    assert (cpu.physical_cores, cpu.logical_cores, cpu.performance_cores) == (64, 64, 64)
    assert cpu.isa == {"neon", "fp16", "dotprod"}
    assert (cpu.l2_bytes, cpu.l3_bytes) == (64 * MIB, 32 * MIB)


def test_cores_of_different_kinds(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, arm_board())
    assert cpu.model == "Cortex-A55 + Cortex-A76"
    assert (cpu.usable_cores, cpu.performance_cores) == (8, 4)
    assert cpu.isa == {"neon", "fp16", "dotprod"}  # what all cores have


def test_without_avx2(tmp_path: Path) -> None:
    cpu = cpu_of(tmp_path, old_desktop())
    assert cpu.architecture == "x86_64"
    assert NEEDED_BY_THE_WHEEL - cpu.isa == {"avx2", "fma", "bmi2"}
    # Without /sys every CPU counts as a core.
    assert (cpu.physical_cores, cpu.usable_cores, cpu.l3_bytes, cpu.numa_nodes) == (4, 4, 0, 1)


def test_a_core_that_is_switched_off(tmp_path: Path) -> None:
    tree = x86(4, "x", "y", X86_2013) | cores(["0,2", "1,3"]) | {"sys/devices/system/cpu/online": "0-1,3"}
    cpu = cpu_of(tmp_path, tree | status("0-3"))
    assert (cpu.physical_cores, cpu.logical_cores) == (2, 3)


@pytest.mark.parametrize(
    ("text", "architecture"),
    [
        ("isa\t\t: rv64imafdcv\nuarch\t\t: spacemit,x60", "riscv64"),
        (
            "CPU Family\t\t: Loongson-64bit\nModel Name\t\t: Loongson-3A6000\nFeatures\t: lam fpu lsx lasx",
            "loongarch64",
        ),
        ("vendor_id: x\nflags\t: fpu sse2", "i686"),
        ("CPU implementer: 0x41\nCPU architecture: 7", "armv7l"),
    ],
)
def test_other_architectures(tmp_path: Path, text: str, architecture: str) -> None:
    assert cpu_of(tmp_path, {"proc/cpuinfo": text}).architecture == architecture


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"proc/cpuinfo": "\0\xff" * 50},
        x86(2, "x", "y", "") | {"sys/devices/system/cpu/online": "0-99999999999"},
        x86(2, "x", "y", "") | {"sys/devices/system/cpu/online": "5-1,-3,x-y,,"},
        x86(2, "x", "y", "") | {"sys/devices/system/cpu/cpu0/cache/index2/level": "2"},
    ],
)
def test_nonsense_is_unknown(tmp_path: Path, tree: Tree) -> None:
    cpu = cpu_of(tmp_path, tree)
    assert cpu.physical_cores >= 1 and cpu.usable_cores >= 1 and cpu.performance_cores >= 1
    assert cpu.l2_bytes == 0
