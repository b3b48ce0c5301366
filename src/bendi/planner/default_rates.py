"""How fast a processor computes as long as nothing was measured: from its cores and instructions, rather too low."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from bendi.formats import TENSOR_TYPES_BY_NAME
from bendi.hardware import Cpu, Machine
from bendi.planner.calibration import AttentionRates, Calibration, DeviceRates, TypeRates
from bendi.planner.gpu_specs import gpu_specs

_DISK_BYTES_S: Mapping[str, float] = {"ssd": 1.5e9, "hdd": 0.12e9, "unknown": 0.5e9}
"""Reading a large file: SATA and NVMe drives lie between 0.5 and 7 GB/s."""
_CORE_READ_BYTES_S = 16e9
"""What one core can have in flight, whatever the memory could deliver."""
_ISA_RATES: tuple[tuple[str, float, float], ...] = (
    ("amx_int8", 8e9, 70e9),
    ("avx512_vnni", 13e9, 45e9),
    ("avx_vnni", 10e9, 35e9),
    ("avx2", 8e9, 25e9),
    ("avx", 3e9, 8e9),
    ("i8mm", 7e9, 30e9),
    ("dotprod", 5e9, 15e9),
    ("neon", 3e9, 6e9),
    ("lasx", 4e9, 10e9),
)
"""By the best instruction set: bytes of weights that a core converts and multiplies in a second while generating, and
weights times tokens with a long prompt. With an AVX2 build of llama.cpp, each of two cores of a Sapphire Rapids server
reached 6.5e9 and 41e9 to 59e9, each of two Zen 5 cores 20e9 and 53e9: such figures are good to a factor of two."""
_NO_ISA = (0.8e9, 1.5e9)
_TYPE_SHARES: Mapping[str, tuple[float, float]] = {
    "F32": (1.0, 0.35),
    "F16": (1.0, 0.5),
    "BF16": (0.9, 0.4),
    "Q8_0": (1.0, 1.0),
    "Q4_0": (0.85, 1.0),
    "Q4_1": (0.8, 0.9),
    "Q5_0": (0.7, 0.7),
    "Q5_1": (0.7, 0.7),
    "Q6_K": (0.75, 0.75),
    "Q5_K": (0.75, 0.85),
    "Q4_K": (0.8, 1.0),
    "Q3_K": (0.55, 0.7),
    "Q2_K": (0.5, 0.75),
    "IQ4_NL": (0.75, 0.9),
    "IQ4_XS": (0.7, 0.85),
    "MXFP4": (0.7, 0.8),
    "NVFP4": (0.6, 0.6),
}
"""Relative to Q8_0: the same two rates. The smaller a type, the more a core has to do for each byte."""
_OTHER_TYPES = (0.25, 0.35)
_EXPERT_PROMPT_SHARE = 0.6


def default_calibration(machine: Machine) -> Calibration:
    """What can be expected of the machine before `bendi calibrate` has run. Everything is marked as not measured."""
    cpu = machine.cpu
    threads = min(cpu.usable_cores, cpu.performance_cores) or 1
    memory_bytes_s = min(_memory_bytes_s(cpu), threads * _CORE_READ_BYTES_S)
    generation, prompt = next(((read, rate) for name, read, rate in _ISA_RATES if name in cpu.isa), _NO_ISA)
    types = {}
    for name in TENSOR_TYPES_BY_NAME:
        read_share, prompt_share = _TYPE_SHARES.get(name, _OTHER_TYPES)
        prompt_weights_s = threads * prompt * prompt_share
        types[name] = TypeRates(
            generation_bytes_s=_together(threads * generation * read_share, memory_bytes_s),
            prompt_weights_s=prompt_weights_s,
            prompt_expert_weights_s=prompt_weights_s * _EXPERT_PROMPT_SHARE,
            load_bytes_s=memory_bytes_s / 3,
            source="specification",
        )
    return Calibration(
        machine="",
        build="",
        measured_at="",
        took_s=0.0,
        cpu=DeviceRates(
            name=cpu.model or cpu.architecture,
            threads=threads,
            types=types,
            attention=_attention(threads, generation, prompt, memory_bytes_s),
            token_s=1e-3,
            layer_s=20e-6,
            vocabulary_s=4e-9,
            prompt_layer_s=3e-6 / threads,
            start_s=0.5,
            source="specification",
        ),
        memory_read_bytes_s=memory_bytes_s,
        disk_read_bytes_s=max((_DISK_BYTES_S[disk.kind] for disk in machine.disks), default=_DISK_BYTES_S["unknown"]),
        noise=1.1,
        spread=0.1,
    )


def _together(computing_bytes_s: float, reading_bytes_s: float) -> float:
    """The cores compute on some of the bytes while others arrive, though never perfectly."""
    return 1 / (0.8 / min(computing_bytes_s, reading_bytes_s) + 0.2 / computing_bytes_s + 0.2 / reading_bytes_s)


def _memory_bytes_s(cpu: Cpu) -> float:
    """Of main memory, as usual with such a processor: two channels in a PC, four or more in a server."""
    if cpu.vendor == "Apple":
        found = [spec for (vendor, name), spec in gpu_specs().items() if vendor == "apple" and cpu.model.endswith(name)]
        return 0.6 * found[0].bandwidth_bytes_s if found else 40e9
    server = any(word in cpu.model for word in ("EPYC", "Xeon", "Threadripper", "Neoverse", "Kunpeng", "Ampere"))
    if server and cpu.physical_cores >= 8:
        return (120e9 if {"amx_int8", "avx512_bf16"} & cpu.isa else 70e9) * sqrt(max(cpu.numa_nodes, 1))
    return 45e9 if {"avx_vnni", "avx512_bf16"} & cpu.isa else 28e9


def _attention(threads: int, generation: float, prompt: float, memory_bytes_s: float) -> dict[str, AttentionRates]:
    """In llama.cpp keys and values are converted again for every query head: that costs more than reading them."""
    cache_s = 2 / min(memory_bytes_s, threads * generation)
    query_s, prompt_query_s = 1 / (threads * generation), 4 / (threads * prompt)
    return {
        name: AttentionRates(0.0, query_s * slower, cache_s * slower, 0.0, prompt_query_s * slower)
        for name, slower in (("f16", 1.0), ("bf16", 1.3), ("f32", 1.5), ("q8_0", 1.1),
                             *((other, 1.5) for other in ("q5_1", "q5_0", "q4_1", "q4_0")))
    }  # fmt: skip
