"""Free space, and whether it is on an SSD."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bendi.hardware.mounts import Mount, read_mounts
from bendi.hardware.sysfs import below, each_line, read_int, read_text
from bendi.hardware.types import Disk, DiskKind

_VIRTUAL = ("vd", "xvd")
"""Virtual disks call themselves rotating whatever they are made of."""


def read_disk(path: Path, root: Path) -> Disk:
    """The file system that `path` is on, or will be: of the nearest folder that exists.

    The kind of the disk comes from below `root`; the free space is that of the running system.
    """
    folder = path.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return Disk(path)
    return Disk(path, usage.free, usage.total, disk_kind(os.path.realpath(folder), root))


def disk_kind(folder: str, root: Path) -> DiskKind:
    """Of the disk under the absolute path `folder`."""
    holding = [mount for mount in read_mounts(root) if _holds(mount.point, folder)]
    if not holding:
        return "unknown"
    # Of equal mount points the last one hides the others.
    mount = max(reversed(holding), key=lambda mount: len(mount.point))
    device = _device_folder(mount, root)
    rotational = read_int(device / "queue/rotational")
    if rotational is None:
        rotational = read_int(device / "../queue/rotational")  # a partition; its disk is the folder above
    names = [line.removeprefix("DEVNAME=") for line in each_line(read_text(device / "uevent"))]
    if rotational is None or (rotational and any(name.startswith(_VIRTUAL) for name in names)):
        return "unknown"
    return "hdd" if rotational else "ssd"


def _holds(point: str, folder: str) -> bool:
    return point == "/" or folder == point or folder.startswith(point + "/")


def _device_folder(mount: Mount, root: Path) -> Path:
    # File systems with volumes of their own, such as btrfs, have no device number but name the device.
    if mount.device.startswith("0:") and mount.source.startswith("/dev/"):
        return below(root, f"sys/class/block/{Path(mount.source).name}")
    return below(root, f"sys/dev/block/{mount.device}")
