"""Takes a model file of this machine into the store: by a copy, by a link, or by remembering where it lies."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from bendi.errors import ModelFileError, NotFoundError, StoreError, UsageError
from bendi.formats import read_gguf_split, split_paths
from bendi.i18n import _
from bendi.store.catalogue import DEMO
from bendi.store.discover import LocalModel
from bendi.store.disk import BLOCK_BYTES, hash_file, make_folder, require_space, store_error, sync_folder
from bendi.store.local import Store
from bendi.store.lock import STORE_LOCK_NAME, locked
from bendi.store.names import is_safe_component, safe_component, typed
from bendi.store.progress import Meter, Progress
from bendi.store.record import Entry, RecordedFile, put_entry, read_record
from bendi.store.variants import split_of
from bendi.units import MIB

if sys.platform != "win32":
    import fcntl

if sys.platform != "win32":
    import fcntl

ImportWay = Literal["copy", "link", "in place"]
_FICLONE = 0x40049409
_RESERVE_BYTES = 256 * MIB
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def import_file(
    store: Store,
    source: Path,
    *,
    name: str | None = None,
    way: ImportWay = "copy",
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> LocalModel:
    """Takes the model at `source` (for a split one, any part) into the store as `name` (default: the file's name).

    `way`: a copy; a link to the same data, which takes no space (a copy-on-write clone where the file system can, else
    a hard link); or only a record of where it lies. The file itself is never changed. Doing it twice is harmless.

    Raises NotFoundError, ModelFileError when it is no sound model, UsageError for a bad or taken name, StoreError.
    """
    source = source.expanduser().absolute()
    if not source.is_file():
        raise NotFoundError(_("there is no file at {path}").format(path=source))
    try:
        parts = split_paths(source)
        read_gguf_split(source)
    except ModelFileError as error:
        raise ModelFileError(error.message, hint=error.hint or _("Nothing was imported.")) from error
    stem = _stem(source)
    name = name or stem
    if not is_safe_component(name) or name.lower().endswith(".gguf") or name.casefold() == DEMO:
        raise UsageError(
            _("{name!r} cannot be the name of a model").format(name=name),
            hint=_("Use letters, digits, - and _: bendi import --name NAME {path}").format(path=typed(str(source))),
        )
    folder = store.root / "files" / name
    make_folder(folder)
    with locked(store.root / STORE_LOCK_NAME, shared=True), locked(folder / ".import.lock"):
        sizes = [part.stat().st_size for part in parts]
        meter = Meter(sum(sizes), on_progress)
        existing = _existing(folder, name)
        if existing:
            _require_same(existing, parts, meter, name)
        else:
            put_entry(folder, _imported(name, parts, folder, way, meter))
    return store.lookup(name)


def _stem(source: Path) -> str:
    split = split_of(source.name)
    return split[0] if split else source.name[: -len(".gguf")] if source.name.lower().endswith(".gguf") else source.name


def _existing(folder: Path, name: str) -> Entry | None:
    return next((entry for entry in read_record(folder) if entry.name == name and entry.complete), None)


def _require_same(entry: Entry, parts: Sequence[Path], meter: Meter, name: str) -> None:
    """Passes when the model of that name is this very one already."""
    hashes = [hash_file(part, lambda done: meter.show(done, name, "check")) for part in parts]
    if hashes != [file.sha256 for file in entry.files]:
        raise UsageError(
            _("another model is already called {name}").format(name=name),
            hint=_("Give this one another name: bendi import --name NAME {path}").format(path=typed(str(parts[0]))),
        )


def _imported(name: str, parts: Sequence[Path], folder: Path, way: ImportWay, meter: Meter) -> Entry:
    if way == "copy":
        require_space(folder, sum(part.stat().st_size for part in parts), _RESERVE_BYTES)
    files: list[RecordedFile] = []
    base_bytes = 0
    for part in parts:

        def show(done_bytes: int, base: int = base_bytes, file: str = part.name) -> None:
            meter.show(base + done_bytes, file, "download" if way == "copy" else "check")

        target = folder / _target_name(part)
        if way == "copy":
            sha256 = copy_file(part, target, show)
        elif way == "link":
            link_file(part, target)
            sha256 = hash_file(target, show)
        else:
            target, sha256 = part, hash_file(part, show)
        files.append(RecordedFile(target.name, part.stat().st_size, sha256))
        base_bytes += files[-1].size_bytes
    return Entry(
        name=name,
        how=way,
        files=tuple(files),
        source=str(parts[0]),
        installed=datetime.now(UTC).isoformat(timespec="seconds"),
        external=str(parts[0]) if way == "in place" else None,
    )


def _target_name(part: Path) -> str:
    name = part.name if part.name.lower().endswith(".gguf") else f"{part.name}.gguf"
    return safe_component(name)


def copy_file(source: Path, target: Path, on_bytes: Callable[[int], None]) -> str:
    """Copies through a temporary file and compares the copy with what was read; returns the SHA-256.

    Raises StoreError; then `target` is as it was before.
    """
    temporary = target.with_name(f".{target.name}.copying")
    digest = hashlib.sha256()
    done_bytes = 0
    try:
        with source.open("rb", buffering=0) as reader, temporary.open("wb") as writer:
            while block := reader.read(BLOCK_BYTES):
                writer.write(block)
                digest.update(block)
                done_bytes += len(block)
                on_bytes(done_bytes)
            writer.flush()
            os.fsync(writer.fileno())
        shutil.copystat(source, temporary)
        if hash_file(temporary) != digest.hexdigest():
            raise StoreError(
                _("the copy of {path} came out different: the disk or the memory may be failing").format(path=source)
            )
        temporary.replace(target)
    except OSError as error:
        raise store_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return digest.hexdigest()


def link_file(source: Path, target: Path) -> None:
    """Makes `target` share the data of `source`. Raises StoreError where the disks or the file system do not allow."""
    temporary = target.with_name(f".{target.name}.linking")
    try:
        temporary.unlink(missing_ok=True)
        if not _clone(source, temporary):
            os.link(source.resolve(), temporary)
        temporary.replace(target)
    except OSError as error:
        if error.errno in _NO_LINK:
            raise StoreError(
                _("{path} cannot be linked into {folder}: they are not on one file system that allows it").format(
                    path=source, folder=target.parent
                ),
                hint=_("Import without --link (a copy), or with --in-place (used where it lies)."),
            ) from error
        raise store_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def _clone(source: Path, target: Path) -> bool:
    """A copy-on-write clone (btrfs, XFS): the two files share their data until one is changed."""
    if sys.platform != "linux":
        return False
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            pass
        else:
            return True
    target.unlink()
    return False
