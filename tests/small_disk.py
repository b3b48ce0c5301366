"""A real file system that is full soon, for tests of what happens then."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """`folder`, new, as a file system of that size, such as `96k`. Skips the test where that cannot be had."""
    folder.mkdir()
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that leaves nothing free in the file system of `folder`; to be deleted when there shall be room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size_bytes in (65536, 4096, 1):
            while True:
                try:
                    if not file.write(bytes(size_bytes)):
                        break
                except OSError:
                    break
    return ballast
