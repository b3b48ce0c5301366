"""Work that blocks, for the event loop: a generator that runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
_WAITING = 64
"""Items that a slow reader may be behind before the work waits for it."""


async def yielded(
    make: Callable[[Callable[[T], None]], Generator[T]], stop: Callable[[], None]
) -> AsyncGenerator[T, None]:
    """What the generator of `make` yields. It is made, run and closed in one thread; what it is given takes items, too,
    while it is busy with what it yields next.

    When nobody reads on (the iterator is closed, or its task cancelled), `stop` is called, which must make the
    generator end soon; it is then waited for, so that nothing of it is left behind.
    """
    loop = asyncio.get_running_loop()
    room = threading.Semaphore(_WAITING)
    ready: asyncio.Queue[tuple[str, T | BaseException | None]] = asyncio.Queue()
    gone = threading.Event()
    ended = asyncio.Event()

    def tell(kind: str, item: T | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to be told
            loop.call_soon_threadsafe(ready.put_nowait, (kind, item))

    def work() -> None:
        try:
            generator = make(lambda item: tell("item", item))
            try:
                for item in generator:
                    if gone.is_set():
                        break
                    room.acquire()
                    tell("item", item)
            finally:
                generator.close()
            tell("end", None)
        except BaseException as error:
            tell("error", error)
        finally:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=work, name="bendi-work", daemon=True).start()
    try:
        while True:
            kind, item = await ready.get()
            room.release()  # once too often for what was told on the side, which does no harm
            if kind == "end":
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
    finally:
        gone.set()
        room.release()
        if not ended.is_set():
            stop()
            await _whatever_comes(ended)


async def _whatever_comes(event: asyncio.Event) -> None:
    """Waits for `event`. A task that is cancelled meanwhile, also more than once, must not leave the work running
    unseen: it is cancelled when the event has come."""
    cancelled: asyncio.CancelledError | None = None
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
