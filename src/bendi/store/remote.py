"""A model far away: what it is made of, before any of it is downloaded. Data, and the checks that every listing passes.

Listings are written by strangers. A path that would leave its folder, a size that is no size, a hash that is no hash:
the listing is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from sys import getsizeof

from bendi.errors import DownloadError
from bendi.i18n import _
from bendi.store.names import OllamaName, RepoName, UrlName, is_safe_path, is_sha256
from bendi.store.variants import Listed, Variant, group
from bendi.units import MIB, format_size

MAX_LISTING_ENTRIES = 100_000
MAX_LISTING_BYTES = 32 * MIB
MAX_LISTED_FILES = 10_000
MAX_LISTED_TEXT_BYTES = 8 * MIB
"""Of all pages of one listing: entries, bytes on the network, GGUF files among them, and what their paths take. The
largest repositories with GGUF files have a few thousand files, of some 500 bytes each in the listing."""
MAX_FILE_BYTES = 1 << 46
"""64 TiB. No model is larger; arithmetic on sizes stays far from overflow."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to download. `path`: below the model's folder, `/`-separated, checked.

    `size_bytes` None: the server does not say. `sha256`, `git_sha1`: what the bytes must hash to, where promised.
    `etag`, `last_modified`: validators, for files without a hash.
    """

    url: str
    path: str
    size_bytes: int | None
    sha256: str | None = None
    git_sha1: str | None = None
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True)
class RemoteModel:
    """A model that can be pulled. `name`: canonical. `folder`: below a store's root.

    `revision`: commit, digest or validator, for the record. `extras`: small texts that belong to it (licence,
    parameters). `notes`: what the user should know, already translated.
    """

    name: RepoName | OllamaName | UrlName
    folder: PurePosixPath
    files: tuple[RemoteFile, ...]
    revision: str = ""
    label: str = ""
    extras: tuple[RemoteFile, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes or 0 for file in self.files)


class Listing:
    """The GGUF files that a source lists, page by page. `files`: those so far, checked.

    Refuses a listing that is hostile, or longer than any: a part of it would look like a repository with fewer files.
    """

    def __init__(self, host: str) -> None:
        self.files: list[Listed] = []
        self._host = host
        self._seen: set[str] = set()
        self._entries = self._page_bytes = self._text_bytes = 0

    def add_page(self, entries: Iterable[tuple[object, object, object, object]], page_bytes: int) -> None:
        """(path, size, sha256, git sha1) of each entry of a page that took `page_bytes`. Raises DownloadError.

        Entries that are not GGUF files are of no interest, whatever they contain.
        """
        self._page_bytes += page_bytes
        if self._page_bytes > MAX_LISTING_BYTES:
            raise endless(self._host, format_size(MAX_LISTING_BYTES))
        for path, size, sha256, git_sha1 in entries:
            self._entries += 1
            if self._entries > MAX_LISTING_ENTRIES:
                raise endless(self._host, _("{count} entries").format(count=MAX_LISTING_ENTRIES))
            if isinstance(path, str) and path.lower().endswith(".gguf"):
                self._add(path, size, sha256, git_sha1)

    def _add(self, path: str, size: object, sha256: object, git_sha1: object) -> None:
        host = self._host
        if not is_safe_path(path):
            raise _hostile(host, _("a file name that would leave its folder: {path!r}").format(path=path[:120]))
        folded = path.casefold()
        if folded in self._seen:
            raise _hostile(host, _("two files with one name: {path!r}").format(path=path[:120]))
        self._seen.add(folded)
        if sha256 is not None and not is_sha256(sha256):
            raise _hostile(host, _("a hash that is none: {value!r}").format(value=str(sha256)[:80]))
        self._text_bytes += getsizeof(path)
        if len(self.files) == MAX_LISTED_FILES or self._text_bytes > MAX_LISTED_TEXT_BYTES:
            raise endless(host, _("{count} GGUF files").format(count=len(self.files)))
        self.files.append(
            Listed(
                path,
                checked_size(size, host),
                sha256 if isinstance(sha256, str) else None,
                git_sha1 if isinstance(git_sha1, str) and _is_sha1(git_sha1) else None,
            )
        )


def endless(host: str, limit: str) -> DownloadError:
    """The error for a listing beyond `limit`, a translated amount."""
    return DownloadError(
        _("the file list of {host} is too long to be right: more than {limit}").format(host=host, limit=limit),
        hint=_("Give the address of the one file that you want: bendi pull https://.../FILE.gguf"),
    )


def checked_size(size: object, host: str) -> int:
    """`size` as bytes. Raises DownloadError unless it is a number that a model file can have."""
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= MAX_FILE_BYTES:
        raise _hostile(host, _("a size that cannot be: {size}").format(size=str(size)[:40]))
    return size


def spell_variant(name: RepoName, variant: Variant, by_file: bool) -> RepoName:
    """The name of one variant of a repository."""
    return RepoName(
        name.source,
        name.org,
        name.repo,
        None if by_file else variant.label,
        variant.path if by_file else None,
        name.revision,
    )


def canonical(name: RepoName, files: Sequence[Listed], variant: Variant) -> RepoName:
    """The one name of `variant`: by its quantization where that is enough in this repository, else by its file."""
    labels = [other.label for other in group(files)[0]]
    return spell_variant(name, variant, not variant.label or labels.count(variant.label) > 1)


def _is_sha1(text: str) -> bool:
    return len(text) == 40 and all(char in "0123456789abcdef" for char in text)


def _hostile(host: str, what: str) -> DownloadError:
    return DownloadError(
        _("the file list of {host} is refused: {what}").format(host=host, what=what),
        hint=_("This repository or mirror should not be trusted. Use another source of the same model."),
    )
