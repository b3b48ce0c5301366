"""HTTP to a worker from within an event loop: a streamed answer needs no thread, and the loop wakes once for a token.

A thread that reads, and hands what it has read to the loop, is one more wake-up for each token; on a machine whose
cores all compute, each costs the engine time. So does all that is done with a token on its way to the client, and what
the client does with it: where they come faster than anybody reads, several are taken apart and passed on together.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bendi.engines.http_body import LAST_CHUNK, Chunks
from bendi.engines.protocol import Flow
from bendi.engines.transport import Address, EventReader, WorkerGone, WorkerRefused, refusal
from bendi.messages import Cancellation

_BLOCK_BYTES = 256 * 1024
_MOST_HEAD_BYTES = 64 * 1024
_MOST_REFUSAL_BYTES = 1024 * 1024
_APART_S = 0.04
"""Events that may wait are given no more often than this: text that moves 25 times a second is seen to flow, as films
are."""
_LONGEST_S = 0.05
"""What may wait has waited for this long when nothing follows it."""
_MOST_HELD_BYTES = 64 * 1024
_MOST_LEFT_EVENTS = 40
"""That came together last, so that the next ones can be left in the socket: it has room for 168, and a worker that
cannot go on sending computes ahead of what anybody has seen."""
_ALL = select.EPOLLIN | select.EPOLLRDHUP if sys.platform == "linux" else 0
_FULL_S = 0.01
"""Until the next attempt where too many wait to be let in by a worker."""


async def ask(
    address: Address,
    path: str,
    body: object,
    cancel: Cancellation,
    take: Callable[[list[dict[str, Any]]], bool | None],
    ended: Callable[[Exception | None], None],
) -> Flow:
    """Sends a streaming request. `take` then gets its events, those together that arrived together, and at last `ended`
    is called, with WorkerRefused (also for an error in the middle of a stream) or WorkerGone where something was wrong,
    or with what `take` raised. `take` says whether the events after these may wait a few milliseconds for each other;
    the end of an answer never does.

    `cancel` closes the connection, which makes the worker stop computing; nothing more is taken then.
    """
    loop = asyncio.get_running_loop()
    arriving = _Arriving(_request(address, path, body), cancel, take, ended)
    try:
        if address.socket_path:
            connection = await arriving.sent_to(address.socket_path)
            arriving.connection_made(_Line(loop, connection, arriving))
        else:
            await loop.create_connection(lambda: arriving, "127.0.0.1", address.port)
    except OSError as error:
        arriving.end(WorkerGone(str(error)))

    def end() -> None:
        if not arriving.has_ended:
            with suppress(RuntimeError):  # the loop is closed, and its connections are with it
                loop.call_soon_threadsafe(arriving.end)

    cancel.on_cancel(end)
    return arriving


def _request(address: Address, path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Authorization: Bearer {address.key}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class _Arriving(asyncio.Protocol):
    """The answer to one request, taken apart as it arrives."""

    def __init__(
        self,
        request: bytes,
        cancel: Cancellation,
        take: Callable[[list[dict[str, Any]]], bool | None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._request, self._cancel = request, cancel
        self._give, self._tell_end = take, ended
        self._transport: asyncio.Transport | _Line | None = None
        self._head = b""
        self._body: _Body | None = None
        self._events = EventReader()
        self._held = b""
        self._wait_until_s = 0.0
        self._waiting: asyncio.TimerHandle | None = None
        self.has_ended = False

    async def sent_to(self, socket_path: str) -> socket.socket:
        """A connection on which the request is on its way, before the loop knows of it: the worker begins meanwhile.
        Raises OSError."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            while not _connect(connection, socket_path):
                if self._cancel.cancelled:
                    raise InterruptedError
                await asyncio.sleep(_FULL_S)
            with suppress(BlockingIOError):
                self._request = self._request[connection.send(self._request) :]
        except BaseException:
            connection.close()
            raise
        return connection

    def pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def end(self, error: Exception | None = None) -> None:
        """Closes the connection, and says so once."""
        if self.has_ended:
            return
        self.has_ended = True
        self._wait_no_more()
        transport, self._transport = self._transport, None  # it knows this, and who knows each other is not let go
        if transport is not None:
            transport.abort()
        self._tell_end(None if self._cancel.cancelled else error)

    def connection_made(self, transport: asyncio.BaseTransport | _Line) -> None:
        assert isinstance(transport, asyncio.Transport | _Line)
        self._transport = transport
        if self._request:
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        loop = asyncio.get_running_loop()
        if loop.time() >= self._wait_until_s or data.endswith(LAST_CHUNK) or len(self._held) > _MOST_HELD_BYTES:
            self._take_apart()
        elif self._waiting is None:
            self._waiting = loop.call_later(_LONGEST_S, self._take_apart)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _take_apart(self) -> None:
        """What has arrived."""
        self._wait_no_more()
        data, self._held = self._held, b""
        if self.has_ended or self._cancel.cancelled:
            return
        found: list[dict[str, Any]] = []
        problem: Exception | None = None
        try:
            self._read(data, found)
        except WorkerRefused as refused:
            problem = refused
        except (ValueError, EOFError) as broken:
            problem = WorkerGone(str(broken))
        try:
            if found and self._give(found):
                self._rest(len(found))
        except Exception as defect:
            problem = defect
        if problem is not None or self._events.ended:
            self.end(problem)

    def _rest(self, last_events: int) -> None:
        """What comes now waits for what follows: in the socket where that can be, or else here."""
        few = last_events <= _MOST_LEFT_EVENTS
        if not (few and isinstance(self._transport, _Line) and self._transport.rest()):
            self._wait_until_s = asyncio.get_running_loop().time() + _APART_S

    def connection_lost(self, exc: Exception | None) -> None:
        if self._held:
            self._take_apart()
        body = self._body
        if body is not None and body.status >= 400 and body.until_close:
            self.end(refusal(body.status, body.refusal))
        else:
            self.end(WorkerGone(str(exc or "the connection broke")))

    def _read(self, data: bytes, found: list[dict[str, Any]]) -> None:
        if self._body is None:
            self._head += data
            head, complete, data = self._head.partition(b"\r\n\r\n")
            if not complete:
                if len(self._head) > _MOST_HEAD_BYTES:
                    raise ValueError("a head without an end")
                return
            self._body = _Body(head)
        body = self._body
        data = body.feed(data)
        if body.status >= 400:
            body.refusal += data
            if body.ended or len(body.refusal) > _MOST_REFUSAL_BYTES:
                raise refusal(body.status, body.refusal)
            return
        for event in self._events.feed(data):
            found.append(event)
        if body.ended and not self._events.ended:
            raise EOFError("a stream without its end")


class _Line:
    """A connection that the loop reads at once. A transport of asyncio's own does more than is needed here, and takes
    three turns of the loop to begin, while the worker is at its prompt already.

    It can `rest`: then the loop is not woken by what comes, only by the end. To be told of that alone takes an epoll of
    its own (a selector of Python's wants to be told of what comes, too), and so Linux.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket, arriving: _Arriving) -> None:
        self._loop, self._connection, self._arriving = loop, connection, arriving
        # Of a socket itself the loop would make a text, with its addresses.
        self._number = self._watched = connection.fileno()
        self._unsent = b""
        self._closed = False
        self._resting: asyncio.TimerHandle | None = None
        self._paused, self._hears_all = False, True
        if sys.platform == "linux":
            self._watch = select.epoll(1)
            self._watch.register(self._number, _ALL)
            self._watched = self._watch.fileno()
        loop.add_reader(self._watched, self._read)

    def write(self, data: bytes) -> None:
        """What the worker has not taken yet."""
        self._unsent = data
        self._loop.add_writer(self._number, self._write)

    def rest(self) -> bool:
        """For _APART_S, or until the end. False where that cannot be."""
        if sys.platform != "linux":
            return False
        if not (self._paused or self._closed):
            self._rest_no_more()
            self._hear(all_of_it=False)
            self._resting = self._loop.call_later(_APART_S, self._read)
        return True

    def pause_reading(self) -> None:
        if not (self._paused or self._closed):
            self._paused = True
            self._rest_no_more()
            self._loop.remove_reader(self._watched)

    def resume_reading(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            self._hear(all_of_it=True)
            self._loop.add_reader(self._watched, self._read)

    def abort(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._rest_no_more()
        self._loop.remove_reader(self._watched)
        if self._unsent:
            self._loop.remove_writer(self._number)
        if sys.platform == "linux":
            self._watch.close()
        self._connection.close()

    def _rest_no_more(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _hear(self, *, all_of_it: bool) -> None:
        """Of the end alone, or of all that comes."""
        if sys.platform == "linux" and self._hears_all != all_of_it:
            self._hears_all = all_of_it
            self._watch.modify(self._number, _ALL if all_of_it else select.EPOLLRDHUP)

    def _read(self) -> None:
        self._rest_no_more()
        try:
            data = self._connection.recv(_BLOCK_BYTES)
        except (BlockingIOError, InterruptedError):
            self._hear(all_of_it=True)  # who has rested in vain waits for what comes next
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:
            self._lost(None)
            return
        self._arriving.data_received(data)
        if self._resting is None and not (self._paused or self._closed):
            self._hear(all_of_it=True)

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            # What the worker says of it can still be read, and its end, too.
            self._unsent = b""
        if not self._unsent:
            self._loop.remove_writer(self._number)

    def _lost(self, error: OSError | None) -> None:
        self.abort()
        self._arriving.connection_lost(error)


def _connect(connection: socket.socket, socket_path: str) -> bool:
    """False where too many wait to be let in."""
    try:
        connection.connect(socket_path)
    except BlockingIOError:
        return False
    return True


class _Body:
    """The body of an answer with this head. `status`: of HTTP. `until_close`: it ends with the connection. `refusal`:
    what has come of it when the answer is an error. Raises ValueError for what is not HTTP."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        try:
            self.status = int(first.split(" ")[1])
        except IndexError as error:
            raise ValueError("not HTTP") from error
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._chunks = Chunks() if chunked else None
        length = headers.get("content-length")
        self._left_bytes = None if chunked or length is None else int(length)
        self.until_close = not chunked and length is None
        self.refusal = b""

    @property
    def ended(self) -> bool:
        return self._chunks.ended if self._chunks else self._left_bytes is not None and self._left_bytes <= 0

    def feed(self, data: bytes) -> bytes:
        """What there is of the body in `data`, which has arrived."""
        if self._chunks:
            return self._chunks.feed(data)
        if self._left_bytes is not None:
            self._left_bytes -= len(data)
        return data
