"""Asks all probes of this platform. `root` is where the file system begins, so that recorded machines can be read."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from bendi.hardware import gpus, macos, nvidia_smi, windows
from bendi.hardware.cpu import read_core_cpus, read_cpu
from bendi.hardware.disks import read_disk
from bendi.hardware.memory import read_memory
from bendi.hardware.types import Cpu, Gpu, Machine, Memory

LIVE = Path("/")


def detect_machine(root: Path = LIVE, disk_paths: Sequence[Path] = ()) -> Machine:
    """All facts about this machine; with `root`, about the Linux machine whose /proc and /sys are below it.

    `disk_paths`: folders whose disks matter, usually those with models. Raises nothing: what cannot be found out is
    unknown. Takes tens of milliseconds; with an NVIDIA driver that sleeps, up to some seconds.
    """
    memory = detect_memory(root)
    return Machine(
        system=platform.system() if root == LIVE else "Linux",
        release=platform.release() if root == LIVE else "",
        cpu=detect_cpu(root),
        memory=memory,
        gpus=detect_gpus(root, memory),
        disks=tuple(read_disk(path, root) for path in disk_paths),
    )


def detect_cpu(root: Path = LIVE) -> Cpu:
    """The processor, see `Cpu`."""
    if root == LIVE and sys.platform == "darwin":
        return macos.parse_cpu(macos.read_sysctl())
    if root == LIVE and sys.platform == "win32":
        return windows.read_cpu()
    return read_cpu(root)


def detect_core_cpus(root: Path = LIVE) -> tuple[int, ...]:
    """One logical CPU of each usable physical core, the fast cores first. Empty where threads cannot be placed."""
    if root == LIVE and sys.platform != "linux":
        return ()
    return read_core_cpus(root)


def detect_memory(root: Path = LIVE) -> Memory:
    """Main memory at this moment, see `Memory`."""
    if root == LIVE and sys.platform == "darwin":
        return macos.parse_memory(macos.read_sysctl(), macos.read_vm_stat())
    if root == LIVE and sys.platform == "win32":
        return windows.read_memory()
    return read_memory(root)


def detect_gpus(root: Path = LIVE, memory: Memory | None = None) -> tuple[Gpu, ...]:
    """The graphics processors, NVIDIA's first. `memory`: main memory, where it is known already."""
    if root != LIVE:
        return gpus.read_gpus(root)
    if sys.platform == "darwin":
        return macos.parse_gpus(macos.read_sysctl(), memory or detect_memory())
    listed = gpus.read_gpus(root)
    asked = _ask_nvidia() if sys.platform == "win32" or gpus.has_nvidia(root) else ()
    return (*asked, *(gpu for gpu in listed if gpu.vendor != "nvidia")) if asked else listed


def _ask_nvidia() -> tuple[Gpu, ...]:
    """From NVML where its Python package is installed, otherwise from the driver's own program."""
    try:
        nvml = importlib.import_module("bendi.hardware.nvidia")
    except ImportError:
        return nvidia_smi.read_gpus()
    found: tuple[Gpu, ...] = nvml.read_gpus()
    return found or nvidia_smi.read_gpus()
