"""What a model far away says about itself, before any of it is downloaded: only its headers cross the network.

GGUF models of the hub, ModelScope, Ollama registries and plain URLs; all parts of split ones. What was read is kept
in the cache folder, so that a second look costs nothing but the listing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from bendi.errors import BendiError, DownloadError, ModelFileError
from bendi.formats import GgufFile, ModelInfo, model_info, read_gguf_parts
from bendi.settings import Settings
from bendi.store import hub, modelscope, ollama, url
from bendi.store.blocks import Blocks, Spool
from bendi.store.header_cache import HeaderCache, Kept, file_key
from bendi.store.http_source import Allowance, HttpByteSource
from bendi.store.names import OllamaName, RepoName, UrlName
from bendi.store.remote import RemoteFile, RemoteModel
from bendi.store.sources import RemoteName, open_transport, resolve_remote
from bendi.store.transport import DownloadOptions, Refused, Transport

HEADERS_FOLDER = "headers"
T = TypeVar("T")
Explain = Callable[[Refused, str], BendiError]


@dataclass(frozen=True)
class RemoteHeader:
    """A model far away. `parts`: the header of each of its files. `received_bytes`: what the headers cost on the
    network, without the listing; 0 when all of it was remembered."""

    remote: RemoteModel
    parts: tuple[GgufFile, ...]
    info: ModelInfo
    received_bytes: int


def read_remote_model(
    name: RemoteName,
    settings: Settings,
    options: DownloadOptions | None = None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> RemoteHeader:
    """The headers of the model that `name` means at its source now. `on_bytes` gets the bytes received so far.

    Raises NotFoundError or DownloadError when it cannot be reached, ModelFileError when it is not a usable model, or
    its headers take more than 64 MiB.
    """
    with open_transport(settings, options) as transport:
        remote = resolve_remote(name, transport, settings)
        return read_remote_headers(remote, transport, settings, on_bytes)


def read_remote_headers(
    remote: RemoteModel,
    transport: Transport,
    settings: Settings,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> RemoteHeader:
    """The headers of a model that has been found. Raises as `read_remote_model`."""
    reader = RemoteReader(transport, settings, explainer(remote.name, settings), on_bytes)
    keys = [file_key(file) for file in remote.files]
    parts = reader.read(
        list(zip(remote.files, keys, strict=True)),
        lambda sources: read_gguf_parts(
            [(file.path.rpartition("/")[2], source) for file, source in zip(remote.files, sources, strict=True)]
        ),
    )
    return RemoteHeader(remote, parts, model_info(*parts), reader.received_bytes)


def explainer(name: RemoteName, settings: Settings) -> Explain:
    """What makes an error of a refusal of the source of `name`."""
    match name:
        case RepoName(source="hf"):
            return lambda refused, _url: hub.explain(refused, name, settings.hf_endpoint)
        case RepoName():
            return lambda refused, _url: modelscope.explain(refused, name, settings.ms_endpoint)
        case OllamaName():
            return lambda refused, _url: ollama.explain(refused, name)
        case UrlName():
            return url.explain


class RemoteReader:
    """Reads headers of one model through the cache. `received_bytes`: what that cost so far."""

    def __init__(
        self, transport: Transport, settings: Settings, explain: Explain, on_bytes: Callable[[int], None]
    ) -> None:
        self._transport, self._explain = transport, explain
        self._folder = settings.cache_dir
        self._cache = HeaderCache(settings.cache_dir / HEADERS_FOLDER)
        self._allowance = Allowance(on_bytes=on_bytes)

    @property
    def received_bytes(self) -> int:
        return self._allowance.received_bytes

    def read(self, files: Sequence[tuple[RemoteFile, str | None]], parse: Callable[[Sequence[HttpByteSource]], T]) -> T:
        """What `parse` makes of the bytes of `files`, each with its key in the cache.

        What arrived is kept when that works, and also when the connection breaks; then the next attempt continues.
        """
        with self._opened(files) as (sources, remembered):
            try:
                parsed = parse(sources)
            except ModelFileError:
                if not remembered:
                    raise
            except DownloadError:
                self._save(files, sources)
                raise
            else:
                self._save(files, sources)
                return parsed
        # What was remembered may be what is damaged.
        for _file, key in files:
            self._cache.forget(key)
        with self._opened(files) as (sources, _remembered):
            parsed = parse(sources)
            self._save(files, sources)
            return parsed

    @contextmanager
    def _opened(self, files: Sequence[tuple[RemoteFile, str | None]]) -> Iterator[tuple[list[HttpByteSource], bool]]:
        """The files as sources, and whether anything of them was remembered."""
        sources = []
        remembered = False
        with ExitStack() as stack:
            spool = stack.enter_context(Spool(self._folder))
            for file, key in files:
                kept = self._cache.load(key, spool)
                if kept is not None and file.size_bytes not in (None, kept.size_bytes):
                    kept = None
                if kept is not None:
                    remembered = True
                    file = replace(file, size_bytes=kept.size_bytes)
                known = kept.blocks if kept else Blocks(spool)
                source = HttpByteSource(file, self._transport, self._allowance, known, self._explain)
                sources.append(stack.enter_context(source))
            yield sources, remembered

    def _save(self, files: Sequence[tuple[RemoteFile, str | None]], sources: Sequence[HttpByteSource]) -> None:
        for (_file, key), source in zip(files, sources, strict=True):
            if source.received_bytes and source.blocks:
                self._cache.save(key, Kept(source.size_bytes, source.blocks))
