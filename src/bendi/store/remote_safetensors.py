"""What a repository in safetensors format says about its model: config, tokenizer and the header of every file.

Nothing but `config.json` tells what is there: a repository without GGUF files is asked for the usual names. Headers of
many files are brought at once; each is small, and the answers take longer than the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from bendi.errors import NotFoundError
from bendi.formats import ByteSource
from bendi.formats.hf_config import parse_json
from bendi.formats.hf_model import (
    CONFIG,
    INDEX,
    README,
    TEMPLATE,
    TOKENIZER,
    WEIGHTS,
    HfModel,
    hf_model,
    read_texts,
)
from bendi.formats.safetensors import (
    MAX_HEADER_BYTES,
    SafetensorsFile,
    SafetensorsIndex,
    TensorBudget,
    check_index,
    read_index,
    read_safetensors,
)
from bendi.i18n import _
from bendi.settings import Settings
from bendi.store import hub
from bendi.store.header_cache import address_key
from bendi.store.http_source import HttpByteSource
from bendi.store.names import DEFAULT_REVISION, RepoName, format_name
from bendi.store.remote import RemoteFile
from bendi.store.remote_header import RemoteReader, explainer
from bendi.store.sources import open_transport
from bendi.store.transport import DownloadOptions, Transport


@dataclass(frozen=True)
class RemoteHfModel:
    """A model far away in safetensors format. `received_bytes`: what looking cost on the network."""

    name: RepoName
    model: HfModel
    revision: str
    received_bytes: int


def read_remote_safetensors(
    name: RepoName,
    settings: Settings,
    options: DownloadOptions | None = None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> RemoteHfModel:
    """The model in safetensors format that the repository `name` has. `on_bytes` gets the bytes received so far.

    Raises NotFoundError when it has none, DownloadError when it cannot be reached, ModelFileError when its files are
    damaged or hostile.
    """
    with open_transport(settings, options) as transport:
        return _Repository(name, transport, settings, on_bytes).read()


class _Repository:
    """Files of a repository by their names, each asked for at most once."""

    def __init__(
        self, name: RepoName, transport: Transport, settings: Settings, on_bytes: Callable[[int], None]
    ) -> None:
        self._name = name
        self._options = transport.options
        self._reader = RemoteReader(transport, settings, explainer(name, settings), on_bytes)
        if name.source == "hf":
            self._revision = hub.list_files(name, transport, settings.hf_endpoint)[0]
            self._base = f"{settings.hf_endpoint}/{name.org}/{name.repo}/resolve/{self._revision}/"
        else:
            self._revision = name.revision or DEFAULT_REVISION["ms"]
            self._base = (
                f"{settings.ms_endpoint}/models/{name.org}/{name.repo}/resolve/{quote(self._revision, safe='')}/"
            )

    def read(self) -> RemoteHfModel:
        config = self._reader.read(
            [self._file(CONFIG)],
            lambda sources: parse_json(source, CONFIG) if (source := _if_there(sources[0])) else None,
        )
        if config is None:
            raise NotFoundError(
                _("{name} has neither GGUF files nor a config.json, so it tells nothing about a language model").format(
                    name=format_name(self._name)
                ),
                hint=_("Look for a repository whose name ends in GGUF."),
            )
        files = self._weights()
        texts = self._reader.read(
            [self._file(name) for name in (TOKENIZER, TEMPLATE, README)],
            lambda sources: read_texts(*[_if_there(source) for source in sources]),
        )
        model = hf_model(config, files, texts)
        return RemoteHfModel(self._name, model, self._revision, self._reader.received_bytes)

    def _weights(self) -> Mapping[str, SafetensorsFile]:
        index = self._reader.read(
            [self._file(INDEX)],
            lambda sources: read_index(source, INDEX) if (source := _if_there(sources[0])) else None,
        )
        names = index.files if index else (WEIGHTS,)
        try:
            files = self._reader.read(
                [self._file(name) for name in names],
                lambda sources: _read_all(names, sources, self._options.connections, index),
            )
        except NotFoundError as error:
            raise NotFoundError(
                _("{name} lacks weights in GGUF or safetensors format: {file}").format(
                    name=format_name(self._name), file=names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
                ),
                hint=_("Look for a repository whose name ends in GGUF."),
            ) from error
        if index:
            check_index(index, files)
        return files

    def _file(self, name: str) -> tuple[RemoteFile, str | None]:
        """A file and its key: a commit of the hub never changes, a branch of ModelScope does."""
        url = self._base + quote(name)
        return RemoteFile(url, name, None), address_key(url) if self._name.source == "hf" else None


def _read_all(
    names: Sequence[str], sources: Sequence[HttpByteSource], connections: int, index: SafetensorsIndex | None
) -> dict[str, SafetensorsFile]:
    with ThreadPoolExecutor(max_workers=connections, thread_name_prefix="bendi-header") as pool:
        # The results are of no interest: what arrives is remembered by the sources.
        list(pool.map(_bring_header, sources))
    budget = TensorBudget()
    if index:
        budget.promise(index.weight_map)
    return {name: read_safetensors(source, name, budget) for name, source in zip(names, sources, strict=True)}


def _bring_header(source: HttpByteSource) -> None:
    length = int.from_bytes(source.read_at(0, 8), "little")
    source.read_ahead = False  # the file has just said where its header ends
    if length <= min(source.size_bytes, MAX_HEADER_BYTES):
        source.bring(8, length)


def _if_there(source: ByteSource) -> ByteSource | None:
    try:
        return source if source.size_bytes else None
    except NotFoundError:
        return None
