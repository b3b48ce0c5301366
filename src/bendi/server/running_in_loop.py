"""One answer of an engine that needs no thread: the event loop itself reads it from the worker, one wake-up a token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from bendi.engines import Flow, LoopAnswers
from bendi.messages import Cancellation, Chunk, GenerateRequest
from bendi.server.running import MOST_UNREAD, QUIET_S, Answering, as_crashed, merged, stalled


class RunningInLoop(Answering):
    """As `Running`, once it is begun. Also the engine's Taker."""

    def __init__(self, stall_s: float = 60.0) -> None:
        self._stall_s = stall_s
        self._cancel = Cancellation()
        self._unread: list[Chunk] = []
        self._quiet_until_s = time.monotonic() + QUIET_S
        self._waiting: asyncio.Future[None] | None = None
        self._flow: Flow | None = None
        self._stalling: asyncio.TimerHandle | None = None
        self._finished = False
        self._error: BaseException | None = None
        self._ended: list[Callable[[], None]] = []
        self._joined = False

    async def begin(self, answers: LoopAnswers, request: GenerateRequest) -> None:
        """Asks. What is wrong with that, `batch` raises."""
        try:
            flow = await answers.begin(request, self._cancel, self)
        except BaseException as error:
            self.ended(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._flow = None if self._joined else flow

    async def batch(self) -> Sequence[Chunk]:
        while True:
            unread, self._unread = self._unread, []
            self._go_on()
            if unread:
                return unread if len(unread) == 1 else list(merged(unread))
            if self._finished:
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

    def when_ended(self, action: Callable[[], None]) -> None:
        if self._joined:
            action()
        else:
            self._ended.append(action)

    def take(self, chunks: Sequence[Chunk]) -> None:
        self._unread += chunks
        last = chunks[-1]
        if last.progress is not None and time.monotonic() < self._quiet_until_s:
            return  # the next chunk tells of it
        if last.finish:
            # What is still written down of the answer is nothing to wait for.
            self.last, self._finished = last, True
        elif len(self._unread) >= MOST_UNREAD and self._stalling is None and self._flow is not None:
            self._flow.pause()
            self._stalling = asyncio.get_running_loop().call_later(self._stall_s, self._stalled)
        self._tell()

    def ended(self, error: BaseException | None) -> None:
        if error is not None:
            self._error = self._error or as_crashed(error)
        self._finished = self._joined = True
        self._flow = None  # it knows this, and who knows each other is not let go
        self._go_on()
        self._tell()
        ended, self._ended = self._ended, []
        for action in ended:
            action()

    def _tell(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _go_on(self) -> None:
        if self._stalling is None:
            return
        self._stalling.cancel()
        self._stalling = None
        if self._flow is not None:
            self._flow.resume()

    def _stalled(self) -> None:
        self._error = stalled(self._stall_s)
        self._cancel.cancel()
