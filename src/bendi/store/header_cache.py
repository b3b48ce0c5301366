"""Headers that were read from afar, kept so that a second look costs nothing.

One file per model file, `headers/<key>.head` in the cache folder: its line says the size of the model file and the
offset and length of each block, and the blocks follow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bendi.store.blocks import Blocks, Spool
from bendi.store.cache_folder import Body, CacheFolder, CacheLimits
from bendi.store.http_source import MAX_RECEIVED_BYTES
from bendi.store.names import is_sha256
from bendi.store.remote import RemoteFile
from bendi.units import MIB

MAX_CACHE_BYTES = 256 * MIB
_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """What is kept of a file: its size and some of its blocks."""

    size_bytes: int
    blocks: Blocks


def file_key(file: RemoteFile) -> str | None:
    """What names the bytes of `file` for ever: its hash, or its address with a validator. None: nothing does."""
    if file.sha256 is not None and is_sha256(file.sha256):
        return file.sha256
    identity = file.git_sha1 or file.etag or file.last_modified
    return None if identity is None else address_key(json.dumps([file.url, file.size_bytes, identity]))


def address_key(address: str) -> str:
    """A key for what lies at `address`, which must never mean anything else."""
    return f"url-{hashlib.sha256(address.encode()).hexdigest()}"


class HeaderCache:
    """The headers below `folder`, at most `limit_bytes` of them. The key None stands for what cannot be kept."""

    def __init__(self, folder: Path, limit_bytes: int = MAX_CACHE_BYTES) -> None:
        self._files = CacheFolder(folder, ".head", _VERSION, CacheLimits(limit_bytes, MAX_RECEIVED_BYTES))

    def load(self, key: str | None, spool: Spool) -> Kept | None:
        """What is kept under `key`, brought into `spool`; None when there is nothing, or it is damaged."""
        return None if key is None else self._files.load(key, lambda head, body: _unpacked(head, body, spool))

    def save(self, key: str | None, kept: Kept) -> None:
        """Keeps blocks of a file."""
        if key is not None:
            head = {"size_bytes": kept.size_bytes, "blocks": kept.blocks.spans()}
            self._files.save(key, head, kept.blocks.pieces)

    def forget(self, key: str | None) -> None:
        """Deletes what is kept under `key`."""
        if key is not None:
            self._files.forget(key)


def _unpacked(head: Mapping[str, object], body: Body, spool: Spool) -> Kept:
    """The contents of a file of the cache. Raises ValueError, KeyError or TypeError when it is damaged."""
    size_bytes, spans = head["size_bytes"], head["blocks"]
    if not isinstance(size_bytes, int) or not isinstance(spans, list):
        raise ValueError(head)
    blocks = Blocks(spool)
    end = 0
    for start, length in spans:
        if not end <= start or length <= 0 or start + length > size_bytes:
            raise ValueError(start)
        at = start
        for piece in body.pieces(length):
            blocks.add(at, piece)
            at += len(piece)
        end = at
    return Kept(size_bytes, blocks)
