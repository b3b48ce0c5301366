"""Checking models, and deleting those that bendi brought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bendi.errors import ModelFileError, NotFoundError, StoreError
from bendi.formats import read_gguf_split
from bendi.i18n import _
from bendi.store.discover import LocalModel
from bendi.store.disk import hash_file, is_inside, remove_empty_folders, store_error
from bendi.store.install import model_lock
from bendi.store.journal import remove_part
from bendi.store.local import Store
from bendi.store.lock import locked
from bendi.store.progress import Meter, Progress
from bendi.store.record import drop_entry, entry_paths, entry_texts, read_record


@dataclass(frozen=True)
class Verification:
    """What `verify` found. `problems`: translated sentences, none when the model is good.

    `hashed`: whether every part could be compared with a promised hash.
    """

    model: LocalModel
    problems: tuple[str, ...]
    hashed: bool

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(model: LocalModel, on_progress: Callable[[Progress], None] = lambda _progress: None) -> Verification:
    """Compares sizes and hashes with what was recorded, and reads the header. Changes nothing, raises nothing."""
    problems: list[str] = []
    if not model.complete:
        problems.append(_("its download has not ended, or a part of it is missing"))
    promised = model.sha256 or (None,) * len(model.parts)
    hashed = all(promised)
    sizes = [file.size_bytes for file in model.entry.files] if model.entry else [None] * len(model.parts)
    meter = Meter(model.size_bytes, on_progress)
    base_bytes = 0
    for path, size_bytes, sha256 in zip(model.parts, sizes, promised, strict=True):
        if not path.is_file():
            problems.append(_("{file} is missing").format(file=path.name))
            continue
        actual_bytes = path.stat().st_size
        if size_bytes is not None and actual_bytes != size_bytes:
            problems.append(
                _("{file} has {actual} bytes instead of {expected}").format(
                    file=path.name, actual=actual_bytes, expected=size_bytes
                )
            )
        elif sha256 is not None:

            def show(done_bytes: int, base: int = base_bytes, name: str = path.name) -> None:
                meter.show(base + done_bytes, name, "check")

            problems.extend(_hash_problem(path, sha256, show))
        base_bytes += actual_bytes
    if not problems:
        problems.extend(_header_problem(model))
    return Verification(model, tuple(problems), hashed)


def _hash_problem(path: Path, sha256: str, show: Callable[[int], None]) -> list[str]:
    try:
        actual = hash_file(path, show)
    except StoreError as error:
        return [error.message]
    if actual == sha256:
        return []
    return [
        _("{file} has changed: its hash is {actual}..., not {expected}...").format(
            file=path.name, actual=actual[:16], expected=sha256[:16]
        )
    ]


def _header_problem(model: LocalModel) -> list[str]:
    try:
        read_gguf_split(model.path)
    except (ModelFileError, NotFoundError) as error:
        return [error.message]
    return []


def remove(store: Store, model: LocalModel) -> int:
    """Deletes a model that bendi brought, with what an unfinished download of it left; returns the bytes freed.

    Of a model that is only registered, the registration goes and the file stays (0 bytes). Files first, the record
    last: a break in between leaves a model that is listed as incomplete and can be deleted again. Raises StoreError
    when the model is not ours, is being downloaded, or lies outside of the store.
    """
    if model.folder is None or model.entry is None or not (model.owned or model.entry.external):
        raise StoreError(
            _("{name} belongs to {owner}, so bendi does not delete it").format(name=model.name, owner=_owner(model)),
            hint=_("It is here: {path}").format(path=model.path),
        )
    root = next((root for root in store.roots if model.folder.is_relative_to(root)), None)
    if root is None:
        raise StoreError(_("{path} is not inside the store").format(path=model.folder))
    if not model.owned:
        drop_entry(model.folder, model.name)
        remove_empty_folders(model.folder, root)
        return 0
    others = {
        path for entry in read_record(model.folder) if entry.name != model.name
        for path in entry_paths(model.folder, entry)
    }  # fmt: skip
    files = [path for path in (*model.parts, *entry_texts(model.folder, model.entry)) if path not in others]
    for path in files:
        if not is_inside(path, root):
            raise StoreError(
                _("{path} leads out of the store through a link, so bendi does not delete it").format(path=path),
                hint=_("Delete it by hand if you are sure."),
            )
    first = model.parts[0]
    freed_bytes = 0
    with locked(model_lock(first), wait=False):
        for path in files:
            freed_bytes += _delete(path)
            remove_part(path)
        drop_entry(model.folder, model.name)
    for path in files:
        remove_empty_folders(path.parent, root)
    return freed_bytes


def _delete(path: Path) -> int:
    try:
        size_bytes = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    except PermissionError as error:
        raise StoreError(
            _("{path} cannot be deleted: {error}").format(path=path, error=error.strerror),
            hint=_("If a program is using the model, end it and try again."),
        ) from error
    except OSError as error:
        raise store_error(error, path) from error
    return size_bytes


def _owner(model: LocalModel) -> str:
    return {
        "lmstudio": "LM Studio",
        "ollama": "Ollama",
        "hub cache": _("the cache of the hub"),
        "demo": _("the installation of bendi"),
    }.get(model.origin, _("you (bendi did not bring it)"))
