"""What this machine is: processor, memory, graphics processors, disks.

Knows how to find out on Linux, with containers' limits; on macOS and Windows too, untried. Reads only. Does not know
models, how fast anything is, or what the facts mean for a model (that is `planner`), and prints nothing.

    machine = detect_machine(disk_paths=[models_folder])
    machine.memory.usable_bytes, machine.cpu.isa

Nothing here raises: an absent GPU is an empty tuple, an unknown number None or 0.
"""

from bendi.hardware.detect import detect_core_cpus, detect_cpu, detect_gpus, detect_machine, detect_memory
from bendi.hardware.machine_file import machine_from_json, parse_machine
from bendi.hardware.types import Cpu, Disk, Gpu, GpuVendor, Machine, Memory, machine_to_json

__all__ = [
    "Cpu",
    "Disk",
    "Gpu",
    "GpuVendor",
    "Machine",
    "Memory",
    "detect_core_cpus",
    "detect_cpu",
    "detect_gpus",
    "detect_machine",
    "detect_memory",
    "machine_from_json",
    "machine_to_json",
    "parse_machine",
]
