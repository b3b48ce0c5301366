"""The hub's wire protocol (huggingface.co and its mirrors): list a repository, find a file.

`GET /api/models/{repo}/revision/{rev}` names the commit; `GET /api/models/{repo}/tree/{commit}?recursive=true`, page
by page through `Link: rel="next"`, lists files with their size and, for large ones, the SHA-256 of Git LFS;
`GET /{repo}/resolve/{commit}/{file}` redirects to wherever the bytes are.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit, urlunsplit

from bendi.errors import BendiError, DownloadError, NotFoundError
from bendi.i18n import _
from bendi.store.names import RepoName, format_name, quote_path, store_folder, typed
from bendi.store.remote import Listing, RemoteFile, RemoteModel, canonical, endless, spell_variant
from bendi.store.transport import Refused, Transport, host_of
from bendi.store.variants import Listed, Variant, choose, quant_label
from bendi.units import MIB

MAX_PAGES = 100
MAX_PAGE_BYTES = 2 * MIB
"""A page has up to 1000 entries of some 500 bytes; a long path in Chinese may take a KiB more."""
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*\brel="?next"?')
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(name: RepoName, transport: Transport, endpoint: str) -> RemoteModel:
    """The model that `name` means now. Raises NotFoundError (with what there is instead) or DownloadError."""
    commit, files = list_files(name, transport, endpoint)
    variant = choose(files, name.quant, name.file, lambda variant, by_file: _spelled(name, variant, by_file))
    exact = canonical(name, files, variant)
    base = f"{endpoint}/{name.org}/{name.repo}/resolve/{commit}/"
    return RemoteModel(
        name=exact,
        folder=store_folder(exact),
        files=tuple(
            RemoteFile(base + quote_path(file.path), file.path, file.size_bytes, file.sha256, file.git_sha1)
            for file in variant.files
        ),
        revision=commit,
        label=variant.label or quant_label(variant.path),
    )


def list_files(name: RepoName, transport: Transport, endpoint: str) -> tuple[str, list[Listed]]:
    """(commit, GGUF files) of a repository."""
    host = host_of(endpoint)
    api = f"{endpoint}/api/models/{name.org}/{name.repo}"
    try:
        head, _answer = transport.get_json(f"{api}/revision/{quote_path(name.revision or 'main').replace('/', '%2F')}")
        commit = head.get("sha") if isinstance(head, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise _misspoken(host)
        listing = Listing(host)
        url: str | None = f"{api}/tree/{commit}?recursive=true"
        pages: set[str] = set()
        while url is not None:
            if len(pages) == MAX_PAGES:
                raise endless(host, _("{count} pages").format(count=MAX_PAGES))
            pages.add(url)
            page, answer = transport.get_json(url, limit_bytes=MAX_PAGE_BYTES)
            if not isinstance(page, list):
                raise _misspoken(host)
            listing.add_page((_entry(item) for item in page), answer.body_bytes)
            url = _next_page(url, answer.header("Link"))
            if url in pages:
                raise DownloadError(
                    _("the file list of {host} leads in circles").format(host=host),
                    hint=_("Try again later, or another source of the same model."),
                )
    except Refused as error:
        raise explain(error, name, endpoint) from error
    return commit, listing.files


def explain(error: Refused, name: RepoName, endpoint: str) -> BendiError:
    """The error for a refusal by the hub."""
    text = format_name(name)
    page = f"{endpoint}/{name.org}/{name.repo}"
    if error.code == "GatedRepo" or error.status == 403:
        return DownloadError(
            _("{name} is only for those who accept its licence").format(name=text),
            hint=_("Accept it at {page}, make a token there, then: HF_TOKEN=... bendi pull {name}").format(
                page=page, name=typed(text)
            ),
        )
    if error.code in ("RevisionNotFound", "EntryNotFound"):
        return NotFoundError(
            _("{repo} exists, but has no {revision}").format(
                repo=f"{name.org}/{name.repo}", revision=name.revision or name.file or "main"
            ),
            hint=_("See what it has: {command}").format(command=f"bendi pull --list hf:{name.org}/{name.repo}"),
        )
    if error.status in (401, 404, 410):
        return NotFoundError(
            _("{host} has no repository {repo}, or it is private (HTTP {status})").format(
                host=error.host, repo=f"{name.org}/{name.repo}", status=error.status
            ),
            hint=_("Check the spelling at {page}. If it is private, set HF_TOKEN.").format(page=page),
        )
    return DownloadError(_("{host} refuses (HTTP {status})").format(host=error.host, status=error.status))


def _spelled(name: RepoName, variant: Variant, by_file: bool) -> str:
    return format_name(spell_variant(name, variant, by_file))


def _entry(item: object) -> tuple[object, object, object, object]:
    """Path, size, SHA-256 and git's hash of a file; nothing of what is no file."""
    if not isinstance(item, dict) or item.get("type") != "file":
        return None, None, None, None
    lfs = item.get("lfs")
    if isinstance(lfs, dict):
        digest = lfs.get("oid", lfs.get("sha256"))
        return item.get("path"), lfs.get("size", item.get("size")), str(digest).removeprefix("sha256:"), None
    return item.get("path"), item.get("size"), None, item.get("oid")


def _next_page(url: str, link: str | None) -> str | None:
    """The next page of a listing, asked from the same host: mirrors pass on the hub's own links, and the token of one
    host is not for another."""
    match = _NEXT.search(link or "")
    if not match:
        return None
    here, following = urlsplit(url), urlsplit(urljoin(url, str(match[1])))
    return urlunsplit((here.scheme, here.netloc, following.path, following.query, ""))


def _misspoken(host: str) -> DownloadError:
    return DownloadError(
        _("the answer of {host} is not what its protocol says").format(host=host),
        hint=_("Is HF_ENDPOINT the address of a hub or of a mirror of it?"),
    )
