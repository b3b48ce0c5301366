"""ModelScope's wire protocol.

`GET /api/v1/models/{repo}/repo/files?Revision=...&Recursive=true` lists files with size and SHA-256;
`GET /models/{repo}/resolve/{revision}/{path}` gives the bytes, mostly by a redirect.
"""

from __future__ import annotations

from urllib.parse import quote

from bendi.errors import BendiError, DownloadError, NotFoundError
from bendi.i18n import _
from bendi.store.names import DEFAULT_REVISION, RepoName, format_name, quote_path, store_folder, typed
from bendi.store.remote import Listing, RemoteFile, RemoteModel, canonical, spell_variant
from bendi.store.transport import Refused, Transport, host_of
from bendi.store.variants import Listed, Variant, choose, quant_label


def resolve(name: RepoName, transport: Transport, endpoint: str) -> RemoteModel:
    """The model that `name` means now. Raises NotFoundError (with what there is instead) or DownloadError."""
    files = list_files(name, transport, endpoint)
    variant = choose(files, name.quant, name.file, lambda variant, by_file: _spelled(name, variant, by_file))
    exact = canonical(name, files, variant)
    revision = name.revision or DEFAULT_REVISION["ms"]
    base = f"{endpoint}/models/{name.org}/{name.repo}/resolve/{quote(revision, safe='')}/"
    return RemoteModel(
        name=exact,
        folder=store_folder(exact),
        files=tuple(
            RemoteFile(base + quote_path(file.path), file.path, file.size_bytes, file.sha256) for file in variant.files
        ),
        revision=revision,
        label=variant.label or quant_label(variant.path),
    )


def list_files(name: RepoName, transport: Transport, endpoint: str) -> list[Listed]:
    """The GGUF files of a repository."""
    host = host_of(endpoint)
    revision = quote(name.revision or DEFAULT_REVISION["ms"], safe="")
    url = f"{endpoint}/api/v1/models/{name.org}/{name.repo}/repo/files?Revision={revision}&Recursive=true"
    try:
        answer, whole = transport.get_json(url)
    except Refused as error:
        raise explain(error, name, endpoint) from error
    data = answer.get("Data") if isinstance(answer, dict) else None
    entries = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        # Some refusals come as HTTP 200 with the reason inside.
        code = answer.get("Code") if isinstance(answer, dict) else None
        if isinstance(code, int) and code != 200:
            raise explain(Refused(404 if code == 10010205001 else 400, host, str(code)), name, endpoint)
        raise DownloadError(
            _("the answer of {host} is not what its protocol says").format(host=host),
            hint=_("Is MODELSCOPE_ENDPOINT the address of ModelScope?"),
        )
    listing = Listing(host)
    listing.add_page(
        (
            (item.get("Path"), item.get("Size"), str(item.get("Sha256") or "").lower() or None, None)
            for item in entries
            if isinstance(item, dict) and item.get("Type") != "tree"
        ),
        whole.body_bytes,
    )
    return listing.files


def explain(error: Refused, name: RepoName, endpoint: str) -> BendiError:
    """The error for a refusal by ModelScope."""
    page = f"{endpoint}/models/{name.org}/{name.repo}"
    if error.status in (401, 403):
        return DownloadError(
            _("{name} is not open to everybody (HTTP {status})").format(name=format_name(name), status=error.status),
            hint=_("Look at {page}; with a token of yours: MODELSCOPE_API_TOKEN=... bendi pull {name}").format(
                page=page, name=typed(format_name(name))
            ),
        )
    if error.status in (400, 404, 410):
        return NotFoundError(
            _("{host} has no {name}").format(host=error.host, name=format_name(name)),
            hint=_("Check the spelling at {page}.").format(page=page),
        )
    return DownloadError(_("{host} refuses (HTTP {status})").format(host=error.host, status=error.status))


def _spelled(name: RepoName, variant: Variant, by_file: bool) -> str:
    return format_name(spell_variant(name, variant, by_file))
