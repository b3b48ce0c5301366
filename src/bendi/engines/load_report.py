"""The sizes of an engine's buffers, from what llama.cpp logs while it loads a model.

Names in a model file are part of that log, so a malicious file can forge these lines: the numbers are for comparing
predictions with, nothing is allocated or refused because of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bendi.units import MIB

LAST_LINE = "model loaded"
"""What the engine logs after all sizes."""
_BEGIN = "load_tensors: loading model tensors"
_END = "load_model: initializing"
_SIZE = r"size = +(\d{1,9}\.\d{1,3}) MiB"
_WEIGHTS = re.compile(rf"[\d.]+ I load_tensors: +(\S+) +model buffer {_SIZE}")
_KV = re.compile(rf"[\d.]+ I llama_kv_cache\w*: {_SIZE}\b.*")
_STATE = re.compile(rf"[\d.]+ I llama_memory_recurrent: {_SIZE}\b.*")
_RESERVING = re.compile(r"[\d.]+ I sched_reserve: reserving .*")
_COMPUTE = re.compile(rf"[\d.]+ I sched_reserve: +(\S+) +compute buffer {_SIZE}")
_OUTPUT = re.compile(rf"[\d.]+ I llama_context: +(\S+) +output buffer {_SIZE}")


@dataclass(frozen=True)
class LoadReport:
    """Bytes that the engine allocated, to within 1 %. `weights_bytes_by_buffer`: by the engine's name of the buffer,
    such as `"CPU_Mapped"`, `"CPU_REPACK"` (a second copy in another order) or `"CUDA0"`."""

    kv_bytes: int
    state_bytes: int
    compute_bytes: int
    output_bytes: int
    weights_bytes_by_buffer: Mapping[str, int]

    @property
    def weights_bytes(self) -> int:
        """All copies of the weights together."""
        return sum(self.weights_bytes_by_buffer.values())


def read_load_report(lines: Iterable[str]) -> LoadReport | None:
    """The sizes in a worker's log; None where it does not have them."""
    kv_bytes = state_bytes = 0
    weights: dict[str, int] = {}
    compute: dict[str, int] = {}
    output: dict[str, int] = {}
    for line in _of_last_load(lines):
        if found := _WEIGHTS.fullmatch(line):
            weights[found[1]] = weights.get(found[1], 0) + _bytes(found[2])
        elif found := _KV.fullmatch(line):
            kv_bytes += _bytes(found[1])
        elif found := _STATE.fullmatch(line):
            state_bytes += _bytes(found[1])
        elif _RESERVING.fullmatch(line):
            compute.clear()
        elif found := _COMPUTE.fullmatch(line):
            compute[found[1]] = _bytes(found[2])
        elif found := _OUTPUT.fullmatch(line):
            output[found[1]] = _bytes(found[2])
    if not weights or not compute:
        return None
    return LoadReport(kv_bytes, state_bytes, sum(compute.values()), sum(output.values()), weights)


def _of_last_load(lines: Iterable[str]) -> list[str]:
    kept: list[str] = []
    loading = False
    for line in lines:
        if _BEGIN in line:
            kept, loading = [], True
        elif _END in line:
            loading = False
        elif loading:
            kept.append(line)
    return kept


def _bytes(mebibytes: str) -> int:
    return round(float(mebibytes) * MIB)
