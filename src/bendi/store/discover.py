"""Models of this machine, found where they lie. Read-only: nothing here creates, changes or deletes a file.

Four kinds of places: roots of bendi (with records, and plain folders that users filled by hand), LM Studio, the hub's
cache, Ollama. What cannot be read is passed over: another program's folder is not ours to complain about.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from bendi.errors import UsageError
from bendi.formats.json_scan import bounded_json_file
from bendi.store.journal import part_path
from bendi.store.manifest import manifest_layers
from bendi.store.names import OllamaName, RepoName, format_name, is_sha256, parse_name
from bendi.store.record import RECORD_NAME, Entry, entry_paths, read_record
from bendi.store.variants import Listed, Variant, group, quant_label

Origin = Literal["bendi", "registered", "folder", "lmstudio", "hub cache", "ollama", "path", "demo"]
ORIGINS: tuple[Origin, ...] = ("bendi", "registered", "folder", "lmstudio", "hub cache", "ollama", "path", "demo")
"""In the order of preference when one model is in several places."""

MAX_DEPTH = 8
_SNAPSHOT = re.compile(r"models--(?P<org>[^/]+?)--(?P<repo>[^/]+)")


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine. `path`: what an engine loads; for a split model the first of `parts`.

    `name`: resolvable; `spellings`: other texts that mean it, case-folded. `owned`: bendi brought it and may delete
    it. `folder`: where its record is, for models with one. `complete` False: its download has not ended.
    `sha256`: promised hash of each part, None where nobody promised one.
    """

    name: str
    path: Path
    parts: tuple[Path, ...]
    size_bytes: int
    origin: Origin
    owned: bool = False
    label: str = ""
    complete: bool = True
    sha256: tuple[str | None, ...] = ()
    spellings: frozenset[str] = frozenset()
    folder: Path | None = None
    entry: Entry | None = None


def scan_root(root: Path) -> list[LocalModel]:
    """Every model below a root of bendi: those of records, and files that somebody put there."""
    models: list[LocalModel] = []
    recorded: set[Path] = set()
    loose: dict[Path, list[Listed]] = {}
    for folder, names in _walk(root):
        if RECORD_NAME in names:
            for entry in read_record(folder):
                model = _recorded(folder, entry)
                models.append(model)
                recorded.update(entry_paths(folder, entry))
        listed = [file for name in names if (file := _listed(folder / name, name)) is not None]
        if listed:
            loose[folder] = listed
    for folder, listed in loose.items():
        free = [file for file in listed if folder / file.path not in recorded]
        models.extend(_loose(root, folder, free))
    return models


def scan_lmstudio(folder: Path) -> list[LocalModel]:
    """LM Studio keeps `publisher/repository/file.gguf`, after the hub's names."""
    models: list[LocalModel] = []
    for inner, names in _walk(folder):
        listed = [file for name in names if (file := _listed(inner / name, name)) is not None]
        parts = inner.relative_to(folder).parts
        for variant, by_file in _named(listed):
            repo = _repo_name(parts, variant, by_file)
            name = format_name(repo) if repo else PurePosixPath(*parts, variant.path).as_posix()
            models.append(_found(name, _Place("lmstudio", folder, inner), variant, repo))
    return models


def scan_hub_cache(folder: Path) -> list[LocalModel]:
    """The hub's cache keeps `models--org--repo/snapshots/<commit>/<file>`, links to blobs named after their hash."""
    models: list[LocalModel] = []
    for repository in _folders(folder):
        match = _SNAPSHOT.fullmatch(repository.name)
        if not match:
            continue
        current = _read_text(repository / "refs" / "main")
        snapshots = sorted(_folders(repository / "snapshots"), key=lambda path: (path.name != current, path.name))
        seen: set[tuple[str, ...]] = set()
        for snapshot in snapshots:
            listed = [
                file
                for inner, names in _walk(snapshot)
                for name in names
                if (file := _listed(inner / name, (inner / name).relative_to(snapshot).as_posix())) is not None
            ]
            for variant, by_file in _named(listed):
                blobs = tuple(str((snapshot / file.path).resolve()) for file in variant.files)
                if blobs in seen:
                    continue
                seen.add(blobs)
                repo = _repo_name((match["org"], match["repo"]), variant, by_file)
                if repo is None:
                    continue
                hashes = tuple(name if is_sha256(name := Path(blob).name) else None for blob in blobs)
                models.append(_found(format_name(repo), _Place("hub cache", folder, snapshot), variant, repo, hashes))
    return models


def scan_ollama(folder: Path) -> list[LocalModel]:
    """Ollama keeps `manifests/<host>/<namespace>/<name>/<tag>` and `blobs/sha256-<hash>`."""
    models: list[LocalModel] = []
    manifests = folder / "manifests"
    for inner, names in _walk(manifests):
        parts = inner.relative_to(manifests).parts
        if len(parts) != 3:
            continue
        for tag in names:
            name = _ollama_name(parts, tag)
            layers = read_manifest(inner / tag)
            weights = [layer for layer in layers if layer[0] == "model"]
            if name is None or len(weights) != 1:
                continue
            blob = folder / "blobs" / f"sha256-{weights[0][1]}"
            size_bytes = _size_bytes(blob)
            if size_bytes is not None:
                models.append(LocalModel(
                    format_name(name), blob, (blob,), size_bytes, "ollama", label=quant_label(tag),
                    sha256=(weights[0][1],), spellings=ollama_spellings(name),
                ))  # fmt: skip
    return models


def from_path(path: Path) -> list[LocalModel]:
    """The models of a path that the user typed: a file (any part of a split one), or all of a folder."""
    if path.is_dir():
        listed = [file for item in _files(path) if (file := _listed(item, item.name)) is not None]
        place = _Place("path", path, path)
        return [_found(str(path / variant.path), place, variant, None) for variant, _by_file in _named(listed)]
    size_bytes = _size_bytes(path)
    if size_bytes is None:
        return []
    siblings = [Listed(item.name, _size_bytes(item) or 0) for item in _files(path.parent)]
    for variant in group(siblings)[0]:
        if any(file.path == path.name for file in variant.files):
            return [_found(str(path), _Place("path", path.parent, path.parent), variant, None)]
    return [LocalModel(str(path), path, (path,), size_bytes, "path", label=quant_label(path.name))]


def repo_spellings(name: RepoName, file: str) -> frozenset[str]:
    """What a user may type for a model of a repository."""
    stem = PurePosixPath(file).name
    base = f"{name.org}/{name.repo}"
    texts = {format_name(name), stem, stem.removesuffix(".gguf")}
    for prefix in (f"{name.source}:{base}", base, name.repo):
        texts |= {prefix, f"{prefix}/{file}"}
        if name.quant:
            texts.add(f"{prefix}:{name.quant}")
    if name.revision:
        texts |= {f"{text}@{name.revision}" for text in (f"{name.source}:{base}", base)}
    return frozenset(text.casefold() for text in texts)


def ollama_spellings(name: OllamaName) -> frozenset[str]:
    full = format_name(name)
    texts = {full, full.removeprefix("ollama:"), f"{name.name}:{name.tag}"}
    if name.tag == "latest":
        texts |= {text.removesuffix(":latest") for text in texts}
    return frozenset(text.casefold() for text in texts)


def _recorded(folder: Path, entry: Entry) -> LocalModel:
    entry, complete = _state(folder, entry)
    paths = tuple(entry_paths(folder, entry))
    there = all(_size_bytes(path) == file.size_bytes for path, file in zip(paths, entry.files, strict=True))
    return LocalModel(
        name=entry.name,
        path=paths[0],
        parts=paths,
        size_bytes=sum(file.size_bytes for file in entry.files),
        origin="bendi" if entry.external is None else "registered",
        owned=entry.external is None and entry.how != "in place",
        label=quant_label(entry.files[0].path),
        complete=complete and there,
        sha256=tuple(file.sha256 for file in entry.files),
        spellings=_recorded_spellings(entry),
        folder=folder,
        entry=entry,
    )


def _state(folder: Path, entry: Entry) -> tuple[Entry, bool]:
    """The entry that holds now, and whether its model is whole: an installation may have broken off (`install`)."""
    if entry.next is None:
        return entry, entry.complete
    waiting = [part_path(path).exists() for path in entry_paths(folder, entry.next)]
    if all(waiting):
        return entry, entry.complete
    return entry.next, not any(waiting)


def _recorded_spellings(entry: Entry) -> frozenset[str]:
    file = entry.files[0].path
    stem = PurePosixPath(file).name
    plain = frozenset(text.casefold() for text in (entry.name, stem, stem.removesuffix(".gguf")))
    try:
        name = parse_name(entry.name)
    except UsageError:
        return plain
    if isinstance(name, RepoName):
        texts = repo_spellings(name, file)
        return plain | texts | {f"{text}@{entry.revision}" for text in texts if entry.revision}
    if isinstance(name, OllamaName):
        return plain | ollama_spellings(name)
    return plain


def _loose(root: Path, folder: Path, listed: list[Listed]) -> Iterator[LocalModel]:
    """Files of a root without a record: named after the hub where our own layout says so, else after their path."""
    parts = folder.relative_to(root).parts
    for variant, by_file in _named(listed):
        repo: RepoName | None = None
        if len(parts) == 3 and parts[0] in ("hf", "ms") and "@" not in parts[2]:
            repo = _repo_name(parts[1:], variant, by_file, "hf" if parts[0] == "hf" else "ms")
        name = format_name(repo) if repo else PurePosixPath(*parts, variant.path).as_posix()
        yield _found(name, _Place("folder", root, folder), variant, repo)


@dataclass(frozen=True)
class _Place:
    """Where a scan is: whose place it is, its top folder, and the folder that paths of variants start from."""

    origin: Origin
    top: Path
    folder: Path


def _found(
    name: str, place: _Place, variant: Variant, repo: RepoName | None, sha256: tuple[str | None, ...] = ()
) -> LocalModel:
    paths = tuple(place.folder / file.path for file in variant.files)
    stem = paths[0].name
    texts = {name, name.removesuffix(".gguf"), stem, stem.removesuffix(".gguf"), str(paths[0])}
    if paths[0].is_relative_to(place.top):
        texts.add(paths[0].relative_to(place.top).as_posix())
    spellings = frozenset(text.casefold() for text in texts)
    if repo is not None:
        spellings |= repo_spellings(repo, variant.path)
    return LocalModel(
        name, paths[0], paths, variant.size_bytes, place.origin, label=variant.label,
        sha256=sha256 or (None,) * len(paths), spellings=spellings,
    )  # fmt: skip


def _named(listed: Iterable[Listed]) -> list[tuple[Variant, bool]]:
    """Complete variants, and whether a name must say the file since the quantization is not enough."""
    variants, _incomplete = group(listed)
    labels = [variant.label for variant in variants]
    return [(variant, not variant.label or labels.count(variant.label) > 1) for variant in variants]


def _repo_name(
    parts: tuple[str, ...], variant: Variant, by_file: bool, source: Literal["hf", "ms"] = "hf"
) -> RepoName | None:
    """`parts` (organisation, repository, folders) as a name of the hub, if it can be one."""
    if len(parts) < 2:
        return None
    file = PurePosixPath(*parts[2:], variant.path).as_posix()
    chosen = f"/{file}" if by_file or len(parts) > 2 else f":{variant.label}"
    try:
        name = parse_name(f"{source}:{parts[0]}/{parts[1]}{chosen}")
    except UsageError:
        return None
    return name if isinstance(name, RepoName) else None


def _ollama_name(parts: tuple[str, ...], tag: str) -> OllamaName | None:
    host = "" if parts[0] == "registry.ollama.ai" else f"{parts[0]}/"
    try:
        name = parse_name(f"ollama:{host}{parts[1]}/{parts[2]}:{tag}")
    except UsageError:
        return None
    return name if isinstance(name, OllamaName) else None


def read_manifest(path: Path) -> list[tuple[str, str, object]]:
    """(kind, SHA-256, size) of the layers of an Ollama manifest; empty when it is none that can be trusted."""
    try:
        return manifest_layers(bounded_json_file(path)) or [] if path.is_file() else []
    except (OSError, ValueError):
        return []


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, file names) below `root`, sorted, without hidden folders and without following linked ones."""
    base_depth = len(root.parts)
    for current, folders, files in os.walk(root, onerror=None, followlinks=False):
        folder = Path(current)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(folder.parts) - base_depth >= MAX_DEPTH:
            folders.clear()
        yield folder, sorted(files)


def _listed(path: Path, name: str) -> Listed | None:
    if not name.lower().endswith(".gguf") or path.name.startswith("."):
        return None
    size_bytes = _size_bytes(path)
    return Listed(name, size_bytes) if size_bytes else None


def _size_bytes(path: Path) -> int | None:
    """Bytes of a regular file (or of what a link leads to); None when there is none that can be seen."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(item for item in path.iterdir() if item.is_dir())
    except OSError:
        return []


def _files(path: Path) -> list[Path]:
    try:
        return sorted(item for item in path.iterdir() if item.is_file())
    except OSError:
        return []


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
