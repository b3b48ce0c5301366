"""Locks between processes (and threads), released by the system when their owner dies."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bendi.errors import StoreError
from bendi.i18n import _
from bendi.store.disk import make_folder, store_error

STORE_LOCK_NAME = ".bendi.lock"
"""In the root of a store: shared by those who bring models, exclusive for who moves them all."""
_POLL_S = 0.1

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int, shared: bool) -> bool:
        # Windows has no shared lock by this way. Readers then wait for one another, which is slow but correct.
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int, shared: bool) -> bool:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                return False
            raise
        return True


@contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    wait: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds the lock file `path`. `on_wait` is called once when somebody else holds it.

    `wait=False`: raises StoreError at once when it is held. The file is removed afterwards; whoever was waiting on the
    removed file notices and locks the new one.
    """
    make_folder(path.parent)
    descriptor = _acquire(path, shared, wait, on_wait)
    try:
        yield
    finally:
        try:
            if not shared and sys.platform != "win32":
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _acquire(path: Path, shared: bool, wait: bool, on_wait: Callable[[], None] | None) -> int:
    told = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            try:
                if _try_lock(descriptor, shared) and _still_there(descriptor, path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise store_error(error, path) from error
        os.close(descriptor)
        if not wait:
            raise StoreError(
                _("another bendi is working on {folder}").format(folder=path.parent),
                hint=_("Wait until it has finished, then type the same command again."),
            )
        if not told and on_wait:
            on_wait()
        told = True
        time.sleep(_POLL_S)


def _still_there(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one at `path`: its last owner may have removed it."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
