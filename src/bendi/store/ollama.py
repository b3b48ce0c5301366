"""The Ollama registry's wire protocol, which is that of container registries with layers of its own.

`GET /v2/{namespace}/{name}/manifests/{tag}` gives the manifest; `GET /v2/{namespace}/{name}/blobs/{digest}` the bytes,
mostly by a redirect. Public models need no token, and bendi has none for a registry: a `WWW-Authenticate` answer,
whatever realm it names, is an error and never followed (CVE-2025-51471).
"""

from __future__ import annotations

from bendi.errors import BendiError, DownloadError, NotFoundError
from bendi.i18n import _
from bendi.store.manifest import manifest_layers
from bendi.store.names import OllamaName, format_name, store_folder
from bendi.store.remote import RemoteFile, RemoteModel, checked_size
from bendi.store.transport import Refused, Transport, host_of, is_loopback
from bendi.store.variants import part_path, quant_label
from bendi.units import MIB, format_size

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_TEXTS = {"license": "license.txt", "params": "params.json", "template": "template.txt", "system": "system.txt"}
_MAX_TEXT_BYTES = 4 * MIB


def resolve(name: OllamaName, transport: Transport, registry: str) -> RemoteModel:
    """The model that `name` means now. Raises NotFoundError or DownloadError."""
    if name.host:
        registry = f"{'http' if is_loopback(name.host.partition(':')[0]) else 'https'}://{name.host}"
    base = f"{registry}/v2/{name.namespace}/{name.name}"
    host = host_of(registry)
    try:
        manifest, _answer = transport.get_json(
            f"{base}/manifests/{name.tag}", accept=MANIFEST_TYPE, limit_bytes=4 * MIB
        )
    except Refused as error:
        raise explain(error, name) from error
    layers = manifest_layers(manifest)
    if layers is None:
        raise DownloadError(_("the answer of {host} is not what its protocol says").format(host=host))
    models = [layer for layer in layers if layer[0] == "model"]
    if not models:
        raise NotFoundError(
            _("{name} has no GGUF file: it is for other programs").format(name=format_name(name)),
            hint=_("Look for the same model in a repository of the hub whose name ends in GGUF."),
        )
    # Two tags that differ only in case are two models; a file system may not see the difference.
    stem = name.tag if name.tag == name.tag.lower() else f"{name.tag}+"
    paths = (
        [f"{stem}.gguf"] if len(models) == 1
        else [part_path(stem, number, len(models)) for number in range(1, len(models) + 1)]
    )  # fmt: skip
    return RemoteModel(
        name=name,
        folder=store_folder(name),
        files=tuple(
            RemoteFile(f"{base}/blobs/sha256:{digest}", path, checked_size(size, host), digest)
            for path, (_kind, digest, size) in zip(paths, models, strict=True)
        ),
        revision=f"sha256:{models[0][1]}",
        label=quant_label(name.tag),
        extras=tuple(_texts(layers, base, stem, host)),
        notes=_notes(layers),
    )


def explain(error: Refused, name: OllamaName) -> BendiError:
    """The error for a refusal by a registry."""
    if error.status in (401, 403):
        return DownloadError(
            _("{host} wants a login for {name}; bendi has none and asks nobody for one").format(
                host=error.host, name=format_name(name)
            ),
            hint=_("Check the spelling: registries answer so for models that do not exist, too."),
        )
    if error.status in (400, 404, 410):
        return NotFoundError(
            _("{host} has no {name}").format(host=error.host, name=format_name(name)),
            hint=_("Check name and tag; names look like ollama:llama3.2:1b."),
        )
    return DownloadError(_("{host} refuses (HTTP {status})").format(host=error.host, status=error.status))


def _texts(layers: list[tuple[str, str, object]], base: str, stem: str, host: str) -> list[RemoteFile]:
    texts: dict[str, RemoteFile] = {}
    for kind, digest, size in layers:
        suffix = _TEXTS.get(kind)
        if suffix and suffix not in texts and isinstance(size, int) and 0 < size <= _MAX_TEXT_BYTES:
            url = f"{base}/blobs/sha256:{digest}"
            texts[suffix] = RemoteFile(url, f"{stem}.{suffix}", checked_size(size, host), digest)
    return list(texts.values())


def _notes(layers: list[tuple[str, str, object]]) -> tuple[str, ...]:
    notes = []
    for kind, _digest, size in layers:
        size_text = format_size(size) if isinstance(size, int) and not isinstance(size, bool) else "?"
        if kind == "projector":
            notes.append(_("It can also see images; that part ({size}) was not downloaded.").format(size=size_text))
        elif kind == "adapter":
            notes.append(
                _("It has an adapter ({size}) that was not downloaded: answers differ from Ollama's.").format(
                    size=size_text
                )
            )
    return tuple(notes)
