"""The processor on Linux, from /proc/cpuinfo and the topology in /sys/devices/system/cpu."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from bendi.hardware.cgroup import cpu_quota
from bendi.hardware.sysfs import cpu_list, each_line, read_int, read_size, read_text, subfolders
from bendi.hardware.types import Cpu

_CPUS = "sys/devices/system/cpu"
_ISA: Mapping[str, str] = {
    # x86: the kernel's names (arch/x86/include/asm/cpufeatures.h)
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_2": "sse42",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "bmi2": "bmi2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512cd": "avx512cd",
    "avx512vbmi": "avx512_vbmi",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    # 64-bit Arm (Documentation/arch/arm64/elf_hwcaps.rst)
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
    # LoongArch
    "lsx": "lsx",
    "lasx": "lasx",
}
_ARM_VENDORS: Mapping[int, str] = {
    0x41: "ARM",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x70: "Phytium",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}
_ARM_PARTS: Mapping[tuple[int, int], str] = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "Kunpeng-920",
    (0x51, 0x001): "Oryon",
    (0x70, 0x662): "FTC662",
    (0x70, 0x663): "FTC663",
    (0x70, 0x664): "FTC664",
    (0x70, 0x862): "FTC862",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1A",
}
"""Core names by the implementer and part numbers of the MIDR register, as in util-linux `lscpu-arm.c`."""
_MODEL_KEYS = ("model name", "Model Name", "cpu model", "uarch", "cpu")


def read_cpu(root: Path) -> Cpu:
    """CPU facts from the /proc and /sys below `root`."""
    text = read_text(root / "proc/cpuinfo")
    fields = _first_values(text)
    online = cpu_list(read_text(root / _CPUS / "online")) or _listed(text)
    allowed = (_allowed(root) & online) or online
    cores = {cpu: _core(root, cpu) for cpu in online}
    physical = len(set(cores.values()))
    usable = len({cores[cpu] for cpu in allowed})
    quota = cpu_quota(root)
    fast = _fast(root, allowed)
    return Cpu(
        model=_model(text, fields),
        vendor=_vendor(fields),
        architecture=_architecture(fields, root),
        physical_cores=max(physical, 1),
        logical_cores=max(len(online), 1),
        usable_cores=max(usable if quota is None else min(usable, int(quota)), 1),
        performance_cores=max(len({cores[cpu] for cpu in fast}), 1),
        isa=_isa(text),
        l2_bytes=_cache_bytes(root, online, 2),
        l3_bytes=_cache_bytes(root, online, 3),
        numa_nodes=max(_numa_nodes(root), 1),
    )


def read_core_cpus(root: Path) -> tuple[int, ...]:
    """One of the logical CPUs of each physical core that this process may use, the fast cores first; from the /proc and
    /sys below `root`. Empty where they cannot be told."""
    allowed = _allowed(root)
    fast = _fast(root, allowed)
    first: dict[str, int] = {}
    for cpu in sorted(allowed):
        first.setdefault(_core(root, cpu), cpu)
    return tuple(sorted(first.values(), key=lambda cpu: (cpu not in fast, cpu)))


def _first_values(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in each_line(text):
        name, colon, value = line.partition(":")
        if colon:
            values.setdefault(name.strip(), value.strip())
    return values


def _listed(text: str) -> frozenset[int]:
    names = (line.partition(":") for line in each_line(text) if line.startswith("processor"))
    return cpu_list(",".join(value for _, _, value in names)) or frozenset({0})


def _allowed(root: Path) -> frozenset[int]:
    """The CPUs that the affinity, and with it any cpuset, lets this process use."""
    for line in each_line(read_text(root / "proc/self/status")):
        if line.startswith("Cpus_allowed_list:"):
            return cpu_list(line.partition(":")[2])
    return frozenset()


def _core(root: Path, cpu: int) -> str:
    """A name for the physical core that `cpu` is a thread of: the list of its threads."""
    topology = root / _CPUS / f"cpu{cpu}/topology"
    return read_text(topology / "core_cpus_list") or read_text(topology / "thread_siblings_list") or str(cpu)


def _fast(root: Path, allowed: frozenset[int]) -> frozenset[int]:
    """The CPUs of `allowed` that are of the fast kind; all, when they are alike."""
    performance = cpu_list(read_text(root / "sys/devices/cpu_core/cpus"))  # Intel hybrids
    if not performance:
        capacities = {cpu: read_int(root / _CPUS / f"cpu{cpu}/cpu_capacity") or 0 for cpu in allowed}
        # Middle cores have at least half of what the largest have; the small ones a third or less.
        half = max(capacities.values(), default=0) / 2
        performance = frozenset(cpu for cpu, capacity in capacities.items() if capacity >= half)
    return (performance & allowed) or allowed


def _isa(text: str) -> frozenset[str]:
    """What all cores have. Each distinct line is parsed once: they are long, and there is one per core."""
    lines = {line for line in each_line(text) if line.startswith(("flags", "Features", "features"))}
    sets = [frozenset(line.partition(":")[2].split()) for line in lines]
    names = frozenset.intersection(*sets) if sets else frozenset()
    return frozenset(_ISA[name] for name in names if name in _ISA)


def _architecture(fields: Mapping[str, str], root: Path) -> str:
    """From the file rather than from the interpreter, which may be a 32-bit one or look at another machine."""
    if "CPU implementer" in fields:
        return "aarch64" if fields.get("CPU architecture") in ("8", "AArch64") else "armv7l"
    if fields.get("isa", "").startswith("rv64"):
        return "riscv64"
    if "Loongson" in fields.get("CPU Family", "") or "loongarch64" in fields.get("ISA", ""):
        return "loongarch64"
    if "flags" in fields:
        return "x86_64" if "lm" in fields["flags"].split() else "i686"
    return platform.machine() if root == Path("/") else ""


def _model(text: str, fields: Mapping[str, str]) -> str:
    if "CPU implementer" not in fields:
        return next((fields[key] for key in _MODEL_KEYS if fields.get(key)), "")
    implementers = [line.partition(":")[2] for line in each_line(text) if line.startswith("CPU implementer")]
    parts = [line.partition(":")[2] for line in each_line(text) if line.startswith("CPU part")]
    names: list[str] = []
    for implementer, part in zip(implementers, parts, strict=False):
        name = _ARM_PARTS.get((_hex(implementer), _hex(part))) or f"part {part.strip()}"
        if name not in names:
            names.append(name)
    return " + ".join(names)


def _vendor(fields: Mapping[str, str]) -> str:
    if "CPU implementer" in fields:
        return _ARM_VENDORS.get(_hex(fields["CPU implementer"]), fields["CPU implementer"])
    return fields.get("vendor_id") or fields.get("mvendorid", "")


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1


def _cache_bytes(root: Path, online: frozenset[int], level: int) -> int:
    """All caches of one level together; each is counted once, however many cores share it."""
    total_bytes = 0
    counted: set[int] = set()
    for cpu in sorted(online):
        if cpu in counted:
            continue
        folder = root / _CPUS / f"cpu{cpu}/cache"
        for index in subfolders(folder, "index[0-9]*"):
            if read_int(index / "level") == level and read_text(index / "type") != "Instruction":
                total_bytes += read_size(index / "size")
                counted |= cpu_list(read_text(index / "shared_cpu_list"))
    return total_bytes


def _numa_nodes(root: Path) -> int:
    nodes = subfolders(root / "sys/devices/system/node", "node[0-9]*")
    return sum(bool(read_text(node / "cpulist")) for node in nodes)
