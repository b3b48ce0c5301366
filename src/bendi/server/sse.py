"""Server-sent events: frames, pings while there is nothing to say, errors before and after the first frame.

A streamed answer begins with its first frame, or after PING_S seconds without one. An error before that gets a status
of its own; later ones become a frame, since the status 200 has been sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

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
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def frame(data: Mapping[str, Any], event: str = "") -> bytes:
    """One event. Half characters, which UTF-8 cannot express, become question marks."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {_encode(data)}\n\n".encode("utf-8", "replace")


async def merged(
    sources: Sequence[AsyncGenerator[T, None]], *, at_once: int = 8
) -> AsyncGenerator[tuple[int, T], None]:
    """What the sources yield, as it comes, with the index of its source.

    `at_once`: how many sources run at the same time. The first error ends all. Each source runs in one task from
    beginning to end. Closing this closes the sources.
    """
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
            entry = await queue.get()
            if isinstance(entry, Exception):
                raise entry
            if entry is None:
                running -= 1
            else:
                yield entry
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # An error that nobody has read holds the frames of its source, and these would hold it here.
        while not queue.empty():
            queue.get_nowait()


class EventStream(StreamingResponse):
    """The response that sends `frames`, and `ping` where none comes for PING_S. When the client goes away, `frames` is
    closed.

    Sending it raises what `frames` raises before its first frame, if that happens within PING_S. `failed` makes the
    frame of a later error, which is then the last one. Streams of other types than events take no pings: `ping` is then
    empty.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        failed: Callable[[ApiError], bytes],
        ping: bytes = PING,
        media_type: str = "text/event-stream",
    ) -> None:
        super().__init__(frames, media_type=media_type, headers=_HEADERS)
        self.frames, self.failed, self.ping = frames, failed, ping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Delivery(self, send).run(receive)


class _Delivery:
    """One stream on its way. A token costs one wake-up of one task: where all cores compute, each more costs the engine
    time."""

    def __init__(self, stream: EventStream, send: Send) -> None:
        self._stream, self._send_message = stream, send
        self._collected: list[bytes] = []
        self._begun = self._gone = False
        self._sending = asyncio.Lock()
        self._sent_s = asyncio.get_running_loop().time()

    async def run(self, receive: Receive) -> None:
        """Returns when all is sent, or the client has gone away."""
        main = asyncio.current_task()
        assert main
        cancelled_before = main.cancelling()
        beside = asyncio.create_task(self._beside(receive, main))
        try:
            async with aclosing(self._stream.frames):
                await self._deliver()
        except asyncio.CancelledError:
            if not self._gone or main.uncancel() > cancelled_before:
                raise
        finally:
            beside.cancel()

    async def _deliver(self) -> None:
        try:
            while True:
                # Frames that are there together are sent together: each sending costs more than making its frame.
                self._collected.append(await _Stepwise(anext(self._stream.frames), self._flush))
        except StopAsyncIteration:
            pass
        except ClientDisconnect as gone:
            let_go(gone)
            return
        except Exception as error:
            await self._flush()
            if not self._begun:
                raise
            known = isinstance(error, ApiError | BendiError)
            self._collected.append(self._stream.failed(_told(error)))
            if not known:
                await self._flush()
                raise
            let_go(error)
        await self._send(more=False)

    async def _beside(self, receive: Receive, main: asyncio.Task[Any]) -> None:
        """Pings while nothing comes, and stops everything when the client goes away."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                async with asyncio.timeout_at(self._sent_s + PING_S):
                    while (await receive())["type"] != "http.disconnect":
                        pass
                break
            except TimeoutError:
                if clock() - self._sent_s >= PING_S:
                    await self._say_ping()
        self._gone = True
        main.cancel()

    async def _say_ping(self) -> None:
        self._sent_s = asyncio.get_running_loop().time()
        # A client that does not read what it has been sent needs no more of it.
        if not self._sending.locked():
            self._collected.append(self._stream.ping)
            await self._send(more=True)

    async def _flush(self) -> None:
        if self._collected:
            await self._send(more=True)

    async def _send(self, *, more: bool) -> None:
        async with self._sending:
            data = b"".join(self._collected)
            self._collected.clear()
            if not self._begun:
                self._begun = True
                await self._send_message(
                    {"type": "http.response.start", "status": 200, "headers": self._stream.raw_headers}
                )
            await self._send_message({"type": "http.response.body", "body": data, "more_body": more})
            self._sent_s = asyncio.get_running_loop().time()


class _Stepwise(Generic[T]):
    """Awaits `step`; where that has to wait, `before_waiting` is done first."""

    def __init__(self, step: Awaitable[T], before_waiting: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._step, self._before_waiting = step, before_waiting

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._step.__await__()
        try:
            waits_for = next(inner)
            try:
                yield from self._before_waiting().__await__()
            except BaseException as error:
                waits_for = inner.throw(error)
            # As `yield from`, but for its first value.
            while True:
                try:
                    woken_with = yield waits_for
                except BaseException as error:
                    waits_for = inner.throw(error)
                else:
                    waits_for = inner.send(woken_with)
        except StopIteration as ended:
            found: T = ended.value
            return found


def _told(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BendiError):
        return as_api_error(error)
    return ApiError(500, _("Something went wrong in bendi; its log has the details."), code="internal")
