"""Main memory on Linux, with the limits of containers."""

from __future__ import annotations

from pathlib import Path

from bendi.hardware.cgroup import memory_limits
from bendi.hardware.sysfs import read_fields
from bendi.hardware.types import Memory


def read_memory(root: Path) -> Memory:
    """Memory facts from the /proc and /sys below `root`."""
    fields = read_fields(root / "proc/meminfo")
    total_bytes = fields.get("MemTotal", 0)
    # Kernels before 3.14 do not estimate what is available.
    estimate_bytes = sum(fields.get(name, 0) for name in ("MemFree", "Buffers", "Cached"))
    available_bytes = fields.get("MemAvailable", estimate_bytes)
    limits = [limit for limit in memory_limits(root) if limit.limit_bytes < total_bytes or not total_bytes]
    left_bytes = [limit.limit_bytes - limit.used_bytes for limit in limits]
    return Memory(
        total_bytes=total_bytes,
        available_bytes=available_bytes,
        limit_bytes=min((limit.limit_bytes for limit in limits), default=None),
        usable_bytes=max(min([available_bytes, *left_bytes]), 0),
        swap_total_bytes=fields.get("SwapTotal", 0),
        swap_free_bytes=fields.get("SwapFree", 0),
    )
