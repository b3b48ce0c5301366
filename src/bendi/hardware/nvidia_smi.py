"""NVIDIA GPUs through `nvidia-smi`, which every driver brings along: for installations without pynvml."""

from __future__ import annotations

import csv
import shutil
import subprocess

from bendi.hardware.sysfs import to_int
from bendi.hardware.types import Gpu
from bendi.units import MIB

_FIELDS = ("index", "name", "uuid", "driver_version", "memory.total", "memory.free", "compute_cap")
_TIMEOUT_S = 20.0  # the first call after start-up wakes the driver


def read_gpus() -> tuple[Gpu, ...]:
    """All GPUs that `nvidia-smi` lists; empty where it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    return parse(done.stdout)


def parse(text: str) -> tuple[Gpu, ...]:
    """The GPUs from the program's CSV output; lines that are not understood are left out."""
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(_FIELDS) or to_int(row[0]) is None:
            continue
        index, name, uuid, driver, total, free, capability = row
        total_mib, free_mib = to_int(total), to_int(free)
        gpus.append(
            Gpu(
                name=name,
                vendor="nvidia",
                index=to_int(index) or 0,
                memory_total_bytes=None if total_mib is None else total_mib * MIB,
                memory_free_bytes=None if free_mib is None else free_mib * MIB,
                driver=driver,
                uuid=uuid,
                compute_capability=capability if capability[:1].isdigit() else "",
                unified=total_mib is None,
            )
        )
    return tuple(gpus)
