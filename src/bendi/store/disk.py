"""Files done carefully: atomic writes, hashes, free space, and OSError turned into words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from bendi.errors import StoreError
from bendi.i18n import _
from bendi.units import MIB, format_size

BLOCK_BYTES = 4 * MIB
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def store_error(error: OSError, path: Path) -> StoreError:
    """The StoreError that explains `error`, which happened at `path`."""
    if error.errno in _FULL:
        return StoreError(
            _("the disk is full: {path} could not be written").format(path=path),
            hint=_("Free some space (bendi list, bendi rm NAME), then type the same command again: it continues."),
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(
            _("{path} cannot be changed: {error}").format(path=path, error=error.strerror),
            hint=_("Check who owns that folder, or use another one: BENDI_MODELS=/other/folder"),
        )
    return StoreError(_("{path}: {error}").format(path=path, error=error.strerror or error))


def make_folder(path: Path) -> None:
    """Creates `path` and its parents. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StoreError(_("{path} should be a folder, but is a file").format(path=path)) from error
    except OSError as error:
        raise store_error(error, path) from error


def sync_folder(path: Path) -> None:
    """Makes a rename in `path` survive a power failure, where the system can promise that."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the data itself has been synced
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replaces `path` by `content`, or leaves it as it was. Raises StoreError.

    `content` in pieces is written as they come, and what taking them raises is passed on.
    """
    make_folder(path.parent)
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as out:
            temporary = Path(out.name)
            out.writelines((content,) if isinstance(content, bytes) else content)
            out.flush()
            os.fsync(out.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise store_error(error, path) from error
        raise
    sync_folder(path.parent)


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None, *, git: bool = False) -> str:
    """The SHA-256 of a file's bytes, or git's blob SHA-1. `on_bytes` gets the bytes hashed so far.

    Raises StoreError when the file cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as source:
            size_bytes = os.fstat(source.fileno()).st_size
            digest = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False) if git else hashlib.sha256()
            done_bytes = 0
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
                done_bytes += len(block)
                if on_bytes:
                    on_bytes(done_bytes)
    except OSError as error:
        raise store_error(error, path) from error
    return digest.hexdigest()


def free_bytes(folder: Path) -> int | None:
    """Bytes that we may write at `folder` (or where it will be created); None where the system does not say."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def require_space(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    """Raises StoreError when `needed_bytes` more would leave less than `reserve_bytes` free at `folder`."""
    free = free_bytes(folder)
    if free is None or needed_bytes <= 0 or needed_bytes + reserve_bytes <= free:
        return
    raise StoreError(
        _("{needed} are needed in {folder}, but only {free} are free there ({reserve} stay in reserve)").format(
            needed=format_size(needed_bytes),
            folder=folder,
            free=format_size(free),
            reserve=format_size(reserve_bytes),
        ),
        hint=_(
            "Choose a smaller quantization, delete a model (bendi list, bendi rm NAME), "
            "or use another disk: BENDI_MODELS=/other/folder"
        ),
    )


def remove_empty_folders(folder: Path, root: Path) -> None:
    """Removes `folder` and its parents while they are empty, never `root` itself or anything above it."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def is_inside(path: Path, root: Path) -> bool:
    """Whether `path`, with every symbolic link of its folders followed, lies below `root`."""
    try:
        return path.parent.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False
