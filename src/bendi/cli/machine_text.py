"""The machine in a few readable lines, for `demo` and `doctor`."""

from __future__ import annotations

from bendi.hardware import Gpu, Machine
from bendi.i18n import _
from bendi.units import format_size


def machine_lines(machine: Machine) -> list[str]:
    """One line each for CPU, memory and every GPU."""
    cpu, memory = machine.cpu, machine.memory
    lines = [
        _("CPU     {model}: {cores} cores usable, {isa}").format(
            model=cpu.model or cpu.architecture, cores=cpu.usable_cores, isa=_isa_summary(cpu.isa)
        ),
        _("Memory  {usable} usable now of {total}").format(
            usable=format_size(memory.usable_bytes), total=format_size(memory.limit_bytes or memory.total_bytes)
        ),
    ]
    if not machine.gpus:
        lines.append(_("GPU     none found: models run on the CPU"))
    return lines + [_gpu_line(gpu) for gpu in machine.gpus]


def _gpu_line(gpu: Gpu) -> str:
    total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
    if not total:
        return _("GPU     {name}").format(name=gpu.name)
    if free is None:
        return _("GPU     {name}, {total}").format(name=gpu.name, total=format_size(total))
    return _("GPU     {name}, {free} free of {total}").format(
        name=gpu.name, free=format_size(free), total=format_size(total)
    )


def _isa_summary(isa: frozenset[str]) -> str:
    """The widest instruction sets, which decide the speed."""
    named = (
        ("amx_int8", "AMX"),
        ("avx512_bf16", "AVX-512 BF16"),
        ("avx512_vnni", "AVX-512 VNNI"),
        ("avx512f", "AVX-512"),
        ("avx2", "AVX2"),
        ("avx", "AVX"),
        ("sve", "SVE"),
        ("neon", "NEON"),
        ("asimd", "NEON"),
    )
    return next((label for flag, label in named if flag in isa), _("no vector instructions known"))
