"""Streams from a worker, read by a thread or by an event loop: any split gives the same text, a broken stream is never
an answer."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendi.engines import loop_transport, transport
from bendi.engines.protocol import Flow
from bendi.messages import Arrivals, Cancellation

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Stream = Callable[[transport.Address, Cancellation], Iterator[dict[str, Any]]]


class Way:
    """How workers are reached. On Windows there are ports only."""

    is_port = True


@pytest.fixture(scope="module", autouse=True, params=["port", "socket"])
def _way(request: pytest.FixtureRequest) -> None:
    if request.param == "socket" and sys.platform == "win32":
        pytest.skip("ports only")
    Way.is_port = request.param == "port"


def by_thread(address: transport.Address, cancel: Cancellation) -> Iterator[dict[str, Any]]:
    return transport.stream(address, "/completion", {}, cancel)


def by_late_thread(address: transport.Address, cancel: Cancellation) -> Iterator[dict[str, Any]]:
    return transport.stream(address, "/completion", {}, cancel, Arrivals())


def by_loop(address: transport.Address, cancel: Cancellation, *, may_wait: bool = False) -> Iterator[dict[str, Any]]:
    arrived: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()
    done = Cancellation()
    cancel.on_cancel(done.cancel)

    def take(events: list[dict[str, Any]]) -> bool:
        for event in events:
            arrived.put_nowait(event)
        return may_wait

    with asyncio.Runner() as runner:
        runner.run(loop_transport.ask(address, "/completion", {}, done, take, arrived.put_nowait))
        try:
            while (event := runner.run(arrived.get())) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            done.cancel()
            runner.run(asyncio.sleep(0.01))


def by_patient_loop(address: transport.Address, cancel: Cancellation) -> Iterator[dict[str, Any]]:
    return by_loop(address, cancel, may_wait=True)


both = pytest.mark.parametrize("stream", [by_thread, by_late_thread, by_loop, by_patient_loop])
as_it_comes = pytest.mark.parametrize("stream", [by_thread, by_loop, by_patient_loop])


@contextmanager
def one_answer(pieces: list[bytes], *, hold_open: bool = False) -> Iterator[transport.Address]:
    """A server on loopback that answers one request with `pieces`, each its own packet."""
    release = threading.Event()
    with listening() as (listener, address):

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if address.port:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                request_body(connection)
                with suppress(ConnectionError):  # who has read the end of an answer may go before all is sent
                    for piece in pieces:
                        connection.sendall(piece)
                if hold_open:
                    release.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield address
        finally:
            release.set()
            thread.join()


def request_body(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as received:
        length = 0
        while line := received.readline().strip():
            name, _, value = line.partition(b": ")
            length = int(value) if name == b"Content-Length" else length
        return received.read(length)


@contextmanager
def listening() -> Iterator[tuple[socket.socket, transport.Address]]:
    if Way.is_port:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener, transport.Address(key="k", port=listener.getsockname()[1])
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = transport.Address(key="k", socket_path=f"{folder}/w")
        listener.bind(address.socket_path)
        listener.listen()
        yield listener, address


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"content": text}, ensure_ascii=False).encode() + b"\n\n"


def texts(stream: Stream, address: transport.Address) -> list[str]:
    return [piece["content"] for piece in stream(address, Cancellation())]


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@both
@pytest.mark.parametrize("chunked", [False, True])
@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.text(max_size=8), min_size=1, max_size=6), data=st.data())
def test_any_split_gives_the_same_text(stream: Stream, chunked: bool, parts: list[str], data: st.DataObject) -> None:
    events = [b": a comment\n\n", *map(event, parts), b"data: [DONE]\n\n"]
    whole = CHUNKED + b"".join(map(chunk, [*events, b""])) if chunked else HEAD + b"".join(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
    with one_answer(pieces) as address:
        assert texts(stream, address) == parts


@both
@pytest.mark.parametrize("chunked", [False, True])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_stream_that_ends_early_is_broken(stream: Stream, chunked: bool, data: st.DataObject) -> None:
    said, end = [event("你好"), event("world")], b"data: [DONE]\n\n"
    whole = CHUNKED + b"".join(map(chunk, said)) if chunked else HEAD + b"".join(said) + end
    cut = data.draw(st.integers(0, len(whole) - (0 if chunked else len(b"[DONE]\n\n") + 1)))
    with one_answer([whole[:cut]]) as address, pytest.raises(transport.WorkerGone):
        texts(stream, address)


@both
@pytest.mark.parametrize(
    "answer",
    [
        b"nothing\r\n\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-5\r\n12345\r\n",
        HEAD + b"data: {\n\n",
        HEAD + b"data: \xff\n\n",
    ],
)
def test_what_is_no_answer_of_a_worker(stream: Stream, answer: bytes) -> None:
    with one_answer([answer]) as address, pytest.raises(transport.WorkerGone):
        texts(stream, address)


@as_it_comes
def test_native_stream_ends_with_its_last_event(stream: Stream) -> None:
    last = b'data: {"content": "", "stop": true}\n\n'
    with one_answer([HEAD, event("a"), last], hold_open=True) as address:
        assert texts(stream, address) == ["a", ""]


@both
@pytest.mark.parametrize("field", [b"data", b"error"])
def test_error_in_the_middle(stream: Stream, field: bytes) -> None:
    error = b'{"error": {"code": 500, "message": "compute failed"}}'
    with one_answer([HEAD, event("a"), field + b": " + error + b"\n\n"]) as address:
        events = stream(address, Cancellation())
        assert next(events)["content"] == "a"
        with pytest.raises(transport.WorkerRefused, match="compute failed"):
            next(events)


@both
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"Content-Length: 4\r\n\r\nbusy", "busy"),
        (b'Content-Length: 28\r\n\r\n{"error":{"message":"full"}}', "full"),
        (b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b'{"error":{"message":"full"}}') + chunk(b""), "full"),
    ],
)
def test_refusals(stream: Stream, answer: bytes, said: str) -> None:
    with (
        one_answer([b"HTTP/1.1 503 Busy\r\n" + answer]) as address,
        pytest.raises(transport.WorkerRefused, match=said) as caught,
    ):
        texts(stream, address)
    assert caught.value.status == 503


def test_a_refused_call() -> None:
    with (
        one_answer([b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"]) as address,
        pytest.raises(transport.WorkerRefused, match="busy"),
    ):
        transport.call(address, "/props")


def test_answer_that_is_not_json() -> None:
    with (
        one_answer([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy"]) as address,
        pytest.raises(transport.WorkerGone),
    ):
        transport.call(address, "/props")


@both
@pytest.mark.parametrize("begun", [False, True])
def test_cancel_while_nothing_arrives(stream: Stream, begun: bool) -> None:
    """The prompt is still being processed: no byte of an answer has come, or only its beginning."""
    cancel = Cancellation()
    with one_answer([HEAD] if begun else [], hold_open=True) as address:
        threading.Timer(0.1, cancel.cancel).start()
        assert list(stream(address, cancel)) == []


@both
def test_cancelled_before_it_begins(stream: Stream) -> None:
    cancel = Cancellation()
    cancel.cancel()
    with one_answer([HEAD], hold_open=True) as address:
        assert list(stream(address, cancel)) == []


@as_it_comes
def test_who_leaves_closes_the_connection(stream: Stream) -> None:
    gone = threading.Event()
    with listening() as (listener, address):

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request_body(connection)
                connection.sendall(HEAD + event("a"))
                with suppress(ConnectionResetError):
                    while connection.recv(65536):
                        pass
                gone.set()

        thread = threading.Thread(target=serve)
        thread.start()
        events = stream(address, Cancellation())
        with closing(events):  # type: ignore[type-var]
            assert next(events)["content"] == "a"
        assert gone.wait(10)
        thread.join()


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_handed_over_late_has_the_time_when_it_came(chunked: bool) -> None:
    # In chunks, the second packet ends as a body does.
    said = [event("a"), event("b") + b": 0\r\n", event("c"), b"data: [DONE]\n\n"]
    arrivals, sent_s = Arrivals(), []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            request_body(connection)
            connection.sendall(CHUNKED if chunked else HEAD)
            for data in said:
                sent_s.append(time.monotonic())
                connection.sendall(chunk(data) if chunked else data)
                for _try in range(10_000):
                    if (arrivals.heard_s or 0.0) >= sent_s[-1]:
                        break
                    time.sleep(0.001)
            if chunked:
                connection.sendall(chunk(b""))

    with listening() as (listener, address):
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        stream = transport.stream(address, "/completion", {}, Cancellation(), arrivals)
        came = [(found["content"], arrivals.now_s(), len(sent_s)) for found in stream]
        thread.join()
    assert arrivals.late
    assert [(text, sent) for text, _at_s, sent in came] == [("a", 4), ("b", 4), ("c", 4)]
    for (_text, at_s, _sent), from_s, to_s in zip(came, sent_s[:3], sent_s[1:], strict=True):
        assert from_s <= at_s <= to_s


def test_a_defect_of_who_takes_is_no_fault_of_the_worker() -> None:
    ended: list[Exception | None] = []

    async def main(address: transport.Address) -> None:
        def take(_events: list[dict[str, Any]]) -> None:
            raise ZeroDivisionError

        await loop_transport.ask(address, "/completion", {}, Cancellation(), take, ended.append)
        while not ended:
            await asyncio.sleep(0.001)

    with one_answer([HEAD, event("a"), event("b")]) as address:
        asyncio.run(main(address))
    assert [type(error) for error in ended] == [ZeroDivisionError]


def test_what_arrives_waits_while_it_is_told_to() -> None:
    said = [event("x" * 60_000) for _number in range(200)]
    heard: list[dict[str, Any]] = []
    ended: list[Exception | None] = []

    async def main(address: transport.Address) -> None:
        flow = await loop_transport.ask(address, "/completion", {}, Cancellation(), heard.extend, ended.append)
        while not heard:
            await asyncio.sleep(0.001)
        flow.pause()
        await asyncio.sleep(0.1)
        before = len(heard)
        await asyncio.sleep(0.1)
        assert len(heard) == before < 200
        assert not ended
        flow.resume()
        while not ended:
            await asyncio.sleep(0.001)

    with one_answer([HEAD, *said, b"data: [DONE]\n\n"]) as address:
        asyncio.run(main(address))
    assert len(heard) == 200
    assert ended == [None]


@pytest.mark.parametrize("may_wait", [True, False])
def test_events_that_may_wait_are_given_together(may_wait: bool) -> None:
    """The first at once; what follows, though nothing comes after it, soon."""
    taken: list[list[str]] = []
    ended: list[Exception | None] = []

    def take(events: list[dict[str, Any]]) -> bool:
        taken.append([said["content"] for said in events])
        return may_wait

    async def main(listener: socket.socket, address: transport.Address) -> None:
        cancel = Cancellation()
        await loop_transport.ask(address, "/completion", {}, cancel, take, ended.append)
        worker, _ = listener.accept()
        with worker:
            if address.port:
                worker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            worker.sendall(HEAD)
            for number in range(100):
                worker.sendall(event(str(number)))
                if not number:
                    while not taken:
                        await asyncio.sleep(0.001)
                await asyncio.sleep(0.001)
            while sum(map(len, taken)) < 100:
                await asyncio.sleep(0.001)
        cancel.cancel()
        while not ended:
            await asyncio.sleep(0.001)

    with listening() as (listener, address):
        asyncio.run(main(listener, address))
    assert taken[0] == ["0"]
    assert [text for texts in taken for text in texts] == [str(number) for number in range(100)]
    if may_wait:
        assert len(taken) < 100, "some came with others"


class CountingSelector(selectors.DefaultSelector):
    """`found`: how often something was ready."""

    found = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        self.found += len(ready)
        return ready


@pytest.mark.skipif(sys.platform != "linux", reason="takes an epoll")
def test_what_may_wait_wakes_nobody_but_the_end_does(monkeypatch: pytest.MonkeyPatch) -> None:
    if Way.is_port:
        pytest.skip("a transport of asyncio's")
    monkeypatch.setattr(loop_transport, "_APART_S", 3600.0)
    taken: list[list[str]] = []
    ended: list[Exception | None] = []
    selector = CountingSelector()

    def take(events: list[dict[str, Any]]) -> bool:
        taken.append([said["content"] for said in events if "content" in said])
        return True

    async def main(listener: socket.socket, address: transport.Address) -> None:
        await loop_transport.ask(address, "/completion", {}, Cancellation(), take, ended.append)
        worker, _ = listener.accept()
        with worker:
            worker.sendall(HEAD + event("0"))
            while not taken:
                await asyncio.sleep(0.001)
            before = selector.found
            for number in range(1, 6):
                worker.sendall(event(str(number)))
                await asyncio.sleep(0.005)
            assert (taken, selector.found) == ([["0"]], before)
            worker.sendall(b"data: [DONE]\n\n")
        while not ended:
            await asyncio.sleep(0.001)

    with (
        listening() as (listener, address),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner,
    ):
        runner.run(main(listener, address))
    assert [text for texts in taken for text in texts] == list("012345")
    assert ended == [None]


@pytest.mark.skipif(sys.platform != "linux", reason="takes an epoll")
def test_much_is_not_left_in_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that writes thousands of tokens a second is never kept from sending."""
    if Way.is_port:
        pytest.skip("a transport of asyncio's")
    monkeypatch.setattr(loop_transport, "_APART_S", 3600.0)
    ended: list[Exception | None] = []
    heard: list[str] = []

    def take(events: list[dict[str, Any]]) -> bool:
        heard.extend(said["content"] for said in events if "content" in said)
        return True

    async def main(listener: socket.socket, address: transport.Address) -> None:
        await loop_transport.ask(address, "/completion", {}, Cancellation(), take, ended.append)
        worker, _ = listener.accept()
        with worker:
            worker.setblocking(False)
            worker.sendall(HEAD + b"".join(event("x" * 300) for _number in range(100)))
            while not heard:
                await asyncio.sleep(0.001)
            for _number in range(400):
                worker.sendall(event("x" * 300))  # would raise where there is no room
                await asyncio.sleep(0)
            worker.sendall(b"data: [DONE]\n\n")
        while not ended:
            await asyncio.sleep(0.001)

    with listening() as (listener, address):
        asyncio.run(asyncio.wait_for(main(listener, address), 20))
    assert len(heard) == 500
    assert ended == [None]


def test_some_may_wait_and_some_may_not() -> None:
    """Also while the client does not read: told within `take`, as a full queue tells it."""
    said = [event(str(number)) for number in range(60)]
    heard: list[str] = []
    ended: list[Exception | None] = []
    flows: list[Flow] = []
    told: list[str] = []

    def take(events: list[dict[str, Any]]) -> bool:
        heard.extend(found["content"] for found in events)
        if len(heard) > 20 and not told:
            told.append("pause")
            flows[0].pause()
            flows[0].pause()
        return len(heard) % 3 > 0

    async def main(listener: socket.socket, address: transport.Address) -> None:
        flows.append(await loop_transport.ask(address, "/completion", {}, Cancellation(), take, ended.append))
        worker, _ = listener.accept()
        with worker:
            worker.sendall(HEAD)
            for piece in said:
                worker.sendall(piece)
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.1)
            before = len(heard)
            assert 20 < before < 60
            flows[0].resume()
            flows[0].resume()
            while len(heard) < 60:
                await asyncio.sleep(0.001)
            worker.sendall(b"data: [DONE]\n\n")
        while not ended:
            await asyncio.sleep(0.001)

    with listening() as (listener, address):
        asyncio.run(asyncio.wait_for(main(listener, address), 20))
    assert heard == [str(number) for number in range(60)]
    assert ended == [None]


@both
def test_a_worker_that_ends_while_it_is_asked(stream: Stream) -> None:
    """Its last words, where there are any, are heard all the same; else it is gone."""
    for said in (b"", HEAD, HEAD + event("a")):
        with one_answer([said]) as address, pytest.raises(transport.WorkerGone):
            texts(stream, address)


def test_a_long_request_that_nobody_reads_to_its_end() -> None:
    ended: list[Exception | None] = []
    heard: list[dict[str, Any]] = []

    async def main(address: transport.Address) -> None:
        body = {"n": "x" * 2**22}
        await loop_transport.ask(address, "/completion", body, Cancellation(), heard.extend, ended.append)
        while not ended:
            await asyncio.sleep(0.001)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)

    with listening() as (listener, address):
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        asyncio.run(asyncio.wait_for(main(address), 10))
        thread.join()
    assert [type(error) for error in ended] == [transport.WorkerGone] and not heard


@both
def test_nobody_listens(stream: Stream, tmp_path: str) -> None:
    with pytest.raises(transport.WorkerGone):
        texts(stream, transport.Address(key="k", socket_path=f"{tmp_path}/none.sock"))
    with pytest.raises(transport.WorkerGone):
        transport.call(transport.Address(key="k", socket_path=f"{tmp_path}/none.sock"), "/props")


def test_a_worker_that_lets_nobody_in_holds_nobody_else_up(tmp_path: Path) -> None:
    """Its queue of connections is full: the loop goes on meanwhile, and the request gets its turn."""
    heard: list[dict[str, Any]] = []
    ended: list[Exception | None] = []
    address = transport.Address(key="k", socket_path=str(tmp_path / "w"))

    async def main(listener: socket.socket) -> None:
        asking = asyncio.create_task(
            loop_transport.ask(address, "/completion", {"n": "x" * 2**20}, Cancellation(), heard.extend, ended.append)
        )
        await asyncio.sleep(0.1)
        assert not asking.done()
        first, _ = listener.accept()
        first.close()
        await asyncio.wait_for(asking, 10)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        while not ended:
            await asyncio.sleep(0.001)
        thread.join()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            body = json.loads(request_body(connection))
            connection.sendall(HEAD + event(str(len(body["n"]))) + b'data: {"stop": true}\n\n')

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(address.socket_path)
        listener.listen(0)
        other.connect(address.socket_path)
        asyncio.run(main(listener))
    assert ended == [None]
    assert [said["content"] for said in heard if "content" in said] == [str(2**20)]


def test_who_leaves_before_a_worker_lets_anybody_in_is_let_go(tmp_path: Path) -> None:
    ended: list[Exception | None] = []
    cancel = Cancellation()
    address = transport.Address(key="k", socket_path=str(tmp_path / "w"))

    async def main() -> None:
        asking = asyncio.create_task(
            loop_transport.ask(address, "/completion", {}, cancel, lambda _events: None, ended.append)
        )
        await asyncio.sleep(0.1)
        assert not ended
        cancel.cancel()
        await asyncio.wait_for(asking, 10)

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(address.socket_path)
        listener.listen(0)
        other.connect(address.socket_path)
        asyncio.run(main())
    assert ended == [None]
