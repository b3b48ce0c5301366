"""What a worker may do: as little as the system lets us take away. Linux: Landlock, rlimits, death with the parent.

Elsewhere, or on kernels without Landlock, these calls do what is possible and say so in `confine`'s answer, which
`bendi doctor` shows. Interfaces: Linux `Documentation/userspace-api/landlock.rst`, `prctl(2)`, `setrlimit(2)`.
"""

from __future__ import annotations

import ctypes
import glob
import os
import signal
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

LINUX = sys.platform == "linux"

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_VERSION_FLAG = 1

# Landlock rights by the ABI that introduced them: the kernel refuses bits it does not know.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_SOCK, _TRUNCATE = 1 << 5, 1 << 9, 1 << 14
_FS_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
_TCP_RIGHTS = 0b11
_ABI_WITH_TCP = 4

_READ = _READ_FILE | _READ_DIR
_SYSTEM_READ = ("/usr", "/lib", "/lib64", "/bin", "/opt", "/proc", "/sys", "/etc/localtime", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/zero", "/dev/shm", "/dev/dri", "/dev/kfd")
_GPU_DEVICES = ("/dev/nvidia*", "/dev/kfd")
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15


def die_with_parent(parent_pid: int, by: int = signal.SIGKILL) -> None:
    """The kernel sends this process the signal `by` when its parent ends, however it ends."""
    if not LINUX:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if parent_pid and os.getppid() != parent_pid:
        # It ended before the call above.
        os._exit(1)


def limit_memory(limit_bytes: int) -> None:
    """Bounds private memory (mapped weights do not count), forbids core dumps (they would hold prompts), and makes
    the kernel choose this process first when the machine runs out of memory."""
    if not LINUX:
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Drivers of GPUs reserve address space for all their memory, which this limit would count.
    if limit_bytes and not _gpu_devices():
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as out:
        out.write("600")


def landlock_version() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    if not LINUX:
        return 0
    return max(int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)), 0)


def confine(
    read_paths: Sequence[str],
    write_dirs: Sequence[str],
    *,
    allow_tcp: bool,
    programs: Sequence[str] = (),
    overwrite_dirs: Sequence[str] = (),
) -> str:
    """From here on this process reads only the system's libraries and `read_paths`, runs beside the system's programs
    only `programs`, writes only below `write_dirs` and into files that exist below `overwrite_dirs`, and opens no TCP
    connection (unless `allow_tcp`). What it becomes by `exec` is bound as well. Returns what is in force, such as
    `"landlock 7, no tcp"`."""
    abi = landlock_version()
    if not abi:
        return "none"
    libc = ctypes.CDLL(None, use_errno=True)
    rights = sum(bits for version, bits in _FS_RIGHTS_BY_ABI.items() if abi >= version)
    tcp = 0 if allow_tcp or abi < _ABI_WITH_TCP else _TCP_RIGHTS
    attributes = struct.pack("QQ", rights, tcp) if abi >= _ABI_WITH_TCP else struct.pack("Q", rights)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return "none"
    python = (sys.prefix, sys.base_prefix, *(path for path in sys.path if path))
    for path in (*_SYSTEM_READ, *python):
        _allow(libc, ruleset, path, (_READ | _EXECUTE) & rights)
    for path in read_paths:
        _allow(libc, ruleset, path, _READ & rights)
    for path in programs:
        _allow(libc, ruleset, path, (_READ | _EXECUTE) & rights)
    for path in (*_DEVICES, *_gpu_devices()):
        _allow(libc, ruleset, path, rights)
    for path in write_dirs:
        _allow(libc, ruleset, path, (_READ | _WRITE_FILE | _MAKE_SOCK | _REMOVE_FILE) & rights)
    for path in overwrite_dirs:
        _allow(libc, ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    in_force = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    if not in_force:
        return "none"
    return f"landlock {abi}" + (", no tcp" if tcp else "")


def _gpu_devices() -> list[str]:
    return [path for pattern in _GPU_DEVICES for path in glob.glob(pattern)]


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, handle)
        libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)
