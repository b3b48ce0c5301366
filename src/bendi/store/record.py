"""`bendi.json`: what a folder of a store holds and where it came from. One small file per model folder.

A file that no record lists is not ours: it is used, and never changed or deleted. A record is a file on disk like any
other and is not believed blindly: a path in it that leaves its folder makes the entry void.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bendi.formats.json_scan import bounded_json_file
from bendi.store.disk import write_atomic
from bendi.store.lock import locked
from bendi.store.names import is_safe_path, is_sha256

RECORD_NAME = "bendi.json"
FORMAT = 1
_LOCK_NAME = ".bendi.json.lock"

How = Literal["download", "copy", "link", "in place"]


@dataclass(frozen=True)
class RecordedFile:
    """One file: path below the folder, size, and the hash that was verified when it came."""

    path: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One model of a folder. `files`: its parts in order; `extras`: texts that go with it.

    `complete` False: its download has begun and not ended. `external`: for a model that is only registered, the
    absolute path of its first file, which belongs to somebody else. `installed`: ISO time, UTC. `next`: what is
    just being installed in its place.
    """

    name: str
    how: How
    files: tuple[RecordedFile, ...]
    source: str = ""
    revision: str = ""
    installed: str = ""
    complete: bool = True
    external: str | None = None
    extras: tuple[str, ...] = ()
    next: Entry | None = None


def read_record(folder: Path) -> tuple[Entry, ...]:
    """The entries of a folder; none when there is no record or it cannot be read."""
    try:
        record: Any = bounded_json_file(folder / RECORD_NAME)
        entries = record["models"] if record["format"] == FORMAT else []
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    decoded = (_decode(entry) for entry in entries) if isinstance(entries, list) else ()
    return tuple(entry for entry in decoded if entry is not None)


def put_entry(folder: Path, entry: Entry) -> None:
    """Adds an entry, or replaces the one of its name. Raises StoreError."""
    with locked(folder / _LOCK_NAME):
        _write(folder, [*(other for other in read_record(folder) if other.name != entry.name), entry])


def drop_entry(folder: Path, name: str) -> None:
    """Removes the entry of that name, and the record with the last one. Raises StoreError."""
    with locked(folder / _LOCK_NAME):
        _write(folder, [other for other in read_record(folder) if other.name != name])


def entry_paths(folder: Path, entry: Entry) -> list[Path]:
    """The files of an entry, in order, wherever they are."""
    if entry.external is None:
        return [folder.joinpath(*file.path.split("/")) for file in entry.files]
    base = Path(entry.external).parent
    return [base / file.path for file in entry.files]


def entry_texts(folder: Path, entry: Entry) -> list[Path]:
    """The texts that go with an entry (licence, parameters)."""
    return [folder.joinpath(*extra.split("/")) for extra in entry.extras]


def _write(folder: Path, entries: list[Entry]) -> None:
    path = folder / RECORD_NAME
    if not entries:
        path.unlink(missing_ok=True)
        return
    models = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.name)]
    text = json.dumps({"format": FORMAT, "models": models}, ensure_ascii=False, indent=1)
    write_atomic(path, text.encode("utf-8"))


def _decode(value: Any) -> Entry | None:
    try:
        files = tuple(RecordedFile(**file) for file in value["files"])
        following = value.get("next")
        rest = {"files": files, "extras": tuple(value.get("extras", ())), "next": None}
        entry = Entry(**{**value, **rest})
    except (TypeError, KeyError, AttributeError):
        return None
    texts = (entry.name, entry.how, entry.source, entry.revision, entry.installed)
    if not files or not all(isinstance(text, str) for text in texts) or not isinstance(entry.complete, bool):
        return None
    if entry.external is not None and not (isinstance(entry.external, str) and Path(entry.external).is_absolute()):
        return None
    for file in files:
        if not isinstance(file.path, str) or not isinstance(file.size_bytes, int) or file.size_bytes < 0:
            return None
        if file.sha256 is not None and not is_sha256(file.sha256):
            return None
        if entry.external is None and not is_safe_path(file.path):
            return None
        if entry.external is not None and Path(file.path).name != file.path:
            return None
    if not all(isinstance(extra, str) and is_safe_path(extra) for extra in entry.extras):
        return None
    if isinstance(following, dict) and following.get("next") is None and following.get("name") == entry.name:
        return replace(entry, next=_decode(following))
    return entry
