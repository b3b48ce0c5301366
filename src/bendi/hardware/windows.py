"""Windows: facts from the Win32 API and the registry. Written from the documents, not tried on Windows.

On other systems the functions answer that nothing is known.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping

from bendi.hardware.types import Cpu, Memory

_FEATURES: Mapping[int, str] = {  # winnt.h, PF_*_AVAILABLE
    13: "sse3",
    36: "ssse3",
    38: "sse42",
    39: "avx",
    40: "avx2",
    41: "avx512f",
    19: "neon",
    43: "dotprod",
}
_RELATION_CORE = 0
_REGISTRY_CPU = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


class _MemoryStatus(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("page_file_total", ctypes.c_uint64),
        ("page_file_available", ctypes.c_uint64),
        ("virtual_total", ctypes.c_uint64),
        ("virtual_available", ctypes.c_uint64),
        ("extended_available", ctypes.c_uint64),
    )


class _CoreRelation(ctypes.Structure):
    """SYSTEM_LOGICAL_PROCESSOR_INFORMATION: a mask of CPUs, a relation, and 16 bytes that depend on it."""

    _fields_ = (("mask", ctypes.c_size_t), ("relation", ctypes.c_uint32), ("details", ctypes.c_uint64 * 2))


def read_memory() -> Memory:
    if sys.platform != "win32":
        return Memory()
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory()
    # Windows counts the page file together with main memory.
    return Memory(
        total_bytes=status.total,
        available_bytes=status.available,
        usable_bytes=status.available,
        swap_total_bytes=max(status.page_file_total - status.total, 0),
        swap_free_bytes=max(status.page_file_available - status.available, 0),
    )


def read_cpu() -> Cpu:
    if sys.platform != "win32":
        return Cpu()
    present = ctypes.windll.kernel32.IsProcessorFeaturePresent
    isa = {name for number, name in _FEATURES.items() if present(number)}
    if "avx2" in isa:
        # Windows has no names for these; every CPU with AVX2 has them.
        isa |= {"fma", "f16c", "bmi2"}
    logical = os.cpu_count() or 1
    physical = _physical_cores() or logical
    machine = platform.machine().lower()
    return Cpu(
        model=_registry_model(),
        vendor=platform.processor(),
        architecture={"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine),
        physical_cores=physical,
        logical_cores=logical,
        usable_cores=physical,
        performance_cores=physical,
        isa=frozenset(isa),
    )


def _physical_cores() -> int:
    if sys.platform != "win32":
        return 0
    query = ctypes.windll.kernel32.GetLogicalProcessorInformation
    size = ctypes.c_uint32(0)
    query(None, ctypes.byref(size))
    entries = (_CoreRelation * (size.value // ctypes.sizeof(_CoreRelation)))()
    if not query(ctypes.byref(entries), ctypes.byref(size)):
        return 0
    return sum(entry.relation == _RELATION_CORE for entry in entries)


def _registry_model() -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _REGISTRY_CPU) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except OSError:
        return ""
