"""Limits of the control groups (v1 and v2) that this process is in: containers, services, user sessions.

A limit of any group on the way up to the root holds, so the effective one is the smallest of them.
Kernel documents: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bendi.hardware.mounts import read_mounts
from bendi.hardware.sysfs import below, each_line, read_fields, read_int, read_text, to_int

_UNLIMITED_BYTES = 2**60  # v1 writes "no limit" as the largest multiple of the page size that fits in 63 bits


class MemoryLimit(NamedTuple):
    """`limit_bytes` of one group, of which `used_bytes` cannot be given back by dropping file cache."""

    limit_bytes: int
    used_bytes: int


def memory_limits(root: Path) -> tuple[MemoryLimit, ...]:
    """The memory limits of all groups that this process is in; empty without any."""
    limits: list[MemoryLimit] = []
    for folder in _folders(root, ""):
        # A group above memory.high is slowed down until it is of no use, so that is a limit too.
        for name in ("memory.max", "memory.high"):
            limits += _limit(read_int(folder / name), folder / "memory.current", folder, "")
    for folder in _folders(root, "memory"):
        usage = folder / "memory.usage_in_bytes"
        limits += _limit(read_int(folder / "memory.limit_in_bytes"), usage, folder, "total_")
        # Holds also where the groups above are hidden from a container.
        inherited = read_fields(folder / "memory.stat").get("hierarchical_memory_limit")
        limits += _limit(inherited, usage, folder, "total_")
    return tuple(limits)


def _limit(limit_bytes: int | None, usage: Path, folder: Path, prefix: str) -> list[MemoryLimit]:
    if limit_bytes is None or limit_bytes >= _UNLIMITED_BYTES:
        return []
    stat = read_fields(folder / "memory.stat")
    names = (f"{prefix}active_file", f"{prefix}inactive_file", "slab_reclaimable")
    cache_bytes = sum(stat.get(name, 0) for name in names)
    return [MemoryLimit(max(limit_bytes, 0), max((read_int(usage) or 0) - cache_bytes, 0))]


def cpu_quota(root: Path) -> float | None:
    """How many CPUs' time this process may use; None without a limit."""
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(quotas, default=None)


def _quotas_v2(root: Path) -> Iterator[float]:
    for folder in _folders(root, ""):
        quota, _, period = read_text(folder / "cpu.max").partition(" ")
        yield from _ratio(to_int(quota), to_int(period))


def _quotas_v1(root: Path) -> Iterator[float]:
    for folder in _folders(root, "cpu"):
        yield from _ratio(read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us"))


def _ratio(quota_us: int | None, period_us: int | None) -> Iterator[float]:
    if quota_us is not None and period_us is not None and quota_us > 0 and period_us > 0:
        yield quota_us / period_us


def _folders(root: Path, controller: str) -> tuple[Path, ...]:
    """The folders of this process's group and of those above it, for a v1 controller, or for v2 (`""`)."""
    group = _group(root, controller)
    if group is None:
        return ()
    for mount in read_mounts(root):
        if mount.kind != ("cgroup" if controller else "cgroup2") or (controller and controller not in mount.options):
            continue
        top = below(root, mount.point)
        # In a container, the path that the kernel tells may begin above what is mounted, or not be visible at all.
        relative = group.removeprefix(mount.inner.rstrip("/")) if _inside(group, mount.inner) else ""
        folder = top / relative.lstrip("/")
        if ".." in relative.split("/") or not folder.is_dir():
            folder = top
        steps = len(folder.relative_to(top).parts)
        return (folder, *(folder.parents[step] for step in range(steps)))
    return ()


def _inside(group: str, folder: str) -> bool:
    return folder == "/" or group == folder or group.startswith(folder.rstrip("/") + "/")


def _group(root: Path, controller: str) -> str | None:
    for line in each_line(read_text(root / "proc/self/cgroup")):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (controller in controllers.split(",")) if controller else not controllers:
            return path
    return None
