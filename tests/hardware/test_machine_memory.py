from __future__ import annotations

from pathlib import Path

import pytest
from machines import (
    GIB,
    MIB,
    UNLIMITED_V1,
    V2_MOUNT,
    Tree,
    container,
    dual_socket,
    file_cache,
    group_v1,
    group_v2,
    laptop,
    meminfo,
    mountinfo,
    old_desktop,
    small_vm,
    v1_mount,
    write,
)

from bendi.hardware import Memory, detect_memory


def memory_of(folder: Path, tree: Tree) -> Memory:
    return detect_memory(write(folder, tree))


def test_laptop_without_limits(tmp_path: Path) -> None:
    memory = memory_of(tmp_path, laptop())
    assert memory.total_bytes == 16 * GIB - 400 * MIB
    assert memory.usable_bytes == memory.available_bytes == 9 * GIB
    assert memory.limit_bytes is None
    assert (memory.swap_total_bytes, memory.swap_free_bytes) == (8 * GIB, 4 * GIB)


def test_container_on_a_large_host(tmp_path: Path) -> None:
    memory = memory_of(tmp_path, container())
    assert memory.total_bytes == 64 * GIB
    assert memory.limit_bytes == 4 * GIB
    # 3 GiB are charged, of which 2 GiB are file cache that can be given back.
    assert memory.usable_bytes == 3 * GIB


def test_v1_without_a_limit(tmp_path: Path) -> None:
    for name, tree in (("small", small_vm()), ("dual", dual_socket())):
        memory = memory_of(tmp_path / name, tree)
        assert memory.limit_bytes is None
        assert memory.usable_bytes == memory.available_bytes > 0


def test_kernel_without_an_estimate(tmp_path: Path) -> None:
    memory = memory_of(tmp_path, old_desktop())
    assert memory.usable_bytes == memory.available_bytes == 4200000 * 1024


def nested(inner: object, middle: object, outer: object, high: object = "max") -> Tree:
    """A process in /a/b/c of v2; each group has charged 1 GiB that cannot be given back."""
    stat = file_cache(0, 0)
    return (
        meminfo(64 * GIB, 50 * GIB)
        | mountinfo(V2_MOUNT)
        | {"proc/self/cgroup": "0::/a/b/c"}
        | group_v2("a", max=outer, current=GIB, stat=stat)
        | group_v2("a/b", max=middle, high=high, current=GIB, stat=stat)
        | group_v2("a/b/c", max=inner, current=GIB, stat=stat)
    )


@pytest.mark.parametrize(
    ("limits", "smallest"),
    [
        (("max", "max", 8 * GIB), 8 * GIB),
        (("max", 6 * GIB, 8 * GIB), 6 * GIB),
        ((6 * GIB, "max", 5 * GIB), 5 * GIB),
        ((3 * GIB, 6 * GIB, "max"), 3 * GIB),
    ],
)
def test_the_smallest_limit_on_the_way_up_holds(
    tmp_path: Path, limits: tuple[object, object, object], smallest: int
) -> None:
    memory = memory_of(tmp_path, nested(*limits))
    assert memory.limit_bytes == smallest
    assert memory.usable_bytes == smallest - GIB


def test_the_fuller_group_decides_although_its_limit_is_larger(tmp_path: Path) -> None:
    tree = nested(4 * GIB, "max", 8 * GIB) | group_v2("a", max=8 * GIB, current=7 * GIB, stat=file_cache(0, 0))
    memory = memory_of(tmp_path, tree)
    assert memory.limit_bytes == 4 * GIB
    assert memory.usable_bytes == 1 * GIB


def test_soft_limit(tmp_path: Path) -> None:
    assert memory_of(tmp_path, nested("max", "max", "max", high=2 * GIB)).usable_bytes == 1 * GIB


def test_a_limit_that_is_used_up(tmp_path: Path) -> None:
    tree = nested(GIB // 2, "max", "max")
    assert memory_of(tmp_path, tree).usable_bytes == 0


def test_a_limit_above_the_memory_is_none(tmp_path: Path) -> None:
    memory = memory_of(tmp_path, nested(128 * GIB, "max", "max"))
    assert memory.limit_bytes is None
    assert memory.usable_bytes == 50 * GIB


def v1_container(inner: str, group: str) -> Tree:
    """v1 as in containers: the mount shows the folder `inner` of the hierarchy, the process is in `group`."""
    return (
        meminfo(64 * GIB, 50 * GIB)
        | mountinfo(v1_mount("memory", inner))
        | {"proc/self/cgroup": f"5:memory:{group}\n4:cpu,cpuacct:/\n0::/x"}
        | group_v1("memory", "", limit=4 * GIB, usage=2 * GIB, stat=file_cache(GIB // 2, GIB // 2, "total_"))
        | group_v1("memory", "job", limit=3 * GIB, usage=GIB)
    )


@pytest.mark.parametrize(
    ("inner", "group", "limit_bytes"),
    [
        ("/docker/0123", "/docker/0123", 4 * GIB),  # the group itself is what is mounted
        ("/docker/0123", "/docker/0123/job", 3 * GIB),  # a group below it
        ("/docker/0123", "/docker/01234/job", 4 * GIB),  # not below it, though the name begins alike
        ("/", "/docker/not-visible", 4 * GIB),
        ("/", "/../../elsewhere", 4 * GIB),
        ("/", "/job", 3 * GIB),
    ],
)
def test_v1_in_a_container(tmp_path: Path, inner: str, group: str, limit_bytes: int) -> None:
    memory = memory_of(tmp_path, v1_container(inner, group))
    assert memory.limit_bytes == limit_bytes
    assert memory.usable_bytes == min(4 * GIB - GIB, limit_bytes - GIB)


def test_v1_limit_of_hidden_groups(tmp_path: Path) -> None:
    stat = (
        file_cache(0, 0, "total_") + f"\nhierarchical_memory_limit {2 * GIB}\nhierarchical_memsw_limit {UNLIMITED_V1}"
    )
    tree = v1_container("/docker/0123", "/docker/0123")
    tree |= group_v1("memory", "", limit=UNLIMITED_V1, usage=GIB // 2, stat=stat)
    memory = memory_of(tmp_path, tree)
    assert memory.limit_bytes == 2 * GIB
    assert memory.usable_bytes == 2 * GIB - GIB // 2


def test_mount_point_with_a_space(tmp_path: Path) -> None:
    tree = meminfo(64 * GIB, 50 * GIB) | {
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": r"35 24 0:30 / /mnt/my\040groups rw - cgroup2 none rw",
        "mnt/my groups/memory.max": str(GIB),
    }
    assert memory_of(tmp_path, tree).limit_bytes == GIB


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"proc/meminfo": "MemTotal: lots kB\nMemAvailable:\n:::\nMemFree: -5 kB"},
        meminfo(8 * GIB, 4 * GIB) | {"proc/self/mountinfo": "garbage - - -\n - \n1 2", "proc/self/cgroup": ":::\nx"},
        meminfo(8 * GIB, 4 * GIB) | mountinfo(V2_MOUNT) | {"proc/self/cgroup": "0::/"} | group_v2("", max="-1?"),
    ],
)
def test_nonsense_is_unknown(tmp_path: Path, tree: Tree) -> None:
    memory = memory_of(tmp_path, tree)
    assert memory.limit_bytes is None
    assert memory.usable_bytes in (0, 4 * GIB)
