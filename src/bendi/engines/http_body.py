"""Bodies of HTTP answers as they come: chunks, and blocks with the times when they arrived."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from bendi.messages import Arrivals

_BLOCK_BYTES = 64 * 1024
_MOST_CHUNK_BYTES = 64 * 1024 * 1024
_MOST_LINE_BYTES = 64 * 1024
LAST_CHUNK = b"0\r\n\r\n"


def blocks(
    response: http.client.HTTPResponse, arrivals: Arrivals | None, most_bytes: int | None = None
) -> Iterator[bytes]:
    """What comes, as it comes. With `arrivals` all of it when its end is there: until then only the times are noted.
    Raises OSError, HTTPException and ValueError, the latter also after more than `most_bytes`."""
    try:
        yield from _early(response, most_bytes) if arrivals is None else _late(response, arrivals, most_bytes)
    finally:
        response.close()


def _early(response: http.client.HTTPResponse, most_bytes: int | None) -> Iterator[bytes]:
    seen_bytes = 0
    while block := response.read1(_BLOCK_BYTES):
        seen_bytes += len(block)
        yield block
        _check(seen_bytes, most_bytes)


def _late(response: http.client.HTTPResponse, arrivals: Arrivals, most_bytes: int | None) -> Iterator[bytes]:
    arrivals.late = True
    noted: list[tuple[float, bytes]] = []
    problem: Exception | None = None
    try:
        for block in _as_sent(response, most_bytes):
            noted.append((arrivals.note(), block))
    except (OSError, http.client.HTTPException, ValueError) as error:
        problem = error  # what came before it is told first, as it would be otherwise
    try:
        chunks = Chunks() if response.chunked else None
        for came_s, block in noted:
            if body := chunks.feed(block) if chunks else block:
                arrivals.came_s = came_s
                yield body
        if problem:
            raise problem
    finally:
        problem = None  # it knows this frame, and who knows each other is not let go


def _as_sent(response: http.client.HTTPResponse, most_bytes: int | None) -> Iterator[bytes]:
    """The body as it is on its way: one call of the system for what is there, and nearly nothing else."""
    if not response.chunked:
        yield from _early(response, most_bytes)
        return
    chunks, unread = Chunks(), bytearray()
    seen_bytes = 0
    while block := response.fp.read1(_BLOCK_BYTES):
        yield block
        seen_bytes += len(block)
        _check(seen_bytes, most_bytes)
        unread += block
        if unread.endswith(LAST_CHUNK):  # a text may end so, too
            chunks.feed(bytes(unread))
            unread.clear()
            if chunks.ended:
                return


def _check(seen_bytes: int, most_bytes: int | None) -> None:
    if most_bytes is not None and seen_bytes > most_bytes:
        raise ValueError("the answer has no end")


class Chunks:
    """The body of a message that comes in chunks (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """What is in the chunks that are complete with `data`. Raises ValueError."""
        self._rest += data
        found, at = [], 0
        while not self.ended:
            end = self._rest.find(b"\r\n", at)
            if end < 0:
                break
            size = int(self._rest[at:end].split(b";")[0], 16)
            if not 0 <= size <= _MOST_CHUNK_BYTES:
                raise ValueError(f"a chunk of {size} bytes")
            begin = end + 2
            if len(self._rest) < begin + size + 2:
                break
            found.append(self._rest[begin : begin + size])
            self.ended = size == 0
            at = begin + size + 2
        self._rest = self._rest[at:]
        if len(self._rest) > _MOST_CHUNK_BYTES + _MOST_LINE_BYTES:
            raise ValueError("a chunk without an end")
        return b"".join(found)
