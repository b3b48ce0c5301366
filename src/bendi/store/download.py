"""The one downloader: a remote file into `<target>.part`, verified, ready to get its name.

Every way to end (a break, Ctrl-C, a full disk, a kill) leaves a part and a journal from which the next attempt
continues. Only bytes whose size and hash are what was promised, and which are a sound model file, pass; `install`
gives them their names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bendi.errors import HashMismatch, ModelFileError
from bendi.formats.gguf import read_gguf
from bendi.i18n import _
from bendi.store.disk import hash_file, store_error
from bendi.store.journal import Identity, PartFile, remove_part
from bendi.store.progress import Phase
from bendi.store.remote import RemoteFile
from bendi.store.transfer import Transfer
from bendi.store.transport import Transport


def fetch(file: RemoteFile, target: Path, transport: Transport, on_bytes: Callable[[int, Phase], None]) -> PartFile:
    """Downloads `file` into `<target>.part` (continuing what is there) and verifies it. The caller installs it.

    `on_bytes` gets bytes of this file, in the caller's thread. Raises DownloadError (the part is kept), HashMismatch
    (it is deleted), ModelFileError (it is set aside as `<target>.rejected`), StoreError, NotFoundError.
    """
    identity = Identity(file.url, file.size_bytes, file.sha256, file.git_sha1, file.etag, file.last_modified)
    part = PartFile(target, identity)
    try:
        doubtful = part.resumed
        while part.sha256 is None:
            Transfer(file, part, transport).run(lambda done: on_bytes(done, "download"))
            try:
                part.save(_verified(part, target, lambda done: on_bytes(done, "check")))
            except HashMismatch:
                # Bytes that an earlier run left may be the wrong ones; those of this run alone are the server's fault.
                if not doubtful:
                    part.delete()
                    raise
                doubtful = False
                part.restart(part.identity)
    finally:
        part.close()
    return part


def _verified(part: PartFile, target: Path, on_bytes: Callable[[int], None]) -> str:
    """Checks size, hash and header of a finished part; returns its SHA-256."""
    identity = part.identity
    if not identity.sha256 and identity.git_sha1:
        _compare(target, identity.git_sha1, hash_file(part.path, git=True))
    sha256 = hash_file(part.path, on_bytes)
    _compare(target, identity.sha256 or sha256, sha256)
    try:
        read_gguf(part.path)
    except ModelFileError as error:
        raise _rejected(part, target, error) from error
    return sha256


def _compare(target: Path, expected: str, actual: str) -> None:
    if expected != actual:
        raise HashMismatch(
            _("{file} is not what was promised: its hash is {actual}..., not {expected}...").format(
                file=target.name, actual=actual[:16], expected=expected[:16]
            ),
            hint=_("The wrong bytes were deleted. Try again; if it happens again, use another source or mirror."),
        )


def _rejected(part: PartFile, target: Path, error: ModelFileError) -> ModelFileError:
    aside = target.with_name(f"{target.name}.rejected")
    part.close()
    try:
        part.path.replace(aside)
    except OSError as failure:
        raise store_error(failure, aside) from failure
    remove_part(target)
    return ModelFileError(
        _("{file} arrived as promised, but is no sound model: {why}").format(file=target.name, why=error.message),
        hint=_("It was not installed. What arrived is in {path}; delete it when you have looked at it.").format(
            path=aside
        ),
    )
