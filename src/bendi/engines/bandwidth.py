"""How fast memory and disks can be read, without an engine."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from bendi.units import MIB

_PIECE_BYTES = 64 * MIB
_ROUNDS = 3
_DISK_BYTES = 256 * MIB
_DISK_LIMIT_S = 2.0
_READ_BYTES = 4 * MIB


class MemoryReader:
    """Reads `area_bytes` of memory with each of `threads` threads at once.

    The C library compares the two equal halves of an area, which reads both and writes nothing.
    """

    def __init__(self, threads: int, area_bytes: int) -> None:
        self._compare = ctypes.CDLL(None).memcmp if os.name == "posix" else ctypes.cdll.msvcrt.memcmp
        self._compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self._half_bytes = area_bytes // 2
        self._areas = [ctypes.create_string_buffer(2 * self._half_bytes) for _ in range(threads)]
        for area in self._areas:  # untouched memory is one shared page of zeros
            ctypes.memset(area, 1, 2 * self._half_bytes)

    @property
    def read_bytes(self) -> int:
        return 2 * self._half_bytes * len(self._areas)

    def seconds(self, rounds: int) -> float:
        """Of one round, the best of several."""
        with ThreadPoolExecutor(len(self._areas)) as pool:
            return min(self._round_s(pool) for _round in range(rounds))

    def mean_bytes_s(self, for_s: float) -> float:
        """Bytes per second over as many rounds as fit into `for_s`, at least one: what something that takes as long can
        count on, where memory is shared with others and its speed changes several times a second."""
        done, started_s = 0, time.perf_counter()
        with ThreadPoolExecutor(len(self._areas)) as pool:
            while not done or time.perf_counter() - started_s < for_s:
                self._round_s(pool)
                done += 1
        return done * self.read_bytes / (time.perf_counter() - started_s)

    def _round_s(self, pool: ThreadPoolExecutor) -> float:
        started_s = time.perf_counter()
        list(pool.map(self._read, self._areas))
        return time.perf_counter() - started_s

    def _read(self, area: ctypes.Array[ctypes.c_char]) -> None:
        address = ctypes.addressof(area)
        self._compare(address, address + self._half_bytes, self._half_bytes)


def memory_read_bytes_s(threads: int) -> float:
    """Bytes per second that `threads` threads read together, from areas far larger than caches."""
    reader = MemoryReader(threads, 2 * _PIECE_BYTES)
    return reader.read_bytes / reader.seconds(_ROUNDS)


def disk_read_bytes_s(folder: Path) -> float:
    """Bytes per second at which a large file in `folder` is read one piece after the other, from the disk and not from
    the page cache; 0 where the system cannot be told to forget it. Raises OSError when there is no room."""
    if not hasattr(os, "posix_fadvise"):
        return 0.0
    path = folder / "disk-rate"
    try:
        with path.open("wb", buffering=0) as file:
            piece = os.urandom(_READ_BYTES)
            for _piece in range(_DISK_BYTES // _READ_BYTES):
                file.write(piece)
            os.fsync(file.fileno())
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            done_bytes, started_s = 0, time.perf_counter()
            while data := file.read(_READ_BYTES):
                done_bytes += len(data)
                if time.perf_counter() - started_s > _DISK_LIMIT_S:
                    break
            return done_bytes / max(time.perf_counter() - started_s, 1e-9)
    finally:
        with suppress(OSError):
            path.unlink()
