"""Streams from a worker: any split gives the same text, a broken stream is never an answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendi.engines import transport
from bendi.messages import Cancellation

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@contextmanager
def one_answer(pieces: list[bytes], *, hold_open: bool = False) -> Iterator[transport.Address]:
    """A server on loopback that answers one request with `pieces`, each its own packet."""
    release = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)
                if hold_open:
                    release.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield transport.Address(key="k", port=listener.getsockname()[1])
        finally:
            release.set()
            thread.join()


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"content": text}, ensure_ascii=False).encode() + b"\n\n"


def texts(address: transport.Address) -> list[str]:
    return [piece["content"] for piece in transport.stream(address, "/completion", {})]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.data())
def test_any_split_gives_the_same_text(parts: list[str], data: st.DataObject) -> None:
    whole = HEAD + b": a comment\n\n" + b"".join(map(event, parts)) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
    with one_answer(pieces) as address:
        assert texts(address) == parts


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_stream_that_ends_early_is_broken(data: st.DataObject) -> None:
    whole = HEAD + event("你好") + event("world") + b"data: [DONE]\n\n"
    cut = data.draw(st.integers(0, len(whole) - len(b"[DONE]\n\n") - 1))
    with one_answer([whole[:cut]]) as address, pytest.raises(transport.WorkerGone):
        texts(address)


def test_native_stream_ends_with_its_last_event() -> None:
    last = b'data: {"content": "", "stop": true}\n\n'
    with one_answer([HEAD, event("a"), last], hold_open=True) as address:
        assert texts(address) == ["a", ""]


@pytest.mark.parametrize("field", [b"data", b"error"])
def test_error_in_the_middle(field: bytes) -> None:
    error = b'{"error": {"code": 500, "message": "compute failed"}}'
    with one_answer([HEAD, event("a"), field + b": " + error + b"\n\n"]) as address:
        stream = transport.stream(address, "/completion", {})
        assert next(stream)["content"] == "a"
        with pytest.raises(transport.WorkerRefused, match="compute failed"):
            next(stream)


def test_refusal_that_is_not_json() -> None:
    with (
        one_answer([b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"]) as address,
        pytest.raises(transport.WorkerRefused, match="busy") as caught,
    ):
        transport.call(address, "/props")
    assert caught.value.status == 503


def test_answer_that_is_not_json() -> None:
    with (
        one_answer([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy"]) as address,
        pytest.raises(transport.WorkerGone),
    ):
        transport.call(address, "/props")


def test_cancel_while_nothing_arrives() -> None:
    """The prompt is still being processed: no byte of an answer has come."""
    cancel = Cancellation()
    with one_answer([], hold_open=True) as address:
        threading.Timer(0.1, cancel.cancel).start()
        assert list(transport.stream(address, "/completion", {}, cancel)) == []


def test_nobody_listens(tmp_path: str) -> None:
    with pytest.raises(transport.WorkerGone):
        transport.call(transport.Address(key="k", socket_path=f"{tmp_path}/none.sock"), "/props")
