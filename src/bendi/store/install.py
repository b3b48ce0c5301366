"""Gives verified downloads their names, so that a death at any moment leaves the old model or the new one.

First the record says what is about to be installed (`Entry.next`); then each `.part` gets its name; then the record
says that it is done. In between, a file whose `.part` is still there is the old one, and one without is the new one:
whoever reads the record can tell (`discover`), and whoever comes next can finish (`finish_installs`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bendi.errors import StoreError
from bendi.store.disk import is_inside, store_error, sync_folder
from bendi.store.journal import journal_path, part_path
from bendi.store.lock import locked
from bendi.store.record import RECORD_NAME, Entry, entry_paths, put_entry, read_record


def model_lock(first: Path) -> Path:
    """The lock file of the model whose first file is `first`: who downloads, installs or deletes it holds it."""
    return first.with_name(f".{first.name}.lock")


def install(folder: Path, old: Entry | None, new: Entry) -> None:
    """Installs `new`, whose files are all verified parts, in the place of `old`. The model's lock is held.

    Raises StoreError; then the model is still whole, or `finish_installs` makes it whole.
    """
    put_entry(folder, replace(old or replace(new, complete=False), next=new))
    _finish(folder, new)


def finish_installs(root: Path) -> None:
    """Finishes what a death in the middle of an installation left. What another process is at is left to it."""
    for path in root.rglob(RECORD_NAME):
        for entry in read_record(path.parent):
            if entry.next is None:
                continue
            try:
                with locked(model_lock(entry_paths(path.parent, entry.next)[0]), wait=False):
                    current_entry(path.parent, entry.name)
            except StoreError:
                continue


def current_entry(folder: Path, name: str) -> Entry | None:
    """The entry of that name, with its installation finished where a death interrupted it. The lock is held."""
    for _attempt in range(2):
        entry = next((entry for entry in read_record(folder) if entry.name == name), None)
        if entry is None or entry.next is None:
            return entry
        _finish(folder, entry.next)
    return entry


def place(target: Path) -> None:
    """Gives the part of `target` its name; what had that name before is replaced in one step. Raises StoreError."""
    try:
        part_path(target).replace(target)
        journal_path(target).unlink(missing_ok=True)
    except OSError as error:
        raise store_error(error, target) from error
    sync_folder(target.parent)


def _finish(folder: Path, new: Entry) -> None:
    before = next((entry for entry in read_record(folder) if entry.name == new.name), new)
    for target in entry_paths(folder, new):
        if part_path(target).exists():
            place(target)
    put_entry(folder, new)
    _forget(folder, before)


def _forget(folder: Path, old: Entry) -> None:
    """Deletes files of the version before that no entry has now (the source renamed them)."""
    kept = {path for entry in read_record(folder) for path in entry_paths(folder, entry)}
    for path in entry_paths(folder, old):
        if path not in kept and old.external is None and is_inside(path, folder):
            path.unlink(missing_ok=True)
