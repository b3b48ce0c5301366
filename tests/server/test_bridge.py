"""Generators that run in threads, read by the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import aclosing

import pytest

from bendi.server.bridge import yielded


def test_items_come_in_order_with_what_was_told_on_the_side() -> None:
    def work(tell: Callable[[int], None]) -> Generator[int]:
        for number in range(0, 300, 2):
            yield number
            tell(number + 1)

    async def read() -> list[int]:
        return [item async for item in yielded(work, lambda: None)]

    assert asyncio.run(read()) == list(range(300))


def test_errors_are_raised_where_it_is_read() -> None:
    def work(_tell: Callable[[int], None]) -> Generator[int]:
        yield 1
        raise ValueError("so it is")

    async def read() -> None:
        async for _item in yielded(work, lambda: None):
            pass

    with pytest.raises(ValueError, match="so it is"):
        asyncio.run(read())


def test_who_stops_reading_stops_the_work_and_waits_for_its_end() -> None:
    stop, closed = threading.Event(), threading.Event()

    def work(_tell: Callable[[int], None]) -> Generator[int]:
        try:
            number = 0
            while not stop.is_set():
                yield (number := number + 1)
        finally:
            closed.set()

    async def read() -> None:
        async with aclosing(yielded(work, stop.set)) as items:
            async for item in items:
                if item == 5:
                    break
        assert closed.is_set()

    asyncio.run(read())


def test_the_work_waits_for_a_slow_reader() -> None:
    made = 0

    def work(_tell: Callable[[int], None]) -> Generator[int]:
        nonlocal made
        while made < 1000:
            made += 1
            yield made

    async def read() -> None:
        async with aclosing(yielded(work, lambda: None)) as items:
            await anext(items)
            await asyncio.sleep(0.1)
            assert made < 100

    asyncio.run(read())


def test_a_task_that_is_cancelled_again_and_again_still_waits_for_the_end_of_the_work() -> None:
    stop, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def work(_tell: Callable[[int], None]) -> Generator[int]:
        try:
            while not stop.is_set():
                yield 1
        finally:
            may_end.wait(10)
            closed.set()

    async def read(reading: asyncio.Event) -> None:
        try:
            async with aclosing(yielded(work, stop.set)) as items:
                async for _item in items:
                    reading.set()
        finally:
            assert closed.is_set()

    async def main() -> None:
        reading = asyncio.Event()
        task = asyncio.create_task(read(reading))
        await reading.wait()
        for _time in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
