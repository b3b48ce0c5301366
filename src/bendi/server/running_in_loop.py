"""One answer of an engine that needs no thread: read from the worker by the event loop itself, one wake-up a token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

from bendi.engines import LoopAnswers
from bendi.messages import Cancellation, Chunk, GenerateRequest
from bendi.server.running import MOST_UNREAD, PAUSE_S, QUIET_S, Answering, as_crashed, merged, stalled

_tasks: set[asyncio.Task[None]] = set()
"""A loop forgets tasks that nobody holds."""


class RunningInLoop(Answering):
    """As `Running`."""

    def __init__(self, answers: LoopAnswers, request: GenerateRequest, stall_s: float = 60.0) -> None:
        self._answers, self._request, self._stall_s = answers, request, stall_s
        self._cancel = Cancellation()
        self._unread: list[Chunk] = []
        self._quiet_until_s = time.monotonic() + QUIET_S
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._told_s = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self._finished = False
        self._error: BaseException | None = None
        self._ended: list[Callable[[], None]] = []
        self._joined = False
        task = asyncio.create_task(self._run(), name="bendi answer")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def batch(self) -> Sequence[Chunk]:
        while True:
            unread, self._unread = self._unread, []
            self._room.set()
            if unread:
                return unread if len(unread) == 1 else list(merged(unread))
            if self._finished:
                if self._error is not None:
                    raise self._error
                return ()
            self._news.clear()
            await self._news.wait()

    def stop(self) -> None:
        self._cancel.cancel()
        self._room.set()

    def when_ended(self, action: Callable[[], None]) -> None:
        if self._joined:
            action()
        else:
            self._ended.append(action)

    async def _run(self) -> None:
        try:
            async with aclosing(self._answers.batches(self._request, self._cancel)) as batches:
                async for batch in batches:
                    self._add(batch)
                    if len(self._unread) >= MOST_UNREAD:
                        await self._wait_for_reader()
        except BaseException as error:
            self._error = self._error or as_crashed(error)
        self._finished = self._joined = True
        self._tell()
        ended, self._ended = self._ended, []
        for action in ended:
            action()

    def _add(self, batch: Sequence[Chunk]) -> None:
        self._unread += batch
        last = batch[-1]
        if last.progress is not None and time.monotonic() < self._quiet_until_s:
            return  # the next chunk tells of it
        if last.finish:
            # What is still written down of the answer is nothing to wait for.
            self.last, self._finished = last, True
        left_s = 0.0 if last.finish else self._told_s + PAUSE_S - time.monotonic()
        if left_s <= 0:
            self._tell()
        elif self._telling is None:
            # Tokens come faster than anybody reads: what passes them on takes longer for each than reading them.
            self._telling = asyncio.get_running_loop().call_later(left_s, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._told_s = time.monotonic()
        self._news.set()

    async def _wait_for_reader(self) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                while len(self._unread) >= MOST_UNREAD and not self._cancel.cancelled:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self._error = stalled(self._stall_s)
            self._cancel.cancel()
