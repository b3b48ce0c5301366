"""Brings a model: resolve, check what is here already, lock, download, verify, install, write the record."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

from bendi.errors import DownloadError, HashMismatch, ModelFileError, NotFoundError, StoreError, UsageError
from bendi.formats import read_gguf_split
from bendi.i18n import _
from bendi.store.discover import LocalModel
from bendi.store.disk import hash_file, make_folder, require_space, write_atomic
from bendi.store.download import fetch
from bendi.store.install import current_entry, finish_installs, install, model_lock
from bendi.store.journal import PartFile, arrived_bytes
from bendi.store.local import Store
from bendi.store.lock import STORE_LOCK_NAME, locked
from bendi.store.names import AliasName, OllamaName, PathName, RepoName, UrlName, format_name, parse_name, typed
from bendi.store.progress import Meter, Phase, Progress
from bendi.store.record import Entry, RecordedFile, entry_paths, put_entry, read_record
from bendi.store.remote import RemoteFile, RemoteModel
from bendi.store.sources import RemoteName, open_transport, resolve_remote
from bendi.store.transport import DownloadOptions, Refused, Transport, offline_error
from bendi.units import MIB

_MAX_EXTRA_BYTES = 4 * MIB

Status = Literal["downloaded", "present", "elsewhere"]


@dataclass(frozen=True)
class PullEvents:
    """Where a pull reports. Both are called in the thread that pulls. `note` gets a translated sentence."""

    progress: Callable[[Progress], None] = lambda _progress: None
    note: Callable[[str], None] = lambda _note: None


@dataclass(frozen=True)
class PullResult:
    """`status`: what was done: downloaded now, found complete, or found in another program's folder, used in place."""

    model: LocalModel
    status: Status
    remote: RemoteModel | None = None


def pull(
    store: Store,
    text: str,
    *,
    options: DownloadOptions | None = None,
    events: PullEvents | None = None,
    force: bool = False,
    source: Literal["hf", "ms"] | None = None,
) -> PullResult:
    """Brings the model that `text` names into the store, or finds it there.

    `force`: downloads although it is here. `source`: which one of a short name's sources. Raises UsageError,
    NotFoundError, DownloadError (what arrived is kept), HashMismatch, ModelFileError, StoreError; KeyboardInterrupt
    also leaves what arrived. A model that was good before stays good.
    """
    events = events or PullEvents()
    finish_installs(store.root)
    names = remote_names(store, text, source)
    if not names:
        return PullResult(store.resolve(text), "present")
    if store.settings.offline:
        here = store.find(text)
        if here is None or force:
            raise offline_error(text)
        return PullResult(here, "present")
    options = options or DownloadOptions()
    remote = _resolve_first(store, names, options, events)
    with open_transport(store.settings, options) as transport:
        for note in remote.notes:
            events.note(note)
        return _Pull(store, remote, transport, events).run(force)


def remote_names(store: Store, text: str, source: Literal["hf", "ms"] | None = None) -> tuple[RemoteName, ...]:
    """What `text` may be pulled from, best first; nothing for the built-in model. Raises UsageError for a path."""
    name = parse_name(text)
    if isinstance(name, AliasName):
        if name.alias == "demo":
            return ()
        targets = store.catalogue.targets(name)
    else:
        targets = (name,)
    for target in targets:
        if isinstance(target, PathName):
            raise UsageError(
                _("{path} is a path of this machine: there is nothing to download").format(path=target.path),
                hint=_("To take it into the store: bendi import {path}").format(path=typed(str(target.path))),
            )
        if isinstance(target, AliasName):  # another name of the built-in model
            return ()
    remote = tuple(target for target in targets if isinstance(target, RepoName | OllamaName | UrlName))
    chosen = tuple(target for target in remote if source in (None, getattr(target, "source", None)))
    if not chosen:
        raise UsageError(
            _("{name} is not at that source").format(name=text),
            hint=_("It is here: {names}").format(names=", ".join(format_name(target) for target in remote)),
        )
    return chosen


def pull_record(result: PullResult) -> dict[str, object]:
    """What a pull has brought or found, as JSON values: what `bendi pull --json` prints."""
    model = result.model
    return {
        "name": model.name,
        "status": result.status,
        "path": str(model.path),
        "parts": [str(path) for path in model.parts],
        "size_bytes": model.size_bytes,
        "sha256": list(model.sha256),
        "revision": result.remote.revision if result.remote else None,
    }


def _resolve_first(
    store: Store, names: Sequence[RemoteName], options: DownloadOptions, events: PullEvents
) -> RemoteModel:
    """The first source that answers. The second one of a short name is there for those who cannot reach the first."""
    for name, following in pairwise((*names, None)):
        assert name is not None
        patience = options if following is None else replace(options, attempts=min(2, options.attempts))
        try:
            with open_transport(store.settings, patience) as transport:
                return resolve_remote(name, transport, store.settings)
        except (DownloadError, NotFoundError) as error:
            if following is None:
                raise
            events.note(_("{reason}; trying {name}").format(reason=error.message, name=format_name(following)))
    raise AssertionError


class _Pull:
    """One pull of one resolved model into the store's first root."""

    def __init__(self, store: Store, remote: RemoteModel, transport: Transport, events: PullEvents) -> None:
        self._store, self._remote, self._transport, self._events = store, remote, transport, events
        self._name = format_name(remote.name)
        self._folder = store.root.joinpath(*remote.folder.parts)
        self._targets = [self._folder.joinpath(*file.path.split("/")) for file in remote.files]

    def run(self, force: bool) -> PullResult:
        if not force:
            elsewhere = self._elsewhere()
            if elsewhere:
                return PullResult(elsewhere, "elsewhere", self._remote)
        with self._locks():
            entry = current_entry(self._folder, self._name)
            if not force and entry and entry.complete and self._same_files(entry):
                return PullResult(self._store.lookup(self._name), "present", self._remote)
            self._refuse_foreign(entry)
            require_space(self._folder, self._missing_bytes(), self._transport.options.disk_reserve_bytes)
            if entry is None or not entry.complete:
                put_entry(self._folder, self._new_entry((), complete=False))
            self._download(entry)
        return PullResult(self._store.lookup(self._name), "downloaded", self._remote)

    @contextmanager
    def _locks(self) -> Iterator[None]:
        """The store may not move meanwhile, and one process at a time brings one model."""
        first = self._targets[0]
        moving: list[str] = []

        def wait_for_move() -> None:
            moving.append(_("Another bendi is moving the store; waiting for it."))
            self._events.note(moving[-1])

        with ExitStack() as stack:
            stack.enter_context(locked(self._store.root / STORE_LOCK_NAME, shared=True, on_wait=wait_for_move))
            if moving:  # what would be downloaded to the old place, nobody would find
                raise StoreError(_("the store has just been moved"), hint=_("Type the same command again."))
            make_folder(first.parent)
            stack.enter_context(
                locked(
                    model_lock(first),
                    on_wait=lambda: self._events.note(
                        _("Another bendi is downloading {name}; waiting for it.").format(name=self._name)
                    ),
                )
            )
            yield

    def _same_files(self, entry: Entry) -> bool:
        """Whether an entry has the files that the source has now, and they are there in full."""
        if len(entry.files) != len(self._remote.files):
            return False
        for there, file, path in zip(entry.files, self._remote.files, entry_paths(self._folder, entry), strict=True):
            if not path.is_file() or path.stat().st_size != there.size_bytes or there.path != file.path:
                return False
            if file.sha256 is not None and file.sha256 != there.sha256:
                return False
            if file.size_bytes is not None and file.size_bytes != there.size_bytes:
                return False
        return all(file.sha256 for file in self._remote.files) or entry.revision == self._remote.revision

    def _refuse_foreign(self, entry: Entry | None) -> None:
        """A file that is in the way and that bendi did not bring is never replaced."""
        ours = {
            path for other in read_record(self._folder) if other.external is None
            for path in entry_paths(self._folder, other)
        }  # fmt: skip
        for target in self._targets:
            if target.exists() and target not in ours:
                raise StoreError(
                    _("{path} is in the way: bendi did not bring that file and will not replace it").format(
                        path=target
                    ),
                    hint=_("It can be used as it is: bendi run {path}. To download anyway, move it away.").format(
                        path=typed(str(target))
                    ),
                )

    def _missing_bytes(self) -> int:
        pairs = zip(self._remote.files, self._targets, strict=True)
        return sum(max(0, (file.size_bytes or 0) - arrived_bytes(target)) for file, target in pairs)

    def _new_entry(self, parts: Sequence[PartFile], *, complete: bool) -> Entry:
        hashes = [part.sha256 for part in parts] or [file.sha256 for file in self._remote.files]
        sizes = [part.identity.size_bytes for part in parts] or [file.size_bytes for file in self._remote.files]
        files = tuple(
            RecordedFile(file.path, size or 0, sha256)
            for file, size, sha256 in zip(self._remote.files, sizes, hashes, strict=True)
        )
        return Entry(
            name=self._name,
            how="download",
            files=files,
            source=self._remote.files[0].url,
            revision=self._remote.revision,
            installed=datetime.now(UTC).isoformat(timespec="seconds"),
            complete=complete,
            extras=tuple(extra.path for extra in self._remote.extras) if complete else (),
        )

    def _download(self, old: Entry | None) -> None:
        """All parts are verified before the first gets its name: an update that breaks off leaves the old model."""
        sizes = [file.size_bytes for file in self._remote.files]
        meter = Meter(None if None in sizes else self._remote.size_bytes, self._events.progress)
        parts: list[PartFile] = []
        base_bytes = 0
        for file, target in zip(self._remote.files, self._targets, strict=True):

            def show(done_bytes: int, phase: Phase, base: int = base_bytes, name: str = file.path) -> None:
                meter.show(base + done_bytes, name, phase)

            parts.append(fetch(file, target, self._transport, show))
            base_bytes += parts[-1].identity.size_bytes or 0
        if len(parts) > 1:
            _check_together(self._folder, parts, self._targets)
        for extra in self._remote.extras:
            self._fetch_text(extra)
        install(self._folder, old, self._new_entry(parts, complete=True))

    def _fetch_text(self, extra: RemoteFile) -> None:
        try:
            content = self._transport.get_bytes(extra.url, _MAX_EXTRA_BYTES)
        except Refused as error:
            raise DownloadError(
                _("{host} refuses (HTTP {status})").format(host=error.host, status=error.status)
            ) from error
        if hashlib.sha256(content).hexdigest() != extra.sha256:
            raise HashMismatch(_("{file} is not what was promised").format(file=extra.path))
        write_atomic(self._folder.joinpath(*extra.path.split("/")), content)

    def _elsewhere(self) -> LocalModel | None:
        """The same bytes in another program's folder, or in another root: then nothing need be downloaded.

        Sizes decide whether to look closer; where the source promises a hash, the hash decides.
        """
        wanted = [(file.size_bytes, file.sha256) for file in self._remote.files]
        if not all(size and sha256 for size, sha256 in wanted):
            return None
        for model in self._store.models():
            mine = model.entry is not None and model.path in self._targets
            if mine or not model.complete or self._name.casefold() not in (model.name.casefold(), *model.spellings):
                continue
            if [path.stat().st_size for path in model.parts] != [size for size, _sha256 in wanted]:
                continue
            if self._hashes(model) == [sha256 for _size, sha256 in wanted]:
                return model
        return None

    def _hashes(self, model: LocalModel) -> list[str]:
        meter = Meter(model.size_bytes, self._events.progress)
        hashes = []
        base_bytes = 0
        for path in model.parts:

            def show(done_bytes: int, base: int = base_bytes, name: str = path.name) -> None:
                meter.show(base + done_bytes, name, "check")

            hashes.append(hash_file(path, show))
            base_bytes += path.stat().st_size
        return hashes


def _check_together(folder: Path, parts: Sequence[PartFile], targets: Sequence[Path]) -> None:
    """Whether the parts of a split model belong together, before they get their names: under links with those names.

    Raises ModelFileError. A file system without links cannot be asked; `verify` looks again later.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as name:
        links = [Path(name, target.name) for target in targets]
        try:
            for part, link in zip(parts, links, strict=True):
                os.link(part.path, link)
        except OSError:
            return
        try:
            read_gguf_split(links[0])
        except ModelFileError as error:
            raise ModelFileError(
                _("the parts of this model do not fit together: {why}").format(why=error.message),
                hint=_("Nothing was installed. Try another source of the same model."),
            ) from error
