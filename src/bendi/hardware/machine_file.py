"""Machines that are not this one: read from what `machine_to_json` wrote, or from a short description.

parse_machine("ram=32GiB,cores=8,gpu=RTX 4090")
parse_machine("ram=64GiB,gpu=2xRTX 3090:24GiB,disk=ssd")
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from bendi.errors import ConfigError
from bendi.hardware.types import Cpu, Disk, Gpu, GpuVendor, Machine, Memory
from bendi.i18n import _
from bendi.units import parse_size

MAX_TEXT = 1_000_000
_MAX_ITEMS = 64
_MAX_BYTES = 1 << 60
_MAX_COUNT = 1 << 16
_MAX_WORDS = 500
_Part = TypeVar("_Part", Cpu, Memory, Gpu, Disk)
_VENDORS: tuple[tuple[str, GpuVendor], ...] = (
    (r"\b(apple|m[1-9])\b", "apple"),
    (r"\b(radeon|rx|instinct|mi\d{2,3}x?|amd|vega|w[67]\d00)\b|\brx ?\d", "amd"),
    (r"\b(arc|intel)\b", "intel"),
)
_DISKS = ("ssd", "hdd", "unknown")
_USABLE_SHARE = 0.85
"""Of the memory of a described machine that programs do not use already."""
_PC_ISA = frozenset({"avx", "avx2", "fma", "f16c", "bmi2"})
_APPLE_ISA = frozenset({"neon", "dotprod", "i8mm"})
_GPU = re.compile(r"(?:(?P<count>\d{1,2})\s*[xX×*]\s*)?(?P<name>[^:]+?)(?::(?P<memory>[^:]+))?")


def machine_from_json(text: str) -> Machine:
    """The machine that `machine_to_json` described. What is absent is unknown.

    Raises ConfigError when the text describes no machine: no JSON, wrong types, impossible numbers.
    """
    if len(text) > MAX_TEXT:
        raise _unusable(_("it is longer than {limit} characters").format(limit=MAX_TEXT))
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(_("it is not JSON")) from error
    if not isinstance(table, dict) or not table.keys() & {"cpu", "memory", "gpus"}:
        raise _unusable(_("it has neither cpu nor memory nor gpus"))
    memory = _memory(_part(Memory, table.get("memory", {}), "memory"))
    return Machine(
        system=_text(table.get("system", ""), "system"),
        release=_text(table.get("release", ""), "release"),
        cpu=_cpu(_part(Cpu, table.get("cpu", {}), "cpu")),
        memory=memory,
        gpus=tuple(_part(Gpu, item, "gpus") for item in _list(table.get("gpus", []), "gpus")),
        disks=tuple(_part(Disk, item, "disks") for item in _list(table.get("disks", []), "disks")),
    )


def parse_machine(text: str) -> Machine:
    """A machine from `name=value` pairs: `ram` (a size), `cores`, `gpu` (a name, with a count before and a memory size
    after it; may be repeated), `disk` (`ssd` or `hdd`). `free`: memory that is not in use, otherwise a part of `ram`.

    Raises ConfigError for anything else.
    """
    if len(text) > MAX_TEXT:
        raise _unusable(_("it is longer than {limit} characters").format(limit=MAX_TEXT))
    values: dict[str, str] = {}
    gpus: list[Gpu] = []
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or name not in ("ram", "free", "cores", "gpu", "disk") or name in values:
            raise _unusable(_("“{pair}” is not understood").format(pair=pair.strip()[:80]))
        if name == "gpu":
            gpus += _gpus(value, len(gpus))
        else:
            values[name] = value
    if "ram" not in values:
        raise _unusable(_("it does not say how much memory there is"))
    total_bytes = _size(values["ram"])
    apple = any(gpu.vendor == "apple" for gpu in gpus)
    usable_bytes = _size(values["free"]) if "free" in values else int(total_bytes * _USABLE_SHARE)
    cores = _whole(values.get("cores", "8"))
    disk = values.get("disk", "ssd").lower()
    if disk not in _DISKS or usable_bytes > total_bytes or len(gpus) > _MAX_ITEMS:
        raise _unusable(_("its numbers do not go together"))
    return Machine(
        system="Darwin" if apple else "Linux",
        cpu=_described_cpu(cores, next((gpu.name for gpu in gpus if gpu.vendor == "apple"), "")),
        memory=Memory(total_bytes, usable_bytes, None, usable_bytes),
        gpus=tuple(_shared(gpu, usable_bytes, total_bytes) for gpu in gpus),
        disks=(Disk(Path("/"), kind="hdd" if disk == "hdd" else "ssd" if disk == "ssd" else "unknown"),),
    )


def _unusable(reason: str) -> ConfigError:
    return ConfigError(
        _("The description of the machine cannot be used: {reason}.").format(reason=reason),
        hint=_("Write it as {example}, or as JSON from `bendi doctor --json`.").format(
            example='"ram=32GiB,cores=8,gpu=RTX 4090"'
        ),
    )


def _part(kind: type[_Part], table: object, where: str) -> _Part:
    """One dataclass from a JSON object; unknown keys are left out, wrong values refused."""
    if not isinstance(table, dict):
        raise _wrong(where)
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in table:
            values[field.name] = _value(table[field.name], str(field.type), f"{where}.{field.name}")
    try:
        return kind(**values)
    except TypeError as error:  # a field without default is absent
        raise _wrong(where) from error


def _value(value: object, kind: str, where: str) -> object:
    if value is None and "None" in kind:
        return None
    if kind.startswith("bool"):
        if isinstance(value, bool):
            return value
        raise _wrong(where)
    if kind.startswith("int"):
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_BYTES:
            return value
        raise _wrong(where)
    if kind.startswith("frozenset"):
        return frozenset(_text(item, where) for item in _list(value, where, limit=_MAX_WORDS))
    text = _text(value, where)
    if kind == "GpuVendor" and text not in ("nvidia", "amd", "intel", "apple"):
        raise _wrong(where)
    if kind == "DiskKind" and text not in _DISKS:
        raise _wrong(where)
    return Path(text) if kind == "Path" else text


def _cpu(cpu: Cpu) -> Cpu:
    counts = (cpu.physical_cores, cpu.logical_cores, cpu.usable_cores, cpu.performance_cores, cpu.numa_nodes)
    if not all(1 <= count <= _MAX_COUNT for count in counts):
        raise _wrong("cpu")
    return cpu


def _memory(memory: Memory) -> Memory:
    """A description that says only how much there is says how much can be used, too."""
    if memory.usable_bytes or not memory.total_bytes:
        return memory
    available = memory.available_bytes or int(memory.total_bytes * _USABLE_SHARE)
    return Memory(memory.total_bytes, available, memory.limit_bytes, min(available, memory.limit_bytes or available))


def _list(value: object, where: str, limit: int = _MAX_ITEMS) -> list[object]:
    if not isinstance(value, list) or len(value) > limit:
        raise _wrong(where)
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_WORDS or not all(letter.isprintable() for letter in value):
        raise _wrong(where)
    return value


def _wrong(where: str) -> ConfigError:
    return _unusable(_("{name} has a value of the wrong kind").format(name=where))


def _gpus(text: str, first: int) -> list[Gpu]:
    match = _GPU.fullmatch(text)
    if match is None or not all(letter.isprintable() for letter in text):
        raise _unusable(_("“{pair}” is not understood").format(pair=text[:80]))
    count = _whole(match["count"] or "1")
    memory_bytes = _size(match["memory"]) if match["memory"] else None
    name = match["name"].strip()
    vendor: GpuVendor = next((maker for pattern, maker in _VENDORS if re.search(pattern, name.lower())), "nvidia")
    return [Gpu(name, vendor, first + number, memory_bytes, memory_bytes) for number in range(count)]


def _shared(gpu: Gpu, usable_bytes: int, total_bytes: int) -> Gpu:
    """GPUs that use main memory: Apple's, and those in processors."""
    built_in = re.search(r"\b(8060s|8050s|[678][0-9]0m|gb10)\b", gpu.name.lower()) is not None
    if gpu.vendor != "apple" and not built_in:
        return gpu
    total = gpu.memory_total_bytes or (total_bytes * 3 // 4 if total_bytes > 36 * 2**30 else total_bytes * 2 // 3)
    return Gpu(gpu.name, gpu.vendor, gpu.index, total, min(total, usable_bytes), unified=True)


def _described_cpu(cores: int, apple_name: str) -> Cpu:
    return Cpu(
        model=apple_name,
        vendor="Apple" if apple_name else "",
        architecture="aarch64" if apple_name else "x86_64",
        physical_cores=cores,
        logical_cores=cores if apple_name else 2 * cores,
        usable_cores=cores,
        performance_cores=cores,
        isa=_APPLE_ISA if apple_name else _PC_ISA,
    )


def _size(text: str) -> int:
    try:
        size_bytes = parse_size(text)
    except (ValueError, OverflowError) as error:
        raise _unusable(_("“{pair}” is not understood").format(pair=text[:80])) from error
    if not 0 < size_bytes <= _MAX_BYTES:
        raise _unusable(_("“{pair}” is not understood").format(pair=text[:80]))
    return size_bytes


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _MAX_COUNT:
        raise _unusable(_("“{pair}” is not understood").format(pair=text[:80]))
    return int(text)
