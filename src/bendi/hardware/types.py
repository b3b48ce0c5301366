"""What a machine is, as data. Unknown is None, 0 or empty; nothing here is ever absent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

DiskKind = Literal["ssd", "hdd", "unknown"]
GpuVendor = Literal["nvidia", "amd", "intel", "apple"]


@dataclass(frozen=True)
class Cpu:
    """The processor. `architecture`: `"x86_64"`, `"aarch64"` and so on.

    `physical_cores`, `logical_cores`: of the whole machine. `usable_cores`: physical cores that this process may keep
    busy, after CPU affinity and the container's quota. `performance_cores`: those of the cores in the affinity that
    are of the fast kind, where cores differ; otherwise all of them. `isa`: instruction set extensions that matter for
    inference, such as `"avx2"`, `"avx512_vnni"`, `"amx_int8"`, `"neon"`, `"sve"`. `l2_bytes`, `l3_bytes`: all caches
    of that level together; 0 where unknown.
    """

    model: str = ""
    vendor: str = ""
    architecture: str = ""
    physical_cores: int = 1
    logical_cores: int = 1
    usable_cores: int = 1
    performance_cores: int = 1
    isa: frozenset[str] = frozenset()
    l2_bytes: int = 0
    l3_bytes: int = 0
    numa_nodes: int = 1


@dataclass(frozen=True)
class Memory:
    """Main memory at this moment.

    `available_bytes`: what the system could give without swapping. `limit_bytes`: the smallest limit of the control
    groups that this process is in, None without one. `usable_bytes`: what a model may use now: the available memory,
    or what the limits leave when file cache is given back, whichever is less.
    """

    total_bytes: int = 0
    available_bytes: int = 0
    limit_bytes: int | None = None
    usable_bytes: int = 0
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0


@dataclass(frozen=True)
class Gpu:
    """A graphics processor that could run models. `index`: its number in its vendor's own counting.

    `memory_total_bytes`, `memory_free_bytes`: None where the driver does not tell. `unified`: it has no memory of its
    own and uses main memory, so its bytes must not be counted twice. `compute_capability`: NVIDIA's, such as `"9.0"`.
    """

    name: str
    vendor: GpuVendor
    index: int
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    driver: str = ""
    uuid: str = ""
    compute_capability: str = ""
    unified: bool = False


@dataclass(frozen=True)
class Disk:
    """The file system that holds `path`. `free_bytes`: for this user."""

    path: Path
    free_bytes: int = 0
    total_bytes: int = 0
    kind: DiskKind = "unknown"


@dataclass(frozen=True)
class Machine:
    """Everything at once. `system`: `"Linux"`, `"Darwin"`, `"Windows"`; `release`: the kernel's."""

    system: str = ""
    release: str = ""
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    gpus: tuple[Gpu, ...] = ()
    disks: tuple[Disk, ...] = ()


def machine_to_json(machine: Machine) -> dict[str, Any]:
    """The machine as what JSON can hold, with the names of the fields; sets become sorted lists."""
    plain = _plain(asdict(machine))
    assert isinstance(plain, dict)
    return plain


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
