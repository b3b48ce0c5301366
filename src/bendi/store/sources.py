"""Which wire protocol serves which kind of name, at which endpoint, with which token."""

from __future__ import annotations

from collections.abc import Mapping

from bendi.settings import Settings
from bendi.store import hub, modelscope, ollama, url
from bendi.store.names import OllamaName, RepoName, UrlName
from bendi.store.remote import RemoteModel
from bendi.store.transport import DownloadOptions, Transport
from bendi.store.variants import Listed

RemoteName = RepoName | OllamaName | UrlName


def open_transport(settings: Settings, options: DownloadOptions | None = None) -> Transport:
    """Connections as the settings want them. Each token is bound to its own endpoint."""
    tokens: Mapping[str, str] = {
        endpoint: token
        for endpoint, token in ((settings.ms_endpoint, settings.ms_token), (settings.hf_endpoint, settings.hf_token))
        if token
    }
    return Transport(tokens, options, offline=settings.offline)


def resolve_remote(name: RemoteName, transport: Transport, settings: Settings) -> RemoteModel:
    """What `name` means at its source now. Raises NotFoundError or DownloadError."""
    match name:
        case RepoName(source="hf"):
            return hub.resolve(name, transport, settings.hf_endpoint)
        case RepoName():
            return modelscope.resolve(name, transport, settings.ms_endpoint)
        case OllamaName():
            return ollama.resolve(name, transport, settings.ollama_registry)
        case UrlName():
            return url.resolve(name, transport)


def list_remote(name: RepoName, transport: Transport, settings: Settings) -> list[Listed]:
    """The GGUF files of a repository, with sizes. Raises NotFoundError or DownloadError."""
    if name.source == "hf":
        return hub.list_files(name, transport, settings.hf_endpoint)[1]
    return modelscope.list_files(name, transport, settings.ms_endpoint)
