"""From an engine's answer, made step by step in a thread, to the event loop; for engines that know no other way
(`running_in_loop`: for those that do).

There is a thread for each answer that is being made, and none for those that wait. Chunks reach the event loop in
batches: the first and the last of an answer at once, the others a few milliseconds apart, many answers with one
wake-up.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from bendi.engines import Engine
from bendi.errors import EngineCrashed, OutOfMemory
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, GenerateRequest
from bendi.server.api_errors import ApiError

MOST_UNREAD = 256
"""Chunks of one answer that may lie here unread; then the engine waits for the reader."""
_PAUSE_S = 0.004
"""Between two wake-ups of the event loop."""
QUIET_S = 0.05
"""Progress with a prompt that takes no longer is not worth a wake-up just when the engine needs the processor."""


class _Handover:
    """Tells answers in the event loop that their threads have something for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._ready: list[Running] = []
        self._armed = False
        self._delivered_s = 0.0

    def tell(self, running: Running) -> None:
        """From any thread: soon."""
        with self._lock:
            self._ready.append(running)
            if self._armed:
                return
            self._armed = True
        self.call(self._deliver)

    def call(self, function: Callable[[], None]) -> None:
        """From any thread: at once. The loop may have been closed meanwhile."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _deliver(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            ready, self._ready = self._ready, []
            # Where tokens come slowly there is nothing to collect, and no need to wake up once more for it.
            self._armed = again = bool(ready) and now_s - self._delivered_s < 2 * _PAUSE_S
        self._delivered_s = now_s
        if again:
            self._loop.call_later(_PAUSE_S, self._deliver)
        for running in ready:
            running.arrived()


_handovers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Handover] = weakref.WeakKeyDictionary()


def _handover() -> _Handover:
    loop = asyncio.get_running_loop()
    found = _handovers.get(loop)
    if found is None:
        found = _handovers[loop] = _Handover(loop)
    return found


class Answering(ABC):
    """One answer, whoever makes it. `last`: its last chunk, once it is made."""

    last: Chunk | None = None

    @abstractmethod
    async def batch(self) -> Sequence[Chunk]:
        """The chunks that have arrived since the last call, at least one; none after the last one. Text that arrived
        together is one chunk. Raises what the engine raised; ApiError when nobody read for too long."""

    @abstractmethod
    def stop(self) -> None:
        """Has the engine stop computing. Harmless when it has ended already."""

    @abstractmethod
    def when_ended(self, action: Callable[[], None]) -> None:
        """Calls `action` in the event loop when the engine has nothing left to do; at once if that is so."""


class Running(Answering):
    """One answer. `stall_s`: how long it may lie unread before it is stopped. `last`: its last chunk, once it is
    made."""

    def __init__(self, engine: Engine, request: GenerateRequest, stall_s: float = 60.0) -> None:
        self._engine, self._request, self._stall_s = engine, request, stall_s
        self._cancel = Cancellation()
        self._handover = _handover()
        self._has_room = threading.Condition()
        self._unread: list[Chunk] = []
        self._told = False
        self._first = True
        self._quiet_until_s = time.monotonic() + QUIET_S
        self._finished = False
        self._error: BaseException | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._ended: list[Callable[[], None]] = []
        self._joined = False
        self._thread = threading.Thread(target=self._run, name="bendi answer", daemon=True)
        self._thread.start()

    async def batch(self) -> Sequence[Chunk]:
        while True:
            with self._has_room:
                unread, self._unread = self._unread, []
                self._told = False
                finished = self._finished
                self._has_room.notify()
            if unread:
                return unread if len(unread) == 1 else list(merged(unread))
            if finished:
                if self._error is not None:
                    raise self._error
                return ()
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def stop(self) -> None:
        self._cancel.cancel()
        with self._has_room:
            self._has_room.notify()

    def when_ended(self, action: Callable[[], None]) -> None:
        if self._joined:
            action()
        else:
            self._ended.append(action)

    def arrived(self) -> None:
        """In the event loop: there is something to read."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _run(self) -> None:
        try:
            for chunk in self._engine.generate(self._request, self._cancel):
                self._put(chunk)
        except BaseException as error:
            self._error = self._error or as_crashed(error)
        with self._has_room:
            self._finished = True
        self._handover.call(self._join)

    def _put(self, chunk: Chunk) -> None:
        if chunk.progress is not None and time.monotonic() < self._quiet_until_s:
            with self._has_room:
                self._unread.append(chunk)  # the next chunk tells of it
            return
        with self._has_room:
            self._unread.append(chunk)
            told, self._told = self._told, True
            if chunk.finish:
                # What the engine still writes down of the answer is nothing to wait for.
                self.last, self._finished = chunk, True
        if self._first or chunk.finish:
            self._first = self._first and chunk.progress is not None
            self._handover.call(self.arrived)
        elif not told:
            self._handover.tell(self)
        if len(self._unread) >= MOST_UNREAD:
            self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        until_s = time.monotonic() + self._stall_s
        with self._has_room:
            while len(self._unread) >= MOST_UNREAD and not self._cancel.cancelled:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    self._error = stalled(self._stall_s)
                    break
                self._has_room.wait(left_s)
        if self._error is not None:
            self._cancel.cancel()

    def _join(self) -> None:
        self._thread.join()  # it has nothing left to do
        self._joined = True
        self.arrived()
        ended, self._ended = self._ended, []
        for action in ended:
            action()


def merged(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """The same answer in fewer chunks: neighbours that are nothing but text become one."""
    before: Chunk | None = None
    for chunk in chunks:
        if before is None:
            before = chunk
        elif _only_text(before) and _only_text(chunk):
            before = replace(before, text=before.text + chunk.text, pieces=before.pieces + chunk.pieces)
        elif _only_reasoning(before) and _only_reasoning(chunk):
            before = replace(before, reasoning=before.reasoning + chunk.reasoning, pieces=before.pieces + chunk.pieces)
        else:
            yield before
            before = chunk
    if before is not None:
        yield before


def _only_text(chunk: Chunk) -> bool:
    return bool(chunk.text) and chunk == Chunk(text=chunk.text, pieces=chunk.pieces)


def _only_reasoning(chunk: Chunk) -> bool:
    return bool(chunk.reasoning) and chunk == Chunk(reasoning=chunk.reasoning, pieces=chunk.pieces)


def as_crashed(error: BaseException) -> BaseException:
    """`error`, unless it says that memory was too small: the model had been loaded, so what ended it now is no reason
    to ask for a smaller one."""
    if isinstance(error, OutOfMemory):
        return EngineCrashed(error.message, hint=_("Send the request again: the model is loaded anew."))
    return error


def stalled(seconds: float) -> ApiError:
    return ApiError(
        408,
        _("The answer was not read for {seconds:.0f} seconds, and was stopped.").format(seconds=seconds),
        code="client_too_slow",
    )
