"""Reading from memory, and the limit that every reading keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from bendi.formats import GgufFile, MemorySource, read_gguf_from
from bendi.units import MIB

LIMIT_BYTES = 64 * MIB


@contextmanager
def _bounded(limit_bytes: int = LIMIT_BYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        before_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes - before_bytes < limit_bytes


@pytest.fixture
def bounded() -> Callable[..., AbstractContextManager[None]]:
    """A context manager that fails when what happens inside takes more memory than a header may cost."""
    return _bounded


def _read(data: bytes) -> GgufFile:
    return read_gguf_from(MemorySource(data), "x.gguf")


@pytest.fixture
def read() -> Callable[[bytes], GgufFile]:
    return _read
