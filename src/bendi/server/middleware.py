"""What stands around the program that answers, outermost first.

    Recording       gives the request an id, finds its endpoint, writes it down when it is over
    SafeHeaders     what browsers must know: security headers, and which other pages may read answers (by default none)
    Wording         every error in the client's dialect, never a traceback
    Authentication  who asks. What is not public is refused without a key, whether it exists or not
    SameSite        names of this server only (DNS rebinding), pages of this server only
    Limits          sizes of headers, queries and bodies; requests per minute

Each is a pure ASGI program around the next. They raise `ApiError`; only `Wording` makes answers of errors.
"""

from __future__ import annotations

import re
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bendi.errors import BendiError
from bendi.i18n import _
from bendi.server.access import Caller
from bendi.server.api_errors import ApiError, as_api_error, error_response, let_go
from bendi.server.endpoint import Dialect, Endpoint
from bendi.server.guards import Limits, SameSite
from bendi.server.metrics import CURRENT_TOKENS, Metrics
from bendi.server.policy import Policy
from bendi.server.request_record import RequestRecord, attach, record_of
from bendi.server.services import Services
from bendi.server.table import Table

Log = Callable[[Mapping[str, Any]], None]
CLIENT_GONE = 499
"""The status of requests whose client went away before an answer began, in logs and metrics."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PAGE_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    b"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DATA_CSP = b"default-src 'none'; frame-ancestors 'none'"
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
_PREFIXES: tuple[tuple[str, Dialect], ...] = (
    ("/api/bendi/", "bendi"),
    ("/api/", "ollama"),
    ("/v1/messages", "anthropic"),
)
"""How errors are written where there is no endpoint; OpenAI's way elsewhere."""


def no_log(_record: Mapping[str, Any]) -> None:
    """Keeps nothing."""


def around(app: ASGIApp, table: Table, services: Services, policy: Policy, log: Log) -> ASGIApp:
    """All layers around `app`."""
    guarded: ASGIApp = SameSite(Limits(app, policy), policy)
    authenticated = Authentication(guarded, services, policy)
    return Recording(SafeHeaders(Wording(authenticated, log), policy), table, services.metrics, log)


class Recording:
    """Outermost. Nothing of a request gets into the log but what is listed in `_write`."""

    def __init__(self, app: ASGIApp, table: Table, metrics: Metrics, log: Log) -> None:
        self._app, self._table, self._metrics, self._log = app, table, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # uvicorn is told to bring nothing else
        wished = Headers(scope=scope).get("x-request-id", "")
        request_id = wished if _REQUEST_ID.fullmatch(wished) else f"req_{secrets.token_hex(12)}"
        found = self._table.find(scope["method"], scope["path"])
        record = RequestRecord(request_id, found, _dialect(found.endpoint, scope["path"]))
        attach(scope, record)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        token = CURRENT_TOKENS.set(record.tokens)
        started_s = time.monotonic()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            CURRENT_TOKENS.reset(token)
            self._write(record, scope["method"], time.monotonic() - started_s)

    def _write(self, record: RequestRecord, method: str, duration_s: float) -> None:
        status = record.status or CLIENT_GONE
        # Any word can stand where the method is; those that we do not know must not fill the memory.
        method = method if method in _METHODS else "other"
        self._metrics.requested(method, record.route, status, duration_s)
        tokens = record.tokens
        line: dict[str, Any] = {
            "event": "request",
            "id": record.id,
            "method": method,
            "route": record.route,
            "status": status,
            "duration_s": round(duration_s, 4),
            "owner": record.caller.owner,
        }
        if tokens.models:
            line |= {"models": list(tokens.models), "prompt_tok": tokens.prompt_tok}
            line |= {"completion_tok": tokens.completion_tok, "cached_tok": tokens.cached_tok}
        if record.body:
            line["body"] = record.body
        self._log(line)


class SafeHeaders:
    """Headers of every answer, and the question of browsers whether a page of elsewhere may ask (CORS preflight)."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        origin = asked.get("origin", "")
        listed = origin.lower() in self._policy.origins

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)  # of a list of its own
                _add_safe_headers(headers.raw)
                if listed:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After"
                if self._policy.origins:
                    headers.add_vary_header("Origin")
            await send(message)

        if scope["method"] == "OPTIONS" and listed and "access-control-request-method" in asked:
            await _preflight(asked)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _add_safe_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Those that the answer does not have yet."""
    there = dict(headers)
    headers += [header for header in _SAFE_HEADERS if header[0] not in there]
    if b"content-security-policy" not in there:
        is_page = there.get(b"content-type", b"").startswith(b"text/html")
        headers.append((b"content-security-policy", _PAGE_CSP if is_page else _DATA_CSP))


def _preflight(asked: Headers) -> Response:
    wanted = [name.strip() for name in asked.get("access-control-request-headers", "").split(",")]
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": ", ".join(name for name in wanted if _TOKEN.fullmatch(name)),
        "Access-Control-Max-Age": "600",
    }
    if asked.get("access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    # 200, not 204: there are browsers that take only this for a yes.
    return Response(headers=headers)


class Wording:
    """Makes answers of errors. What went wrong after an answer began can only end the connection."""

    def __init__(self, app: ASGIApp, log: Log) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        try:
            await self._app(scope, receive, send)
            return
        except ClientDisconnect as gone:
            let_go(gone)
            return
        except Exception as error:
            answer = self._worded(error, record)
            let_go(error)
        if record.status:
            self._log({"event": "broken_off", "id": record.id, "status": answer.status})
            # The server sees an answer without its end and closes the connection, so the client sees it, too.
            return
        await error_response(answer, record.dialect)(scope, receive, send)

    def _worded(self, error: Exception, record: RequestRecord) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if isinstance(error, BendiError):
            return as_api_error(error)
        # Places only: the text of an exception may hold what the client sent.
        places = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        self._log({"event": "defect", "id": record.id, "kind": type(error).__name__, "places": places})
        return ApiError(500, _("bendi has a defect; its log tells where, under {id}.").format(id=record.id))


class Authentication:
    """Deny by default: without a right key only what is public is answered, and the rest does not even exist.

    A server that has ever seen a key goes on asking for one: taking the file away opens nothing.
    """

    def __init__(self, app: ASGIApp, services: Services, policy: Policy) -> None:
        self._app, self._keys = app, services.keys
        self._per_minute = policy.per_minute
        self._required = policy.keys_required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        self._required = self._required or not self._keys.empty
        if not self._required:
            record.caller, record.per_minute = Caller(), self._per_minute
        else:
            self._identify(record, Headers(scope=scope))
        await self._app(scope, receive, send)

    def _identify(self, record: RequestRecord, headers: Headers) -> None:
        presented = _presented_key(headers)
        key = self._keys.find(presented) if presented else None
        if key:
            record.caller = key.caller
            record.per_minute = key.requests_per_minute or self._per_minute
        endpoint = record.found.endpoint
        if endpoint and endpoint.scope in record.caller.scopes:
            return
        if key is None:
            said = _("This key is not accepted.") if presented else _("This server asks for a key.")
            hint = _("Send it as Authorization: Bearer KEY; `bendi key add NAME` makes one.")
            raise ApiError(401, f"{said} {hint}", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if endpoint:
            raise ApiError(
                403,
                _("The key {name} may not do this: it needs the scope {scope}.").format(
                    name=key.name, scope=endpoint.scope
                ),
                code="insufficient_scope",
            )


def _presented_key(headers: Headers) -> str:
    """From `Authorization: Bearer`, or `x-api-key` as Anthropic's clients send it; empty where there is none."""
    authorization = headers.get("authorization")
    if authorization is None:
        return headers.get("x-api-key", "").strip()
    scheme, _space, key = authorization.partition(" ")
    # Anything but a Bearer token is a wrong key, not a missing one.
    return key.strip() if scheme.lower() == "bearer" and key.strip() else "?"


def _dialect(endpoint: Endpoint | None, path: str) -> Dialect:
    if endpoint:
        return endpoint.dialect
    return next((dialect for prefix, dialect in _PREFIXES if path.startswith(prefix)), "openai")
