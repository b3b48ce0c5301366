"""Small file trees with the /proc and /sys of machines of many kinds, shortened to what matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

Tree = dict[str, str]
GIB = 1024**3
MIB = 1024**2
UNLIMITED_V1 = 9223372036854771712

X86_2013 = "fpu lm sse sse2 pni ssse3 sse4_1 sse4_2 avx f16c fma bmi1 bmi2 avx2"
X86_SERVER = X86_2013 + " avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx512_bf16"


def write(folder: Path, tree: Mapping[str, str]) -> Path:
    for name, text in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", "utf-8")
    return folder


def meminfo(total_bytes: int, available_bytes: int, swap_bytes: int = 0) -> Tree:
    return {
        "proc/meminfo": "\n".join(
            [
                f"MemTotal:       {total_bytes // 1024} kB",
                f"MemFree:        {available_bytes // 2048} kB",
                f"MemAvailable:   {available_bytes // 1024} kB",
                "HugePages_Total:       0",
                f"SwapTotal:      {swap_bytes // 1024} kB",
                f"SwapFree:       {swap_bytes // 2048} kB",
            ]
        )
    }


def x86(count: int, model: str, vendor: str, flags: str) -> Tree:
    block = "processor\t: {cpu}\nvendor_id\t: {vendor}\nmodel name\t: {model}\nflags\t\t: {flags}\nbogomips\t: 1.0\n"
    text = "\n".join(block.format(cpu=cpu, vendor=vendor, model=model, flags=flags) for cpu in range(count))
    return {"proc/cpuinfo": text, "sys/devices/system/cpu/online": f"0-{count - 1}"}


def status(allowed: str) -> Tree:
    return {"proc/self/status": f"Name:\tpython\nCpus_allowed:\tffff\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1"}


def cores(threads: Iterable[str]) -> Tree:
    """`threads`: for each physical core the list of its CPUs, such as `"0-1"` or `"0,32"`."""
    tree = {}
    for siblings in threads:
        for cpu in expand(siblings):
            tree[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = siblings
    return tree


def caches(level: int, size: str, sharers: Iterable[str], index: int) -> Tree:
    tree = {}
    for shared in sharers:
        for cpu in expand(shared):
            folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            tree |= {f"{folder}/level": str(level), f"{folder}/type": "Unified", f"{folder}/size": size}
            tree[f"{folder}/shared_cpu_list"] = shared
    return tree


def level_one(count: int) -> Tree:
    tree = {}
    for cpu in range(count):
        for index, kind in enumerate(["Data", "Instruction"]):
            folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            tree |= {f"{folder}/level": "1", f"{folder}/type": kind, f"{folder}/size": "32K"}
            tree[f"{folder}/shared_cpu_list"] = str(cpu)
    return tree


def expand(siblings: str) -> list[int]:
    found: list[int] = []
    for piece in siblings.split(","):
        first, _, last = piece.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def numa(*lists: str) -> Tree:
    tree = {f"sys/devices/system/node/node{node}/cpulist": cpus for node, cpus in enumerate(lists)}
    return tree | {"sys/devices/system/node/online": f"0-{len(lists) - 1}"}


V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"


def v1_mount(controllers: str, inner: str = "/") -> str:
    return f"33 24 0:31 {inner} /sys/fs/cgroup/{controllers} rw,relatime shared:9 - cgroup cgroup rw,{controllers}"


def mountinfo(*lines: str) -> Tree:
    return {"proc/self/mountinfo": "\n".join(["22 1 0:21 / /proc rw - proc proc rw", *lines])}


def group_v2(folder: str, **files: object) -> Tree:
    """Files of a v2 group: `max`, `high`, `current` and `stat` of memory; `cpu`: its cpu.max."""
    names = {"cpu": "cpu.max"} | {name: f"memory.{name}" for name in ("max", "high", "current", "stat")}
    place = f"sys/fs/cgroup/{folder}".rstrip("/")
    return {f"{place}/cgroup.procs": ""} | {f"{place}/{names[name]}": str(text) for name, text in files.items()}


def group_v1(controller: str, folder: str, **files: object) -> Tree:
    names = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes", "stat": "memory.stat"}
    names |= {"quota": "cpu.cfs_quota_us", "period": "cpu.cfs_period_us"}
    place = f"sys/fs/cgroup/{controller}/{folder}".rstrip("/")
    return {f"{place}/cgroup.procs": ""} | {f"{place}/{names[name]}": str(text) for name, text in files.items()}


def file_cache(active_bytes: int, inactive_bytes: int, prefix: str = "") -> str:
    return f"anon 1\n{prefix}active_file {active_bytes}\n{prefix}inactive_file {inactive_bytes}\nshmem 0"


def small_vm() -> Tree:
    """Two virtual CPUs of a Zen 5 server, groups of v1 without limits beside a v2 that controls nothing."""
    return (
        x86(2, "AMD EPYC", "AuthenticAMD", X86_SERVER + " avx_vnni")
        | status("0-1")
        | cores(["0", "1"])
        | level_one(2)
        | caches(2, "1024K", ["0", "1"], 2)
        | caches(3, "32768K", ["0-1"], 3)
        | numa("0-1")
        | meminfo(24684092 * 1024, 24367156 * 1024)
        | mountinfo(
            v1_mount("cpu"),
            v1_mount("memory"),
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
        )
        | {"proc/self/cgroup": "9:name=systemd:/\n4:memory:/worker/1\n1:cpu:/\n0::/"}
        | group_v1("memory", "", limit=UNLIMITED_V1, usage=4 * GIB, stat=file_cache(0, 0, "total_"))
        | group_v1("memory", "worker/1", limit=UNLIMITED_V1, usage=2 * GIB, stat=file_cache(0, 0, "total_"))
        | group_v1("cpu", "", quota=-1, period=100000)
        | {"sys/fs/cgroup/unified/cgroup.procs": ""}
    )


def laptop() -> Tree:
    """16 GB, six fast cores with two threads each and eight efficient ones; a GPU that shares memory; systemd."""
    fast = [f"{cpu}-{cpu + 1}" for cpu in range(0, 12, 2)]
    slow = [str(cpu) for cpu in range(12, 20)]
    return (
        x86(20, "12th Gen Intel(R) Core(TM) i7-12700H", "GenuineIntel", X86_2013 + " avx_vnni")
        | status("0-19")
        | cores([*fast, *slow])
        | level_one(20)
        | caches(2, "1280K", fast, 2)
        | caches(2, "2048K", ["12-15", "16-19"], 2)
        | caches(3, "24576K", ["0-19"], 3)
        | {"sys/devices/cpu_core/cpus": "0-11", "sys/devices/cpu_atom/cpus": "12-19"}
        | numa("0-19")
        | meminfo(16 * GIB - 400 * MIB, 9 * GIB, 8 * GIB)
        | mountinfo(V2_MOUNT)
        | {"proc/self/cgroup": "0::/user.slice/user-1000.slice/session-2.scope"}
        | group_v2("user.slice", max="max", high="max", current=6 * GIB, stat=file_cache(0, 0))
        | group_v2("user.slice/user-1000.slice", max="max", high="max", current=6 * GIB, stat=file_cache(0, 0))
        | group_v2("user.slice/user-1000.slice/session-2.scope", max="max", current=6 * GIB)
        | card(0, "0x8086", "0x46a6", "i915", "0000:00:02.0")
        | {"sys/class/drm/card0-eDP-1/device/vendor": "0x8086"}
        | {"usr/share/hwdata/pci.ids": PCI_IDS}
    )


def container() -> Tree:
    """A container with 4 GiB and one and a half CPUs on a host with 64 GB; the groups of the host are hidden."""
    return (
        x86(16, "AMD Ryzen 9 7950X 16-Core Processor", "AuthenticAMD", X86_SERVER)
        | status("0-15")
        | cores(str(cpu) for cpu in range(16))
        | meminfo(64 * GIB, 60 * GIB)
        | mountinfo(V2_MOUNT)
        | {"proc/self/cgroup": "0::/"}
        | group_v2("", max=4 * GIB, high="max", current=3 * GIB, stat=file_cache(1 * GIB, 1 * GIB), cpu="150000 100000")
    )


def arm_server() -> Tree:
    """64 Neoverse N1 cores."""
    block = (
        "processor\t: {cpu}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimddp\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n"
    )
    return (
        {"proc/cpuinfo": "\n".join(block.format(cpu=cpu) for cpu in range(64))}
        | {"sys/devices/system/cpu/online": "0-63"}
        | status("0-63")
        | cores(str(cpu) for cpu in range(64))
        | caches(2, "1024K", (str(cpu) for cpu in range(64)), 2)
        | caches(3, "32M", ["0-63"], 3)
        | numa("0-63")
        | meminfo(256 * GIB, 250 * GIB)
    )


def arm_board() -> Tree:
    """Four fast and four small cores of different kinds, of which the small ones lack an extension."""
    block = (
        "processor\t: {cpu}\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
    )
    small = "fp asimd asimddp asimdhp"
    blocks = [block.format(cpu=cpu, features=small, part="0xd05") for cpu in range(4)]
    blocks += [block.format(cpu=cpu, features=small + " i8mm", part="0xd0b") for cpu in range(4, 8)]
    capacities = {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": "397" for cpu in range(4)}
    capacities |= {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": "1024" for cpu in range(4, 8)}
    return (
        {"proc/cpuinfo": "\n".join(blocks), "sys/devices/system/cpu/online": "0-7"}
        | status("0-7")
        | capacities
        | cores(str(cpu) for cpu in range(8))
        | meminfo(16 * GIB, 15 * GIB)
    )


def dual_socket() -> Tree:
    """Two sockets of 32 cores with two threads each, AMX; this process is bound to the second socket."""
    return (
        x86(128, "Intel(R) Xeon(R) Platinum 8480+", "GenuineIntel", X86_SERVER + " amx_bf16 amx_tile amx_int8")
        | status("32-63,96-127")
        | cores(f"{cpu},{cpu + 64}" for cpu in range(64))
        | caches(2, "2048K", (f"{cpu},{cpu + 64}" for cpu in range(64)), 2)
        | caches(3, "107520K", ["0-31,64-95", "32-63,96-127"], 3)
        | numa("0-31,64-95", "32-63,96-127")
        | meminfo(512 * GIB, 500 * GIB)
        | mountinfo(v1_mount("cpu,cpuacct"), v1_mount("memory"))
        | {"proc/self/cgroup": "3:cpu,cpuacct:/jobs\n2:memory:/jobs"}
        | group_v1("memory", "jobs", limit=UNLIMITED_V1, usage=GIB)
        | group_v1("cpu,cpuacct", "jobs", quota=2_000_000, period=100_000)
    )


def old_desktop() -> Tree:
    """A processor of 2012, which has AVX and not AVX2, on a kernel that does not estimate available memory."""
    tree = x86(4, "Intel(R) Core(TM) i5-3570 CPU @ 3.40GHz", "GenuineIntel", "fpu lm pni ssse3 sse4_2 avx f16c")
    tree |= {"proc/meminfo": "MemTotal: 8000000 kB\nMemFree: 1000000 kB\nBuffers: 200000 kB\nCached: 3000000 kB"}
    return tree


def card(number: int, vendor: str, device: str, driver: str, slot: str, **files: object) -> Tree:
    place = f"sys/class/drm/card{number}/device"
    uevent = f"DRIVER={driver}\nPCI_CLASS=30000\nPCI_SLOT_NAME={slot}"
    tree = {f"{place}/vendor": vendor, f"{place}/device": device, f"{place}/uevent": uevent}
    return tree | {f"{place}/{name}": str(text) for name, text in files.items()}


PCI_IDS = """#
# List of PCI IDs
#
1000  Broadcom / LSI
\t46a6  not this one
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t1586  Strix Halo [Radeon Graphics / Radeon 8050S Graphics / Radeon 8060S Graphics]
\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]
\t\t1002 0e3b  RX 7900 XTX
8086  Intel Corporation
\t46a6  Alder Lake-P GT2 [Iris Xe Graphics]
\te20b  Battlemage G21 [Arc B580]
ffff  Illegal Vendor ID
"""
