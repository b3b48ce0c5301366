"""HTTP to a worker from within an event loop: a streamed answer needs no thread, and the loop wakes once for a token.

A thread that reads, and hands what it has read to the loop, is one more wake-up for each token; on a machine whose
cores all compute, each costs the engine time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

from bendi.engines.transport import Address, EventReader, WorkerGone, WorkerRefused, refusal
from bendi.messages import Cancellation

_BLOCK_BYTES = 64 * 1024
_MOST_CHUNK_BYTES = 64 * 1024 * 1024
_MOST_REFUSAL_BYTES = 1024 * 1024


async def stream(
    address: Address, path: str, body: object, cancel: Cancellation
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """The events of a streaming request, those together that arrived together.

    Closing the iterator, or `cancel`, closes the connection, which makes the worker stop computing; after a
    cancellation the iterator simply ends. Raises WorkerRefused (also for an error in the middle of a stream) or
    WorkerGone, after the events before it.
    """
    loop = asyncio.get_running_loop()
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await _connected(address)
        transport = writer.transport

        def end() -> None:
            with suppress(RuntimeError):  # the loop is closed, and its connections are with it
                loop.call_soon_threadsafe(transport.abort)

        cancel.on_cancel(end)
        writer.write(_request(address, path, body))
        response = await _Response.read(reader)
        if response.status >= 400:
            raise refusal(response.status, await response.whole())
        events = EventReader()
        async for block in response.blocks():
            found: list[dict[str, Any]] = []
            try:
                found.extend(events.feed(block))
            except WorkerRefused:
                if found and not cancel.cancelled:
                    yield found
                raise
            # What has arrived already is not wanted any more.
            if cancel.cancelled:
                return
            if found:
                yield found
            if events.ended:
                return
        raise EOFError("a stream without its end")
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        if not cancel.cancelled:
            raise WorkerGone(str(error)) from error
    finally:
        if writer is not None:
            writer.transport.abort()


async def _connected(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.socket_path:
        return await asyncio.open_unix_connection(address.socket_path)
    return await asyncio.open_connection("127.0.0.1", address.port)


def _request(address: Address, path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Authorization: Bearer {address.key}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class _Response:
    """The answer to one request. `status`: of HTTP."""

    def __init__(self, reader: asyncio.StreamReader, head: bytes) -> None:
        self._reader = reader
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._left_bytes = None if self._chunked or length is None else int(length)

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> _Response:
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            return cls(reader, head)
        except IndexError as error:
            raise ValueError("not HTTP") from error

    async def blocks(self) -> AsyncIterator[bytes]:
        """Its body, as it arrives. Raises EOFError where it ends too early."""
        chunks = _Chunks()
        while self._left_bytes is None or self._left_bytes > 0:
            data = await self._reader.read(_BLOCK_BYTES)
            if not data:
                if self._chunked or self._left_bytes is not None:
                    raise EOFError("the connection broke")
                return
            if self._chunked:
                data = chunks.feed(data)
            elif self._left_bytes is not None:
                self._left_bytes -= len(data)
            if data:
                yield data
            if chunks.ended:
                return

    async def whole(self) -> bytes:
        """Its body, or as much of it as an error may have to say."""
        found = b""
        async for block in self.blocks():
            found += block
            if len(found) > _MOST_REFUSAL_BYTES:
                break
        return found


class _Chunks:
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
        if len(self._rest) > _MOST_CHUNK_BYTES + _BLOCK_BYTES:
            raise ValueError("a chunk without an end")
        return b"".join(found)
