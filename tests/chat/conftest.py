"""Folders for tests that write and sync many files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")

Scratch = Callable[[], contextlib.AbstractContextManager[Path]]


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def scratch() -> Scratch:
    """Makes folders that are gone afterwards, in memory where the system has such a place: hundreds of examples that
    wait for a busy disk at every sync would take minutes."""
    return _scratch


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """One such folder."""
    with _scratch() as folder:
        yield folder
