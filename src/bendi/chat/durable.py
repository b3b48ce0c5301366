"""Files that survive a power cut, and the lock that tells processes of each other."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def sync_folder(folder: Path) -> None:
    """Makes renames and new names in `folder` durable, where the system can (Windows does it by itself)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def replace_durably(source: Path, target: Path) -> None:
    """Renames `source`, whose bytes are on disk already, over `target`."""
    source.replace(target)
    sync_folder(target.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Replaces the file in one step, readable by its owner only; where `path` is a link, the file it leads to.

    Raises OSError; then the old file is untouched.
    """
    path = path.resolve()
    path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mkstemp gives mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace_durably(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_private(path: Path) -> None:
    """Makes an empty file that only its owner can read, unless it is there; its folder too."""
    path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE_FILE))


class PresenceLock:
    """Held shared by every process that uses a file, and alone by the one that repairs it.

    On Windows, which refuses to rename a file that another process has open, nothing more is needed and nothing is
    locked.
    """

    def __init__(self, path: Path) -> None:
        create_private(path)
        self._descriptor = os.open(path, os.O_RDWR)
        self.share()

    def share(self) -> None:
        """Waits while somebody repairs."""
        if sys.platform != "win32":
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def alone(self, patience_s: float = 2.0) -> bool:
        """Whether nobody else uses the file; then the others wait in `share` until we call it."""
        if sys.platform != "win32":
            end_s = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                except BlockingIOError:
                    # A failed attempt gives up the shared lock, so of two processes that both try, one succeeds.
                    if time.monotonic() > end_s:
                        self.share()
                        return False
                    time.sleep(random.uniform(0.01, 0.05))
        return True

    def close(self) -> None:
        os.close(self._descriptor)
