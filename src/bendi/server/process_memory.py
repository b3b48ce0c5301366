"""What a process does that serves for weeks, so that its memory neither grows nor holds up anybody."""

from __future__ import annotations

import ctypes
import gc
import sys
from asyncio import selector_events
from typing import Any

from bendi.units import KIB, MIB

_RECEIVED_BYTES = 16 * KIB
_MOST_NEW_OBJECTS = 10_000
_LARGE_BYTES = 1 * MIB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's mallopt: malloc.h."""


def receive_small_pieces() -> None:
    """asyncio takes 256 KiB from the allocator whenever something arrives, and gives back the end of it. Other things
    come to lie in between, so that the heap is full of holes and grows: after 20,000 requests of all kinds, the next
    three times as many added 1.7, 0.9 and 1.0 MiB; with 16 KiB 0.5, 0.3 and 0.2 MiB. The size is an attribute of a
    class without a public name: where it is not found, nothing is changed."""
    transport: Any = getattr(selector_events, "_SelectorSocketTransport", None)
    if hasattr(transport, "max_size"):
        transport.max_size = _RECEIVED_BYTES


def return_large_pieces() -> None:
    """glibc takes large pieces of memory from the system and returns them when they are free; but after the first one
    it takes pieces as large from its own heaps, of which each thread has one, and keeps them there. After four bodies
    of 30 MiB the server kept 107 MiB, and each thread that had read a model's header 8 MiB. A limit that was said once
    stays, and so does that all threads share one heap, since only one of them runs Python at a time: 4 MiB less. Other
    C libraries return what is free in ways of their own."""
    mallopt = _of_c("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def return_holes() -> None:
    """What is free in the middle of the heap goes back to the system. Without it the heap has more holes from hour to
    hour, though what is in use stays the same: 0.6 MiB after a minute of requests of all kinds, 2 after three. Takes
    a millisecond."""
    malloc_trim = _of_c("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_c(name: str) -> Any:
    """A function of glibc; None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def collect_less() -> None:
    """What is here when the server is ready stays until its end, and need not be looked through again: a full
    collection of garbage, which holds up every stream, takes 50 ms with it and less than 1 ms without. The second
    one here tells the collector that nothing is old: it waits until a quarter of that is new, and keeps garbage
    meanwhile. And what is new is looked through after 10,000 objects instead of 700, which is every few requests and
    not several times in each: 4 to 8 % of the processor time of a short one."""
    gc.collect()
    gc.freeze()
    gc.collect()
    gc.set_threshold(_MOST_NEW_OBJECTS)
