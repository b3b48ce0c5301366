"""macOS: facts from `sysctl` and `vm_stat`.

Written from the documents, not tried on a Mac: only the parsing of recorded output is tested.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from bendi.hardware.sysfs import to_int
from bendi.hardware.types import Cpu, Gpu, Memory

_TIMEOUT_S = 10.0
_ARM_ISA: Mapping[str, str] = {
    "hw.optional.neon": "neon",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_FP16": "fp16",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
_INTEL_ISA: Mapping[str, str] = {
    "hw.optional.avx1_0": "avx",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.f16c": "f16c",
    "hw.optional.bmi2": "bmi2",
    "hw.optional.avx512f": "avx512f",
}
_AVAILABLE = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
_GPU_SHARE = 0.75
"""What Metal recommends at most, where `iogpu.wired_limit_mb` does not set it; two thirds below 36 GB."""
_SMALL_MEMORY_BYTES = 36 * 1024**3


def read_sysctl() -> str:
    """All of `sysctl`, one `name: value` a line."""
    return _output("/usr/sbin/sysctl", "-a")


def read_vm_stat() -> str:
    return _output("/usr/bin/vm_stat")


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _values(sysctl: str) -> dict[str, str]:
    lines = (line.partition(":") for line in sysctl.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def parse_cpu(sysctl: str) -> Cpu:
    values = _values(sysctl)
    apple = values.get("hw.optional.arm64") == "1"
    physical = _number(values, "hw.physicalcpu") or 1
    fast = _number(values, "hw.perflevel0.physicalcpu") or physical
    caches = [
        (_number(values, f"hw.perflevel{level}.l2cachesize"), _number(values, f"hw.perflevel{level}.physicalcpu"))
        for level in (0, 1)
    ]
    clusters = [_number(values, f"hw.perflevel{level}.cpusperl2") or 1 for level in (0, 1)]
    l2_bytes = sum(size * -(-cpus // shared) for (size, cpus), shared in zip(caches, clusters, strict=True))
    return Cpu(
        model=values.get("machdep.cpu.brand_string", ""),
        vendor="Apple" if apple else values.get("machdep.cpu.vendor", ""),
        architecture="aarch64" if apple else "x86_64",
        physical_cores=physical,
        logical_cores=_number(values, "hw.logicalcpu") or physical,
        usable_cores=physical,
        performance_cores=fast,
        isa=frozenset(name for key, name in (_ARM_ISA if apple else _INTEL_ISA).items() if values.get(key) == "1"),
        l2_bytes=l2_bytes or _number(values, "hw.l2cachesize"),
        l3_bytes=_number(values, "hw.l3cachesize"),
    )


def parse_memory(sysctl: str, vm_stat: str) -> Memory:
    values, pages = _values(sysctl), _values(vm_stat)
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    page_bytes = int(page[1]) if page else 4096
    total_bytes = _number(values, "hw.memsize")
    available_bytes = page_bytes * sum(to_int(pages.get(name, "").rstrip(".")) or 0 for name in _AVAILABLE)
    swap = dict(re.findall(r"(total|free) = ([\d.]+)M", values.get("vm.swapusage", "")))
    return Memory(
        total_bytes=total_bytes,
        available_bytes=min(available_bytes, total_bytes),
        usable_bytes=min(available_bytes, total_bytes),
        swap_total_bytes=int(float(swap.get("total", 0)) * 1024**2),
        swap_free_bytes=int(float(swap.get("free", 0)) * 1024**2),
    )


def parse_gpus(sysctl: str, memory: Memory) -> tuple[Gpu, ...]:
    """The GPU of an Apple chip, which shares main memory up to a limit; none on Intel Macs."""
    values = _values(sysctl)
    if values.get("hw.optional.arm64") != "1":
        return ()
    share = 2 / 3 if memory.total_bytes <= _SMALL_MEMORY_BYTES else _GPU_SHARE
    total_bytes = _number(values, "iogpu.wired_limit_mb") * 1024**2 or int(memory.total_bytes * share)
    return (
        Gpu(
            name=values.get("machdep.cpu.brand_string", "Apple"),
            vendor="apple",
            index=0,
            memory_total_bytes=total_bytes,
            memory_free_bytes=min(total_bytes, memory.available_bytes),
            unified=True,
        ),
    )


def _number(values: Mapping[str, str], name: str) -> int:
    return to_int(values.get(name, "")) or 0
