"""When and where a process runs. Linux; elsewhere these calls do nothing.

An engine keeps all cores busy. Whoever passes its words on needs a core for microseconds, thousands of times, and by
default waits for the end of an engine thread's time slice (3 ms and more) to get it. A thread that asks for short
slices gets them sooner, and not more of them. Interface: Linux `sched_setattr(2)`, with slices of ordinary threads
since 6.12; older kernels ignore the wish.

The engine's own threads ask for short slices, too. Where somebody else computes on the same cores, those that wait for
the others give way, and lose the rest of their slice by that (`assets/kernels/waiting.h`); and where they do not, as in
the wheel, the one that they wait for gets its turn sooner. Imported by the workers themselves: nothing of bendi here.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

LINUX = sys.platform == "linux"
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "loongarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr`: its size, policy, flags, nice, priority, runtime, deadline, period."""
_SHORTEST_SLICE_NS = 100_000
"""The kernel takes none shorter."""


def run_promptly() -> bool:
    """This thread, and those that it starts, get a core soon after they ask for one, for a short time. Whether the
    kernel agreed."""
    return _set_slice(_SHORTEST_SLICE_NS)


def run_as_usual() -> None:
    """This thread, and those that it starts, run in slices of the usual length: what `run_promptly` was said to is
    inherited by processes, too."""
    _set_slice(0)


def keep_to(cpus: Sequence[int]) -> None:
    """This process runs only on these logical CPUs, as far as it may use them; on any, without `cpus`."""
    if cpus and LINUX:
        # Some may have been taken away since they were listed; with none left, all others are as good.
        with suppress(OSError):
            os.sched_setaffinity(0, cpus)


def _set_slice(slice_ns: int) -> bool:
    number = _SET_ATTRIBUTES.get(platform.machine())
    if not LINUX or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False  # whoever chose another policy for this process knows better
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
    return int(ctypes.CDLL(None).syscall(number, 0, attributes, 0)) == 0
