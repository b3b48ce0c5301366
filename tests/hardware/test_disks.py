from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from machines import mountinfo, write

from bendi.hardware import detect_machine
from bendi.hardware.disks import disk_kind

MOUNTS = mountinfo(
    "27 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw",
    "50 27 8:17 / /data rw - ext4 /dev/sdb1 rw",
    "51 27 0:45 /@home /home rw - btrfs /dev/nvme1n1 rw,subvol=/@home",
    "52 27 254:0 / /virtual rw - ext4 /dev/vda rw",
    "53 27 0:60 / /ram rw - tmpfs tmpfs rw",
    "54 50 259:2 / /data rw - ext4 /dev/nvme0n1p2 rw",
    "55 27 8:17 / /data/old rw - ext4 /dev/sdb1 rw",
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """One SSD with a partition, one with btrfs, a hard disk with a partition, a virtual disk."""
    write(
        tmp_path,
        MOUNTS
        | {
            "sys/devices/nvme0n1/queue/rotational": "0",
            "sys/devices/nvme0n1/nvme0n1p2/uevent": "MAJOR=259\nDEVNAME=nvme0n1p2",
            "sys/devices/nvme1n1/queue/rotational": "0",
            "sys/devices/sdb/queue/rotational": "1",
            "sys/devices/sdb/sdb1/uevent": "DEVNAME=sdb1",
            "sys/devices/vda/queue/rotational": "1",
            "sys/devices/vda/uevent": "DEVNAME=vda",
        },
    )
    for link, target in {
        "sys/dev/block/259:2": "nvme0n1/nvme0n1p2",
        "sys/dev/block/8:17": "sdb/sdb1",
        "sys/dev/block/254:0": "vda",
        "sys/class/block/nvme1n1": "nvme1n1",
    }.items():
        path = tmp_path / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / "sys/devices" / target)
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ssd"),
        ("/usr/share", "ssd"),
        ("/data/old/models", "hdd"),
        ("/data", "ssd"),  # another file system was mounted over the hard disk
        ("/database", "ssd"),
        ("/home/a/models", "ssd"),
        ("/virtual/models", "unknown"),
        ("/ram", "unknown"),
    ],
)
def test_kinds(machine: Path, folder: str, kind: str) -> None:
    assert disk_kind(folder, machine) == kind


def test_nothing_known(tmp_path: Path) -> None:
    assert disk_kind("/", tmp_path) == "unknown"


def test_space_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    wanted = tmp_path / "models" / "new"
    (disk,) = detect_machine(disk_paths=[wanted]).disks
    assert disk.path == wanted
    assert disk.total_bytes == shutil.disk_usage(tmp_path).total
    assert 0 < disk.free_bytes <= disk.total_bytes
