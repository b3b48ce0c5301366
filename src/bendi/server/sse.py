"""Server-sent events: frames, pings while there is nothing to say, errors before and after the first frame.

A streamed answer begins with its first frame, or after PING_S seconds without one. An error before that gets a status
of its own; later ones become a frame, since the status 200 has been sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from bendi.errors import BendiError
from bendi.i18n import _
from bendi.server.api_errors import ApiError, as_api_error, let_go

T = TypeVar("T")
PING_S = 15.0
"""Proxies and clients give up a connection on which nothing comes; most wait for 30 s or longer."""
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
_HEADERS = {"x-accel-buffering": "no"}
_QUEUED = 32


def frame(data: Mapping[str, Any], event: str = "") -> bytes:
    """One event. Half characters, which UTF-8 cannot express, become question marks."""
    head = f"event: {event}\n" if event else ""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


async def event_stream(
    frames: AsyncGenerator[bytes, None],
    failed: Callable[[ApiError], bytes],
    ping: bytes = PING,
    media_type: str = "text/event-stream",
) -> StreamingResponse:
    """The response that sends `frames`, and `ping` where none comes for PING_S. When the client goes away, `frames` is
    closed.

    Raises what `frames` raises before its first frame, if that happens within PING_S. `failed` makes the frame of a
    later error, which is then the last one. Streams of other types than events take no pings: `ping` is then empty.
    """
    batches = _gathered([frames], PING_S, 1)
    nothing: list[tuple[int, bytes]] = []
    first = await anext(batches, nothing)
    return _EventStream(_body(first, batches, failed, ping), media_type)


async def merged(
    sources: Sequence[AsyncGenerator[T, None]], *, at_once: int = 8
) -> AsyncGenerator[tuple[int, T], None]:
    """What the sources yield, as it comes, with the index of its source.

    `at_once`: how many sources run at the same time. The first error ends all. Each source runs in one task from
    beginning to end. Closing this closes the sources.
    """
    async with aclosing(_gathered(sources, None, at_once)) as batches:
        async for batch in batches:
            for entry in batch:
                yield entry


async def _gathered(
    sources: Sequence[AsyncGenerator[T, None]], idle_s: float | None, at_once: int
) -> AsyncGenerator[list[tuple[int, T]], None]:
    """As `merged`, what has come meanwhile together; empty whenever nothing came for `idle_s`."""
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(_QUEUED)
    gate = asyncio.Semaphore(at_once)

    async def pump(index: int, source: AsyncGenerator[T, None]) -> None:
        try:
            async with gate, aclosing(source):
                async for item in source:
                    await queue.put((index, item))
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(pump(index, source)) for index, source in enumerate(sources)]
    running = len(tasks)
    try:
        while running:
            batch: list[tuple[int, T]] = []
            try:
                async with asyncio.timeout(idle_s if queue.empty() else None):
                    entry = await queue.get()
            except TimeoutError:
                yield batch
                continue
            while True:
                if isinstance(entry, Exception):
                    if batch:
                        yield batch
                    raise entry
                if entry is None:
                    running -= 1
                else:
                    batch.append(entry)
                if queue.empty():
                    break
                entry = queue.get_nowait()
            if batch:
                yield batch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # An error that nobody has read holds the frames of its source, and these would hold it here.
        while not queue.empty():
            queue.get_nowait()


class _EventStream(StreamingResponse):
    """Closes its source however the sending ended: Starlette leaves that to the garbage collector."""

    def __init__(self, body: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(body, media_type=media_type, headers=_HEADERS)
        self._source = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._source):
            await super().__call__(scope, receive, send)


async def _body(
    first: list[tuple[int, bytes]],
    batches: AsyncGenerator[list[tuple[int, bytes]], None],
    failed: Callable[[ApiError], bytes],
    ping: bytes,
) -> AsyncGenerator[bytes, None]:
    """Frames that are there together are sent together: each sending costs more than making its frame."""
    async with aclosing(batches):
        try:
            yield b"".join(frame for _source, frame in first) or ping
            async for batch in batches:
                yield b"".join(frame for _source, frame in batch) or ping
        except ClientDisconnect as gone:
            let_go(gone)
            return
        except (ApiError, BendiError) as error:
            let_go(error)
            yield failed(error if isinstance(error, ApiError) else as_api_error(error))
        except Exception:
            yield failed(ApiError(500, _("Something went wrong in bendi; its log has the details."), code="internal"))
            raise
