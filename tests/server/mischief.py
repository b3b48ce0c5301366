"""Requests that no sane client sends, the same ones every time: bytes for a socket, made from a seed."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

from bendi.server.app import ALL
from bendi.server.endpoint import Endpoint

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", "BREW", "G\x00T", "P" * 300)
_TARGETS = (
    "/", "//", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/%zz%", "/v1//chat/completions", "*", "http://x/",
    "/v1/models/%00", "/\x7f", "/" + "a" * 9000, "/?" + "&".join(f"a{number}=1" for number in range(800)),
)  # fmt: skip
_VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1 ", "http/1.1", "", "HTTP/11")
_HEADERS = (
    "Content-Length: -1", "Content-Length: 5, 6", "Content-Length: 1e3", "Content-Length: " + "9" * 40,
    "Content-Length: 99999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked, x", "Content-Encoding: gzip", "Content-Type: \x01", "Host: elsewhere.example",
    "Host: 127.0.0.1", "Origin: null",
    "Authorization: Bearer " + "x" * 3000, "Expect: 100-continue", "Connection: upgrade\r\nUpgrade: websocket",
    "no colon", ": no name", "X : space before", " folded", "X-\xff: \xfe", "X: \x00",
    "Accept-Encoding: " + "gzip, " * 900,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 10**30, 1e308, -0.0, "", "x", "no-such-model", "\x00", "../../x", "\ud800",
    "a" * 4000, [], {}, [[]], [None], {"role": 1}, [{"role": "user"}],
    [{"role": "user", "content": [{"type": "image_url"}]}],
    "http://127.0.0.1/x", "data:image/png;base64,AAAA", {"type": "function"}, [1, "a", {}], "hf:a/b:c",
)  # fmt: skip
_UNFIT = frozenset({"/api/bendi/stop"})
"""What a well-formed body could really do here, to the harm of others."""


@dataclass(frozen=True)
class Sent:
    """`method`: what a reader of the answer must know. `ends`: nothing more comes after these bytes, not even what they
    promise."""

    data: bytes
    method: str = "POST"
    ends: bool = False


class Mischief:
    """Sends over a few connections. `statuses`: how often which status was the answer, 0 where the server closed the
    connection instead."""

    def __init__(self, port: int, seed: int, connections: int = 4) -> None:
        self._port, self._random = port, random.Random(seed)
        self._open: list[socket.socket | None] = [None] * connections
        self._with_body: Sequence[Endpoint] = [one for one in ALL if one.body is not None and one.path not in _UNFIT]
        self.statuses: Counter[int] = Counter()
        self._kinds: tuple[Callable[[], Sent], ...] = (
            self._noise, self._odd_head, self._odd_headers, self._many_headers, self._broken_json, self._deep_json,
            self._wrong_types, self._wrong_types, self._wrong_length, self._half, self._bad_chunks, self._odd_bytes,
        )  # fmt: skip

    def close(self) -> None:
        for connection in self._open:
            if connection:
                connection.close()

    def send(self) -> None:
        at = self._random.randrange(len(self._open))
        sent = self._random.choice(self._kinds)()
        connection = self._open[at] or socket.create_connection(("127.0.0.1", self._port), timeout=30)
        self._open[at] = connection if self._exchange(connection, sent) else None
        if self._open[at] is None:
            connection.close()

    def _exchange(self, connection: socket.socket, sent: Sent) -> bool:
        """Whether the connection can be used again."""
        with suppress(OSError):  # it may answer and close before it has read everything
            connection.sendall(sent.data)
        with suppress(OSError):
            if sent.ends:
                connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection, method=sent.method)
        try:
            response.begin()
            response.read()
        except (HTTPException, OSError, ValueError):
            self.statuses[response.status if isinstance(response.status, int) else 0] += 1
            return False
        finally:
            response.close()
        self.statuses[response.status] += 1
        return not (sent.ends or response.will_close)

    # Each makes one request.

    def _noise(self) -> Sent:
        data = self._random.randbytes(self._random.randrange(1, 2000))
        return Sent(data + self._random.choice((b"", b"\r\n\r\n", b"\n\n")), ends=True)

    def _odd_head(self) -> Sent:
        choose = self._random.choice
        method = choose(_METHODS)
        line = f"{method} {choose(_TARGETS)} {choose(_VERSIONS)}\r\nHost: localhost\r\n\r\n"
        return Sent(line.encode("latin-1"), method.upper(), ends=True)

    def _odd_headers(self) -> Sent:
        odd = self._random.sample(_HEADERS, self._random.randrange(1, 4))
        body = b'{"model": "no-such-model"}'
        return Sent(self._head(odd, len(body)) + body, ends=True)

    def _many_headers(self) -> Sent:
        count, size = self._random.choice(((300, 5), (2000, 5), (3, 30_000), (1, 100_000)))
        return Sent(self._head([f"X-{number}: {'y' * size}" for number in range(count)], 2) + b"{}", ends=True)

    def _broken_json(self) -> Sent:
        raw = bytearray(b'{"model": "no-such-model", "messages": [{"role": "user", "content": "hi"}]}')
        for _change in range(self._random.randrange(1, 4)):
            at = self._random.randrange(len(raw))
            raw[at : at + self._random.randrange(3)] = self._random.randbytes(self._random.randrange(3))
        return self._whole(bytes(raw))

    def _deep_json(self) -> Sent:
        depth = self._random.choice((90, 101, 1000, 20_000))
        opening, closing = self._random.choice((("[", "]"), ('{"a":', "}")))
        inner = opening * depth + self._random.choice(("", "1")) + closing * self._random.choice((depth, 0))
        return self._whole(b'{"model": "no-such-model", "messages": ' + inner.encode() + b"}")

    def _wrong_types(self) -> Sent:
        endpoint = self._random.choice(self._with_body)
        assert endpoint.body is not None
        names = list(endpoint.body.model_fields)
        fields = {name: self._random.choice(_VALUES) for name in self._random.sample(names, min(len(names), 5))}
        return self._whole(json.dumps(fields).encode(), endpoint)

    def _wrong_length(self) -> Sent:
        body = b'{"model": "no-such-model", "messages": []}'
        return Sent(self._head([], len(body) + self._random.choice((-40, -7, 1, 5000))) + body, ends=True)

    def _half(self) -> Sent:
        whole = self._head([], 40) + b'{"model": "no-such-model", "messages": [1'
        return Sent(whole[: self._random.randrange(1, len(whole) - 1)], ends=True)

    def _bad_chunks(self) -> Sent:
        made = (b"zz\r\n", b"5\r\n{}", b"ffffffffffffffff\r\nx", b"2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n")
        return Sent(self._head(["Transfer-Encoding: chunked"]) + self._random.choice(made), ends=True)

    def _odd_bytes(self) -> Sent:
        text = '{"model": "no-such-model", "messages": [{"role": "user", "content": "本地"}]}'
        made = (
            text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.encode("gb18030"), b'{"a": "\\ud800"}',
            b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[]", b"null", b'"x"', b"", b"\x00" * 300, b"1" * 5000,
        )  # fmt: skip
        return self._whole(self._random.choice(made))

    def _whole(self, body: bytes, endpoint: Endpoint | None = None) -> Sent:
        """A request in good form around a body."""
        endpoint = endpoint or self._random.choice(self._with_body)
        path = endpoint.path.split("{")[0] + ("x" if "{" in endpoint.path else "")
        return Sent(self._head([], len(body), endpoint.method, path) + body, endpoint.method)

    def _head(
        self, more: Sequence[str], length: int | None = None, method: str = "POST", path: str = "/v1/chat/completions"
    ) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
