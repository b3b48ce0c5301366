"""HTTP to a worker over its Unix socket (or loopback port), with a way to break off from another thread.

`http.client` is used on purpose: the socket is ours from before the request is sent, so a cancellation can shut it
down while the worker still processes the prompt and no response exists yet.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bendi.engines.http_body import blocks
from bendi.messages import Arrivals, Cancellation

_decode = json.JSONDecoder().decode
"""As `json.loads`, without its questions: this is done for each token, on a processor that is wanted elsewhere."""


@dataclass(frozen=True)
class Address:
    """Where a worker listens. `socket_path` for a Unix socket, else `port` on 127.0.0.1."""

    key: str
    socket_path: str = ""
    port: int = 0


class WorkerGone(Exception):
    """The connection broke before the answer was complete."""


class WorkerRefused(Exception):
    """An HTTP error answer. `body`: the worker's `error` object."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status}: {body.get('message', '')}")
        self.status = status
        self.body = body


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: Address, timeout_s: float | None) -> None:
        super().__init__("127.0.0.1", address.port or None, timeout=timeout_s)
        self._address = address

    def connect(self) -> None:
        if not self._address.socket_path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._address.socket_path)
        except OSError:
            self.sock.close()
            raise


def call(
    address: Address,
    path: str,
    body: object = None,
    timeout_s: float | None = 60.0,
    cancel: Cancellation | None = None,
) -> dict[str, Any]:
    """One JSON request; GET without a body. `cancel` closes the connection, which makes the worker stop computing.
    Raises WorkerRefused, or WorkerGone, also after a cancellation."""
    connection = _Connection(address, timeout_s)
    try:
        if cancel:
            connection.connect()
            sock = connection.sock
            cancel.on_cancel(lambda: _shut_down(sock))
        response = _send(connection, address, path, body)
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WorkerGone(str(error)) from error
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise WorkerGone(f"unexpected answer from {path}")
    return answer


def stream(
    address: Address,
    path: str,
    body: object,
    cancel: Cancellation | None = None,
    arrivals: Arrivals | None = None,
) -> Iterator[dict[str, Any]]:
    """The events of a streaming request, each a JSON object, as they come, or for `arrivals` when all are there.

    Closing the iterator, or `cancel`, closes the connection, which makes the worker stop computing; after a
    cancellation the iterator simply ends. Raises WorkerRefused (also for an error in the middle of a stream) or
    WorkerGone.
    """
    connection = _Connection(address, timeout_s=None)
    cancelled = cancel or Cancellation()
    try:
        connection.connect()
        sock = connection.sock
        cancelled.on_cancel(lambda: _shut_down(sock))
        response = _send(connection, address, path, body)
        events = EventReader()
        for block in blocks(response, arrivals):
            for event in events.feed(block):
                # What has arrived already is not wanted any more.
                if cancelled.cancelled:
                    return
                yield event
            if events.ended:
                return
        raise http.client.IncompleteRead(b"")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if not cancelled.cancelled:
            raise WorkerGone(str(error)) from error
    finally:
        connection.close()


class EventReader:
    """Server-sent events in what a worker sends, up to `[DONE]` or a native final event; a stream that just ends before
    is broken."""

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def feed(self, block: bytes) -> Iterator[dict[str, Any]]:
        """The events that are complete with `block`. Raises WorkerRefused where the worker tells of an error."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            field, _, value = line.rstrip(b"\r").partition(b": ")
            if self.ended or field not in (b"data", b"error"):
                continue
            if value == b"[DONE]":
                self.ended = True
                return
            event = _decode(value.decode())
            if field == b"error" or "error" in event:
                error = event.get("error", event)
                raise WorkerRefused(int(error.get("code", 500)), error)
            self.ended = event.get("stop") is True
            yield event


def _send(connection: _Connection, address: Address, path: str, body: object) -> http.client.HTTPResponse:
    headers = {"Authorization": f"Bearer {address.key}", "Content-Type": "application/json"}
    payload = None if body is None else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, payload, headers)
    response = connection.getresponse()
    if response.status >= 400:
        raise refusal(response.status, response.read())
    return response


def refusal(status: int, raw: bytes) -> WorkerRefused:
    """What a worker said with an error of HTTP."""
    try:
        error = json.loads(raw)["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": raw.decode("utf-8", "replace")[:500]}
    return WorkerRefused(status, error if isinstance(error, dict) else {"message": str(error)})


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
