"""Looks at a model by any name, here or far away, and brings nothing but its header."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from bendi.errors import DownloadError, NotFoundError, UsageError
from bendi.formats import Anatomy, GgufFile, ModelInfo, anatomy, model_info, read_gguf_split
from bendi.formats.hf_model import HfModel, is_hf_folder, read_hf_folder
from bendi.i18n import _
from bendi.settings import Settings
from bendi.store.discover import LocalModel
from bendi.store.local import Store
from bendi.store.local_headers import local_headers
from bendi.store.names import ModelName, PathName, RepoName, format_name, parse_name
from bendi.store.pull import remote_names
from bendi.store.remote import RemoteModel
from bendi.store.remote_header import read_remote_model
from bendi.store.remote_safetensors import read_remote_safetensors
from bendi.store.sources import RemoteName, list_remote, open_transport
from bendi.store.transport import DownloadOptions

Container = Literal["GGUF", "safetensors"]


@dataclass(frozen=True)
class Inspection:
    """What a model says about itself.

    `name`: resolvable. `files`: paths, or names at the source. `size_bytes`: of all files with weights. `header_bytes`:
    of their headers; `received_bytes`: what looking cost on the network, None for a model of this machine. `notes`:
    what the user should know, translated. `parts`: the headers, for GGUF; `config`: `config.json`, for safetensors.
    `local`, `remote`: where it was found.
    """

    name: str
    container: Container
    info: ModelInfo
    anatomy: Anatomy
    files: tuple[str, ...]
    size_bytes: int
    header_bytes: int
    received_bytes: int | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[GgufFile, ...] = ()
    local: LocalModel | None = None
    remote: RemoteModel | None = None
    revision: str = ""
    config: Mapping[str, object] | None = None

    @property
    def sha256(self) -> tuple[str | None, ...]:
        """The promised hash of each file, as far as somebody promised one."""
        if self.local is not None:
            return self.local.sha256
        return tuple(file.sha256 for file in self.remote.files) if self.remote is not None else ()


@dataclass(frozen=True)
class InspectOptions:
    """How to look. `remote`: at the source, even for a model that is here. `source`: which one of a short name's.

    `note` gets a translated sentence when a source does not answer and the next one is tried; `on_bytes` the bytes
    received so far.
    """

    remote: bool = False
    source: Literal["hf", "ms"] | None = None
    download: DownloadOptions = field(default_factory=DownloadOptions)
    note: Callable[[str], None] = lambda _note: None
    on_bytes: Callable[[int], None] = lambda _count: None


def inspect_model(store: Store, text: str, options: InspectOptions | None = None) -> Inspection:
    """The model that `text` names: the one of this machine where there is one, else the one at its source.

    Raises UsageError, NotFoundError, DownloadError, StoreError, ModelFileError.
    """
    options = options or InspectOptions()
    name = _parsed(text)
    folder = _hf_folder(name) if isinstance(name, PathName) else None
    if folder is not None:
        return _inspect_folder(folder)
    if isinstance(name, PathName):
        return inspect_local(store.resolve(text), store.settings)
    if not options.remote and options.source is None:
        here = store.find(text)
        if here is not None:
            return inspect_local(here, store.settings)
    names = remote_names(store, text, options.source)
    if not names:  # the built-in model has no other place
        return inspect_local(store.resolve(text), store.settings)
    hasty = replace(options, download=replace(options.download, attempts=min(2, options.download.attempts)))
    for target, following in pairwise(names):
        try:
            return _inspect_remote(target, store.settings, hasty)
        except (DownloadError, NotFoundError) as error:
            options.note(_("{reason}; trying {name}").format(reason=error.message, name=format_name(following)))
    return _inspect_remote(names[-1], store.settings, options)


def inspect_local(model: LocalModel, settings: Settings | None = None) -> Inspection:
    """A model of this machine. Raises as `read_gguf_split`.

    `settings`: where headers are remembered; without them the file is read anew.
    """
    parts = local_headers(model.path, settings.cache_dir) if settings else read_gguf_split(model.path)
    return Inspection(
        name=model.name,
        container="GGUF",
        info=model_info(*parts),
        anatomy=anatomy(*parts),
        files=tuple(str(path) for path in model.parts),
        size_bytes=model.size_bytes,
        header_bytes=sum(part.data_offset for part in parts),
        parts=parts,
        local=model,
        revision=model.entry.revision if model.entry else "",
    )


def inspection_record(inspection: Inspection) -> dict[str, object]:
    """What a header tells, as JSON values: what `bendi inspect --json` prints."""
    info, parts = inspection.info, inspection.anatomy
    scaling = parts.rope_scaling
    return {
        "name": inspection.name,
        "container": inspection.container,
        "files": list(inspection.files),
        "size_bytes": inspection.size_bytes,
        "sha256": list(inspection.sha256),
        "revision": inspection.revision or None,
        "header_bytes": inspection.header_bytes,
        "received_bytes": inspection.received_bytes,
        "architecture": info.architecture,
        "title": info.name,
        "parameters": info.parameters,
        "active_parameters": parts.active_parameters,
        "quantization": info.quantization,
        "file_type": info.file_type,
        "bytes_by_type": dict(info.bytes_by_type),
        "layers": info.block_count,
        "layer_kinds": {kind: parts.count(kind) for kind in dict.fromkeys(parts.layers)},
        "window_tok": parts.window_tok,
        "shared_kv_layers": parts.shared_kv_layers,
        "prediction_layers": parts.prediction_layers,
        "latent_length": parts.latent_length,
        "embedding_length": info.embedding_length,
        "head_count": info.head_count,
        "head_count_kv": info.head_count_kv,
        "key_length": info.key_length,
        "value_length": info.value_length,
        "window_key_length": parts.window_key_length or info.key_length,
        "experts": info.expert_count,
        "experts_used": info.expert_used_count,
        "experts_shared": parts.experts_shared,
        "context_length": info.context_length,
        "rope_scaling": scaling.kind if scaling else None,
        "rope_scaling_factor": scaling.factor if scaling and math.isfinite(scaling.factor or 0) else None,
        "original_context_tok": scaling.original_context_tok if scaling else None,
        "vocab_size": info.vocab_size,
        "tied_embeddings": parts.tied_embeddings,
        "tokenizer": info.tokenizer_model,
        "chat_template_sha256": info.chat_template_sha256,
        "licence": info.licence,
        "languages": list(info.languages),
        "notes": list(inspection.notes),
    }


def _parsed(text: str) -> ModelName | None:
    try:
        return parse_name(text)
    except UsageError:
        return None


def _hf_folder(name: PathName) -> Path | None:
    """The folder with a model in safetensors format that a path means: itself, or that of a file in it."""
    folder = name.path.parent if name.path.suffix == ".safetensors" else name.path
    return folder if is_hf_folder(folder) else None


def _inspect_folder(folder: Path) -> Inspection:
    model = read_hf_folder(folder)
    return _of_safetensors(str(folder), model, tuple(str(folder / file) for file in model.files))


def _of_safetensors(name: str, model: HfModel, files: tuple[str, ...]) -> Inspection:
    return Inspection(
        name=name,
        container="safetensors",
        info=model.info,
        anatomy=model.anatomy,
        files=files,
        size_bytes=model.info.file_size_bytes,
        header_bytes=model.header_bytes,
        notes=model.notes,
        config=model.config,
    )


def _inspect_remote(name: RemoteName, settings: Settings, options: InspectOptions) -> Inspection:
    try:
        found = read_remote_model(name, settings, options.download, options.on_bytes)
    except NotFoundError:
        if not isinstance(name, RepoName) or name.quant or name.file or _has_gguf(name, settings, options.download):
            raise
        other = read_remote_safetensors(name, settings, options.download, options.on_bytes)
        inspection = _of_safetensors(format_name(name), other.model, other.model.files)
        return replace(inspection, received_bytes=other.received_bytes, revision=other.revision)
    return Inspection(
        name=format_name(found.remote.name),
        container="GGUF",
        info=found.info,
        anatomy=anatomy(*found.parts),
        files=tuple(file.path for file in found.remote.files),
        size_bytes=sum(part.file_size_bytes for part in found.parts),
        header_bytes=sum(part.data_offset for part in found.parts),
        received_bytes=found.received_bytes,
        notes=found.remote.notes,
        parts=found.parts,
        remote=found.remote,
        revision=found.remote.revision,
    )


def _has_gguf(name: RepoName, settings: Settings, options: DownloadOptions) -> bool:
    with open_transport(settings, options) as transport:
        return bool(list_remote(name, transport, settings))
