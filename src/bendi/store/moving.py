"""Moves a store to another folder, so that at every moment every model is found.

    1  copy every model that bendi brought to the new root, verified; nobody looks there yet
    2  one atomic write of the settings: the new root first, the old one still searched
    3  delete what was copied from the old root; files that are not ours stay there
    4  the old root leaves the settings when nothing of use is left in it

After a break, the same command goes on where it stopped: copies that are complete are kept (1), a move that had been
switched is finished (3). On one file system nothing is copied: the files get a second name, then lose the first.
A worker that has an old file mapped keeps its data until it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from bendi.errors import ConfigError, StoreError, UsageError
from bendi.formats.json_scan import bounded_json_file
from bendi.i18n import _
from bendi.settings import Settings, load_settings
from bendi.store.discover import LocalModel, scan_root
from bendi.store.disk import hash_file, make_folder, remove_empty_folders, require_space, store_error, write_atomic
from bendi.store.importing import copy_file
from bendi.store.install import finish_installs
from bendi.store.journal import journal_path, part_path
from bendi.store.lock import STORE_LOCK_NAME, locked
from bendi.store.progress import Meter, Progress
from bendi.store.record import drop_entry, entry_texts, put_entry
from bendi.units import MIB

MOVE_NOTE_NAME = ".bendi-move.json"


@dataclass(frozen=True)
class Moved:
    """What a move did. `stayed`: models of others that keep the old root in use. `in_use`: files that a program holds
    open on a system where they cannot be deleted then; the same command deletes them later."""

    old_root: Path
    new_root: Path
    models: int
    size_bytes: int
    stayed: int
    in_use: tuple[Path, ...] = ()


def move_store(
    settings: Settings,
    new_root: Path,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    reserve_bytes: int = 256 * MIB,
) -> Moved:
    """Moves all models that bendi brought from the first models folder to `new_root`, and makes that the first.

    `reserve_bytes`: what must stay free on the new disk.

    Raises UsageError (a folder that cannot be meant, or `BENDI_MODELS` decides instead of the settings file),
    StoreError (space, permission, another bendi at work). Whatever happens, every model stays usable.
    """
    new_root = new_root.expanduser().absolute()
    old_root = _old_root(settings, new_root)
    _check_roots(settings, old_root, new_root)
    make_folder(new_root)
    with locked(old_root / STORE_LOCK_NAME, wait=False), locked(new_root / STORE_LOCK_NAME, wait=False):
        finish_installs(old_root)
        models = [model for model in scan_root(old_root) if model.entry is not None]
        files = [(model, pair) for model in models for pair in _pairs(model, old_root, new_root)]
        total_bytes = sum(source.stat().st_size for _model, (source, _target) in files if source.is_file())
        if _device(old_root) != _device(new_root):
            missing = sum(
                source.stat().st_size for _model, (source, target) in files if not target.exists() and source.is_file()
            )
            require_space(new_root, missing, reserve_bytes)
        write_atomic(new_root / MOVE_NOTE_NAME, json.dumps({"from": str(old_root)}).encode())
        _copy_all(models, old_root, new_root, Meter(total_bytes, on_progress))
        others = [root for root in settings.models_dirs if root.absolute() not in (old_root, new_root)]
        _write_roots(settings.config_file, [new_root, old_root, *others])
        in_use = _delete_all(models, old_root)
        stayed = sum(model.entry is None for model in scan_root(old_root))
        if not stayed and not in_use:
            _write_roots(settings.config_file, [new_root, *others])
            (new_root / MOVE_NOTE_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        old_root.rmdir()
    return Moved(old_root, new_root, len(models), total_bytes, stayed, tuple(in_use))


def _old_root(settings: Settings, new_root: Path) -> Path:
    """The root to move from: the first one, or, where a move to `new_root` was interrupted, where that came from."""
    first = settings.models_dirs[0].absolute()
    if first != new_root:
        return first
    try:
        note = bounded_json_file(new_root / MOVE_NOTE_NAME)
        origin = Path(str(note["from"])) if isinstance(note, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        origin = None
    if origin is not None and origin in [root.absolute() for root in settings.models_dirs[1:]]:
        return origin
    raise UsageError(_("the models are in {path} already").format(path=new_root))


def _check_roots(settings: Settings, old_root: Path, new_root: Path) -> None:
    from_file = load_settings({"BENDI_CONFIG": str(settings.config_dir)}).models_dirs
    if [path.absolute() for path in from_file] != [path.absolute() for path in settings.models_dirs]:
        raise UsageError(
            _("BENDI_MODELS decides where models are, so the settings file could not tell where they went"),
            hint=_(
                "Remove BENDI_MODELS from the environment and try again, "
                "or move the folder by hand and change that variable."
            ),
        )
    if new_root.exists() and not new_root.is_dir():
        raise UsageError(_("{path} is not a folder").format(path=new_root))
    old_real, new_real = old_root.resolve(), new_root.resolve()
    if old_real == new_real or old_real.is_relative_to(new_real) or new_real.is_relative_to(old_real):
        raise UsageError(
            _("one of {old} and {new} is inside the other").format(old=old_root, new=new_root),
            hint=_("Choose a folder elsewhere."),
        )
    if not old_root.is_dir():
        raise UsageError(
            _("there are no models in {path} that could be moved").format(path=old_root),
            hint=_("To use another folder from now on, set models_dirs in {file}.").format(file=settings.config_file),
        )


def _pairs(model: LocalModel, old_root: Path, new_root: Path) -> list[tuple[Path, Path]]:
    """(old, new) path of every file of a model that is ours, also of an unfinished download."""
    assert model.folder is not None and model.entry is not None
    if not model.owned:
        return []
    files = [*model.parts, *entry_texts(model.folder, model.entry)]
    files += [path for part in model.parts for path in (part_path(part), journal_path(part))]
    return [(path, new_root / path.relative_to(old_root)) for path in files if path.is_file()]


def _copy_all(models: Sequence[LocalModel], old_root: Path, new_root: Path, meter: Meter) -> None:
    base_bytes = 0
    for model in models:
        assert model.folder is not None and model.entry is not None
        hashes = dict(zip(model.parts, model.sha256, strict=True))
        for source, target in _pairs(model, old_root, new_root):

            def show(done_bytes: int, base: int = base_bytes, name: str = source.name) -> None:
                meter.show(base + done_bytes, name)

            make_folder(target.parent)
            _copy_one(source, target, hashes.get(source), show)
            base_bytes += source.stat().st_size
        put_entry(new_root / model.folder.relative_to(old_root), model.entry)


def _copy_one(source: Path, target: Path, sha256: str | None, show: Callable[[int], None]) -> None:
    """Gives `target` the bytes of `source`, by a second name where one disk has both. Verified copies are kept."""
    if target.exists():
        if os.path.samefile(source, target):
            return
        if target.stat().st_size == source.stat().st_size and hash_file(target, show) == (sha256 or hash_file(source)):
            return
        if target.suffix.lower() == ".gguf":
            raise StoreError(
                _("{path} is in the way: it is another file than the one to be moved there").format(path=target),
                hint=_("Move it away, or choose another folder."),
            )
    try:
        os.link(source, target)
    except OSError:
        copied = copy_file(source, target, show)
        if sha256 is not None and copied != sha256:
            raise StoreError(
                _("{path} is damaged, so the store was not moved").format(path=source),
                hint=_("Look at it with: bendi verify; download it again with: bendi pull --force"),
            ) from None


def _delete_all(models: Sequence[LocalModel], old_root: Path) -> list[Path]:
    """Deletes the old files, then their records. Returns files that cannot be deleted while a program uses them."""
    in_use: list[Path] = []
    for model in models:
        assert model.folder is not None and model.entry is not None
        held: list[Path] = []
        for path, _target in _pairs(model, old_root, old_root):
            try:
                path.unlink(missing_ok=True)
            except PermissionError:
                held.append(path)
            except OSError as error:
                raise store_error(error, path) from error
        if not held:
            drop_entry(model.folder, model.name)
            for path in model.parts:
                if model.owned:
                    remove_empty_folders(path.parent, old_root)
            remove_empty_folders(model.folder, old_root)
        in_use += held
    return in_use


def _write_roots(config_file: Path, roots: Sequence[Path]) -> None:
    """Puts the models folders into the settings file, all else in it as it was. Raises ConfigError, StoreError."""
    try:
        text = config_file.read_text("utf-8") if config_file.exists() else ""
        document = tomlkit.parse(text)
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(_("{path} cannot be used: {error}").format(path=config_file, error=error)) from error
    document["models_dirs"] = [str(root) for root in roots]
    write_atomic(config_file, tomlkit.dumps(document).encode("utf-8"))


def _device(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.stat().st_dev
