"""The program that answers: finds the endpoint of a request, reads its body, calls its handler.

`ALL` is everything that exists. What stands around it (who may ask, limits, errors, logs) is in `middleware`.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bendi.i18n import _
from bendi.server import (
    anthropic_messages,
    middleware,
    native_api,
    native_sessions,
    ollama_chat,
    ollama_models,
    ollama_vectors,
    openai_chat,
    openai_completions,
    openai_models,
    openai_responses,
    openai_vectors,
    operations,
    page_files,
    pool_api,
    token_api,
)
from bendi.server.api_errors import ApiError
from bendi.server.bodies import check_query, read_body
from bendi.server.endpoint import Call, Endpoint
from bendi.server.policy import Policy
from bendi.server.request_record import record_of
from bendi.server.services import Services
from bendi.server.table import Found, Table

ALL: tuple[Endpoint, ...] = (
    *operations.ENDPOINTS,
    *openai_models.ENDPOINTS,
    *openai_vectors.ENDPOINTS,
    *ollama_vectors.ENDPOINTS,
    *page_files.ENDPOINTS,
    *pool_api.ENDPOINTS,
    *openai_chat.ENDPOINTS,
    *openai_completions.ENDPOINTS,
    *openai_responses.ENDPOINTS,
    *token_api.ENDPOINTS,
    *ollama_chat.ENDPOINTS,
    *ollama_models.ENDPOINTS,
    *anthropic_messages.ENDPOINTS,
    *native_sessions.ENDPOINTS,
    *native_api.ENDPOINTS,
)
"""Every endpoint that there is: one line for each module that has some."""

WITHOUT_PAGE: tuple[Endpoint, ...] = tuple(endpoint for endpoint in ALL if endpoint not in page_files.ENDPOINTS)
"""For a server that has no web page."""

_LARGE_BYTES = 256 * 1024
"""A body from this size on is read in a thread, so that others need not wait."""
_BODY_S = 60.0
"""A client that takes longer to send its body is told so."""


def create_app(
    services: Services,
    policy: Policy,
    log: middleware.Log = middleware.no_log,
    endpoints: tuple[Endpoint, ...] = ALL,
) -> ASGIApp:
    """The whole server, to be run by uvicorn. `log` gets a record for every request."""
    table = Table(endpoints)
    app = App(services, table, keep_bodies=policy.log_prompts)
    return middleware.around(app, table, services, policy, log)


class App:
    """The innermost ASGI program. What comes here was let in, and its endpoint is known."""

    def __init__(self, services: Services, table: Table, *, keep_bodies: bool = False) -> None:
        self.services, self.table, self._keep_bodies = services, table, keep_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        response = await self._respond(scope, receive)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        record = record_of(scope)
        endpoint = record.found.endpoint
        if endpoint is None:
            return _nothing_here(scope["method"], record.found)
        scope["path_params"] = record.found.params
        request = Request(scope, receive)
        query = check_query(request.query_params, endpoint.query) if endpoint.query else None
        body = None
        if endpoint.body is not None:
            raw = await _whole_body(request)
            if self._keep_bodies:
                record.body = raw.decode("utf-8", "replace")
            if len(raw) < _LARGE_BYTES:
                body = read_body(raw, endpoint.body)
            else:
                body = await asyncio.to_thread(read_body, raw, endpoint.body)
        return await endpoint.handler(Call(self.services, request, record.caller, body, query))


async def _whole_body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.body()
    except TimeoutError as error:
        raise ApiError(408, _("The body did not arrive within {seconds:.0f} s.").format(seconds=_BODY_S)) from error


def _nothing_here(method: str, found: Found) -> Response:
    if not found.methods:
        raise ApiError(404, _("There is nothing at this path."), code="unknown_path")
    allowed = {"Allow": ", ".join((*found.methods, "OPTIONS"))}
    if method == "OPTIONS":
        return Response(status_code=204, headers=allowed)
    message = _("This path takes {methods}.").format(methods=", ".join(found.methods))
    raise ApiError(405, message, code="wrong_method", headers=allowed)
