"""What is refused whoever asks: names and pages of elsewhere, and too much of anything."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.policy import Policy
from bendi.server.request_record import record_of
from bendi.units import format_size

_HOST = re.compile(r"(?P<name>[a-z0-9_](?:[a-z0-9_.-]{0,253})|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
_MAX_TARGET_BYTES = 8 * 1024
_MAX_HEADERS_BYTES = 32 * 1024
_MAX_HEADERS = 100
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class SameSite:
    """Against web pages that drive a server of this machine.

    A page can make a browser connect to any address, also under a name of its own (DNS rebinding): so the name in
    `Host` must be one of ours. And every page can send requests without being able to read the answers: so `Origin`,
    which browsers add, must be our own page or one that was allowed. Programs send no Origin.
    """

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        host = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if host is None:
            raise ApiError(400, _("The request must say in one Host header which server it is for."))
        if not self._is_ours(host["name"].strip("[]").rstrip(".")):
            raise ApiError(
                403,
                _("This server does not answer to the name {name}.").format(name=host["name"])
                + " "
                + _("Start it with {option} if that is right.").format(option=f"--name {host['name']}"),
                code="unknown_host",
            )
        endpoint = record_of(scope).found.endpoint
        if endpoint is None or endpoint.scope != "public" or scope["method"] not in ("GET", "HEAD"):
            self._check_origin(headers, host)
        await self._app(scope, receive, send)

    def _is_ours(self, name: str) -> bool:
        if name in self._policy.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._policy.any_address or address.is_loopback

    def _check_origin(self, headers: Headers, host: re.Match[str]) -> None:
        origin = headers.get("origin")
        if origin is not None:
            allowed = origin.lower() in self._policy.origins or _same(origin, host)
        else:
            # Without an Origin a browser can still be told to load something, such as an image: it says so itself.
            allowed = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if not allowed:
            raise ApiError(
                403,
                _("Web pages of {origin} may not use this server.").format(origin=(origin or _("elsewhere"))[:200])
                + " "
                + _("Start it with --origin to allow one."),
                code="origin_not_allowed",
            )


def _same(origin: str, host: re.Match[str]) -> bool:
    """Whether a page of `origin` came from the very name and port that the request is for. Names are compared, not
    schemes, since a proxy may speak TLS for us; without a port, both mean the one of the page's scheme."""
    try:
        parts = urlsplit(origin.lower())
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return False
    default = _DEFAULT_PORTS[parts.scheme]
    return (name, str(port or default)) == (host["name"].strip("[]"), host["port"] or default)


class Limits:
    """Sizes, and requests per minute. Bodies are counted as they come, whatever their Content-Length says."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._most_bytes = app, policy.body_bytes
        self._buckets: dict[str, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_head(scope)
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, _("Bodies must not be compressed."), code="encoding")
        announced = headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdigit() or int(announced[:20]) > self._most_bytes:
            raise self._too_large()
        self._count(scope)
        arrived_bytes = 0

        async def counted_receive() -> Message:
            nonlocal arrived_bytes
            message = await receive()
            arrived_bytes += len(message.get("body", b""))
            if arrived_bytes > self._most_bytes:
                raise self._too_large()
            return message

        await self._app(scope, counted_receive, send)

    def _too_large(self) -> ApiError:
        most = format_size(self._most_bytes)
        return ApiError(413, _("The body is larger than {most}.").format(most=most), code="body_too_large")

    def _count(self, scope: Scope) -> None:
        """Takes one of the requests that the key may send now."""
        record = record_of(scope)
        endpoint = record.found.endpoint
        if record.per_minute is None or endpoint is None or endpoint.scope == "public":
            return
        bucket = self._buckets.setdefault(record.caller.owner, _Bucket(record.per_minute))
        wait_s = bucket.take(record.per_minute, time.monotonic())
        if wait_s > 0:
            raise ApiError(
                429,
                _("This key may send {count} requests per minute.").format(count=record.per_minute),
                code="rate_limit_exceeded",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )


class _Bucket:
    """Requests that may be sent at once: filled evenly, a minute's worth at most."""

    def __init__(self, per_minute: int) -> None:
        self._filled = float(per_minute)
        self._seen_s = time.monotonic()

    def take(self, per_minute: int, now_s: float) -> float:
        """Takes one and returns 0, or takes none and returns after how many seconds there will be one."""
        self._filled = min(float(per_minute), self._filled + (now_s - self._seen_s) * per_minute / 60)
        self._seen_s = now_s
        if self._filled < 1:
            return (1 - self._filled) * 60 / per_minute
        self._filled -= 1
        return 0.0


def _check_head(scope: Scope) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MAX_TARGET_BYTES:
        raise ApiError(414, _("The address of the request is too long."), code="uri_too_long")
    headers = scope["headers"]
    size_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > _MAX_HEADERS or size_bytes > _MAX_HEADERS_BYTES:
        raise ApiError(431, _("The headers of the request are too large."), code="headers_too_large")
