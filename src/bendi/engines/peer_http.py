"""HTTP to servers that are not ours: this machine's unless the user says otherwise, with bounds on everything that a
server could do without end, and with a way to break off from another thread (see `transport`).

No proxy is used, no redirect followed, and the key of a server is sent to that server only.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from bendi.engines.http_body import blocks
from bendi.engines.transport import WorkerGone, WorkerRefused, refusal
from bendi.errors import EngineCrashed, EngineError, Offline, RequestRejected, UsageError
from bendi.i18n import _
from bendi.messages import Arrivals, Cancellation
from bendi.settings import Settings
from bendi.units import MIB

_BLOCK_BYTES = 64 * 1024
_MOST_ANSWER_BYTES = 64 * MIB
_MOST_LINE_BYTES = 16 * MIB
_FAILED = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True)
class Site:
    """A server. `path`: what stands before all its paths. `key`: sent as a bearer token."""

    scheme: str
    host: str
    port: int
    path: str = ""
    key: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def is_here(self) -> bool:
        return _is_loopback(self.host)


@dataclass(frozen=True)
class Bounds:
    """Of one answer. `silence_s`: how long nothing may come. `most_bytes`: of all of it."""

    silence_s: float
    most_bytes: int


def site_of(url: str, settings: Settings, *, key: str = "", remote: bool = False) -> Site:
    """The server at `url`. Raises UsageError for what is no such address, and for another machine unless `remote`;
    Offline for another machine when bendi is set to open no connections."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        raise UsageError(
            _("{url} is not the address of a server.").format(url=url),
            hint=_("Write it such as {example}.").format(example="http://127.0.0.1:8000/v1"),
        )
    if not _is_loopback(host):
        if settings.offline:
            raise Offline(
                _("{host} is another machine, and bendi is set to open no connections.").format(host=host),
                hint=_("Unset BENDI_OFFLINE to allow it."),
            )
        if not remote:
            raise UsageError(
                _("{host} is another machine; prompts would leave this one.").format(host=host),
                hint=_("Say so in the study if that is meant."),
            )
    return Site(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"), key)


def call(site: Site, path: str, body: object = None, timeout_s: float = 60.0, method: str = "") -> dict[str, Any]:
    """One JSON request; GET without a body. Raises WorkerRefused, or WorkerGone."""
    connection = _connection(site, timeout_s)
    try:
        response = _send(connection, site, method or ("GET" if body is None else "POST"), path, body)
        raw = response.read(_MOST_ANSWER_BYTES)
        answer = json.loads(raw) if raw.strip() else {}
    except _FAILED as error:
        raise WorkerGone(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise WorkerGone(f"unexpected answer from {path}")
    return answer


def lines(
    site: Site, path: str, body: object, cancel: Cancellation, bounds: Bounds, arrivals: Arrivals | None = None
) -> Iterator[bytes]:
    """The lines of a streamed answer, as each arrives, until it ends; for `arrivals` when all are there.

    Closing the iterator, or `cancel`, closes the connection, which makes servers stop; after a cancellation the
    iterator simply ends. Raises WorkerRefused or WorkerGone.
    """
    connection = _connection(site, bounds.silence_s)
    try:
        connection.connect()
        sock = connection.sock
        cancel.on_cancel(lambda: _shut_down(sock))
        response = _send(connection, site, "POST", path, body)
        rest = b""
        for block in blocks(response, arrivals, bounds.most_bytes):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                if cancel.cancelled:
                    return
                yield line
            if len(rest) > _MOST_LINE_BYTES:
                raise ValueError("the answer has no end")
        if rest:
            yield rest
    except _FAILED as error:
        if not cancel.cancelled:
            raise WorkerGone(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def upload(site: Site, path: str, file: Path, silence_s: float) -> None:
    """Sends a file as it is. Raises WorkerRefused or WorkerGone."""
    connection = _connection(site, silence_s)
    try:
        with file.open("rb") as source:
            headers = _headers(site, {"Content-Type": "application/octet-stream"})
            headers["Content-Length"] = str(file.stat().st_size)
            connection.request("POST", site.path + path, source, headers)
            _checked(connection.getresponse())
    except _FAILED as error:
        raise WorkerGone(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def raise_in_words(engine: str, error: WorkerGone | WorkerRefused) -> NoReturn:
    """Raises what a server said, in our words: RequestRejected, EngineCrashed or EngineError."""
    if isinstance(error, WorkerGone):
        raise EngineCrashed(
            _("{engine} broke off: {reason}").format(engine=engine, reason=error),
            hint=_("Look whether the server still runs, and at what it wrote."),
        ) from error
    reason = str(error.body.get("message") or error.status)[:500]
    if error.status in (401, 403):
        raise EngineError(
            _("{engine} wants another key: {reason}").format(engine=engine, reason=reason),
            hint=_("Name the environment variable that has its key."),
        ) from error
    if error.status in (400, 404, 405, 413, 422):
        raise RequestRejected(
            _("{engine} refused the request: {reason}").format(engine=engine, reason=reason),
            hint=_("Check the name of the model, the length of the prompt, and the settings."),
        ) from error
    raise EngineError(_("{engine} could not answer: {reason}").format(engine=engine, reason=reason)) from error


def _connection(site: Site, timeout_s: float) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if site.scheme == "https" else http.client.HTTPConnection
    return kind(site.host, site.port, timeout=timeout_s)


def _headers(site: Site, more: Mapping[str, str]) -> dict[str, str]:
    return {**more, **({"Authorization": f"Bearer {site.key}"} if site.key else {})}


def _send(
    connection: http.client.HTTPConnection, site: Site, method: str, path: str, body: object
) -> http.client.HTTPResponse:
    payload = None if body is None else json.dumps(body).encode()
    connection.request(method, site.path + path, payload, _headers(site, {"Content-Type": "application/json"}))
    return _checked(connection.getresponse())


def _checked(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if response.status >= 300:
        raise refusal(response.status, response.read(_BLOCK_BYTES))
    return response


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
