"""Short names for what measurements belong to: a machine, and what a model computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from bendi.formats import GgufFile
from bendi.hardware import Machine
from bendi.units import GIB


def machine_id(machine: Machine) -> str:
    """A short name for what decides speed on `machine`: processor, cores, memory and GPUs, not what is free of them.

    The same after a restart or with other programs running; another one inside a container with fewer cores.
    """
    cpu = machine.cpu
    facts = {
        "cpu": [cpu.model, cpu.architecture, sorted(cpu.isa)],
        "cores": cpu.usable_cores,
        # The firmware and the kernel keep some, not always the same.
        "memory": round(machine.memory.total_bytes / GIB),
        "gpus": sorted([gpu.vendor, gpu.name, round((gpu.memory_total_bytes or 0) / GIB)] for gpu in machine.gpus),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def model_key(parts: Sequence[GgufFile], types: Sequence[str] | None = None) -> str:
    """The same for models whose tensors have the same names, shapes and types, wherever their files are.

    `parts`: the headers, all of them, in order. `types`: type names of all tensors, where they are not the headers'.
    """
    tensors = [tensor for part in parts for tensor in part.tensors]
    names = types if types is not None else [tensor.type.name for tensor in tensors]
    digest = hashlib.sha256(parts[0].architecture.encode("utf-8", "backslashreplace"))
    for tensor, name in zip(tensors, names, strict=True):
        digest.update(f"\0{tensor.name}\0{tensor.shape}\0{name}".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]
