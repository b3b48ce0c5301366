"""Frames, pings, the order of errors and of endings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from bendi.errors import EngineCrashed
from bendi.server import sse
from bendi.server.api_errors import ApiError


async def numbers(count: int, closed: list[str], name: str = "numbers") -> AsyncGenerator[int, None]:
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
    finally:
        closed.append(name)


async def forever(closed: list[str]) -> AsyncGenerator[bytes, None]:
    try:
        yield b"first"
        await asyncio.sleep(1000)
    finally:
        closed.append("forever")


def test_a_frame_is_one_line_of_json_and_survives_half_characters() -> None:
    made = sse.frame({"text": "两行\n\ud800"}, "named").decode()
    head, data, *rest = made.split("\n")
    assert head == "event: named"
    assert json.loads(data.removeprefix("data: "))["text"] == "两行\n?"
    assert rest == ["", ""]


def test_merging_keeps_the_order_of_each_source_and_closes_all() -> None:
    async def collect() -> list[tuple[int, int]]:
        return [item async for item in sse.merged([numbers(5, closed, "a"), numbers(3, closed, "b")])]

    closed: list[str] = []
    got = asyncio.run(collect())
    assert [item for item in got if item[0] == 0] == [(0, n) for n in range(5)]
    assert [item for item in got if item[0] == 1] == [(1, n) for n in range(3)]
    assert sorted(closed) == ["a", "b"]


def test_only_so_many_sources_run_at_once() -> None:
    running, most = 0, 0

    async def one() -> AsyncGenerator[int, None]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        yield 1
        running -= 1

    async def collect() -> int:
        return len([item async for item in sse.merged([one() for _number in range(9)], at_once=2)])

    assert asyncio.run(collect()) == 9
    assert most == 2


def test_the_first_error_ends_all_and_closing_closes_the_sources() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise EngineCrashed("gone")

    async def collect() -> None:
        with pytest.raises(EngineCrashed):
            async for _item in sse.merged([broken(), forever(closed)]):
                pass
        events = sse.merged([forever(closed)])
        assert await anext(events) == (0, b"first")
        await events.aclose()

    closed: list[str] = []
    asyncio.run(collect())
    assert closed == ["forever", "forever"]


def failed(error: ApiError) -> bytes:
    return f"error {error.status}".encode()


async def sent(frames: AsyncGenerator[bytes, None], until: int) -> list[bytes]:
    """The bodies that a client gets before it goes away, after `until` of them."""
    response = sse.EventStream(frames, failed)
    bodies: list[bytes] = []
    gone = asyncio.Event()

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])  # type: ignore[arg-type]
            if len(bodies) == until:
                gone.set()

    async def receive() -> dict[str, object]:
        await gone.wait()
        return {"type": "http.disconnect"}

    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)  # type: ignore[arg-type]
    return bodies


def test_errors_before_the_first_frame_are_raised_and_later_ones_sent() -> None:
    async def at_once() -> AsyncGenerator[bytes, None]:
        raise EngineCrashed("gone")
        yield b""

    async def later() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise EngineCrashed("gone")

    with pytest.raises(EngineCrashed):
        asyncio.run(sent(at_once(), 1))
    assert asyncio.run(sent(later(), 9)) == [b"one", b"error 503"]


def test_pings_while_there_is_nothing_to_say_and_the_source_closed_when_the_client_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "PING_S", 0.02)
    closed: list[str] = []
    assert asyncio.run(sent(forever(closed), 3))[:3] == [b"first", sse.PING, sse.PING]
    assert closed == ["forever"]

    async def slow() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.05)
        yield b"at last"

    bodies = asyncio.run(sent(slow(), 99))
    assert bodies[0] == sse.PING
    assert b"at last" in bodies


def test_frames_that_are_there_together_are_sent_together() -> None:
    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"role "
        yield b"first "
        await asyncio.sleep(0.05)
        yield b"second "
        yield b"done"
        raise ApiError(500, "late")

    async def bodies() -> list[bytes]:
        sent: list[bytes] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                sent.append(message["body"])

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(1000)
            raise AssertionError

        response = sse.EventStream(frames(), lambda error: error.message.encode())
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
        return sent

    assert asyncio.run(bodies()) == [b"role first ", b"second done", b"late"]


@dataclass
class Client:
    """What it has been sent. It goes away when `leave` is set."""

    leave: asyncio.Event
    messages: list[MutableMapping[str, Any]] = field(default_factory=list)

    async def receive(self) -> MutableMapping[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.messages.append(message)


async def silent(closed: list[str]) -> AsyncGenerator[bytes, None]:
    try:
        await asyncio.sleep(1000)
        yield b"never"
    finally:
        closed.append("silent")


def test_who_leaves_before_the_first_frame_is_sent_nothing() -> None:
    async def main() -> None:
        client = Client(asyncio.Event())
        asyncio.get_running_loop().call_later(0.01, client.leave.set)
        await sse.EventStream(silent(closed), failed)({"type": "http"}, client.receive, client.send)
        assert client.messages == []
        task = asyncio.current_task()
        assert task and not task.cancelling()

    closed: list[str] = []
    asyncio.run(main())
    assert closed == ["silent"]


def test_a_task_that_is_cancelled_ends_cancelled() -> None:
    async def main() -> None:
        client = Client(asyncio.Event())
        sending = sse.EventStream(silent(closed), failed)({"type": "http"}, client.receive, client.send)
        task = asyncio.ensure_future(sending)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    closed: list[str] = []
    asyncio.run(main())
    assert closed == ["silent"]


def test_a_defect_is_told_and_the_answer_left_without_an_end() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"one "
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def main() -> Client:
        client = Client(asyncio.Event())
        with pytest.raises(ZeroDivisionError):
            await sse.EventStream(broken(), failed)({"type": "http"}, client.receive, client.send)
        return client

    bodies = [message for message in asyncio.run(main()).messages if message["type"] == "http.response.body"]
    assert [body["body"] for body in bodies] == [b"one ", b"error 500"]
    assert all(body["more_body"] for body in bodies)


def test_sending_is_awaited_before_more_is_made() -> None:
    """A client that reads slowly slows what is made for it."""
    made: list[int] = []

    async def numbered() -> AsyncGenerator[bytes, None]:
        for number in range(100):
            await asyncio.sleep(0)
            made.append(number)
            yield b"%d " % number

    async def main() -> None:
        client, opened = Client(asyncio.Event()), asyncio.Event()

        async def send(message: MutableMapping[str, Any]) -> None:
            await opened.wait()
            await client.send(message)

        task = asyncio.ensure_future(sse.EventStream(numbered(), failed)({"type": "http"}, client.receive, send))
        await asyncio.sleep(0.05)
        assert len(made) < 3
        opened.set()
        await task
        sent = b"".join(message.get("body", b"") for message in client.messages)
        assert sent == b"".join(b"%d " % number for number in range(100))

    asyncio.run(main())
