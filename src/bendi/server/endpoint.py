"""One row of the table of routes: where it is, who may use it, what comes in and what goes out.

Everything is made from these rows: the routes, the check of keys (deny by default: what is not in the table does not
exist), the limits, and the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from bendi.server.access import Caller, Scope
from bendi.server.services import Services

Dialect = Literal["openai", "ollama", "anthropic", "bendi"]
"""How errors are written."""
Stream = Literal["", "sse", "ndjson"]


@dataclass(frozen=True)
class Call:
    """One request. `body`, `query`: instances of the endpoint's models, None where it has none."""

    services: Services
    request: Request
    caller: Caller
    body: Any = None
    query: Any = None

    async def gone(self) -> None:
        """Returns when the client has gone away. For one task of a request whose body was read."""
        with suppress(RuntimeError):
            while (await self.request.receive())["type"] != "http.disconnect":
                pass


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """`path`: as Starlette writes it. `body`: what the request must be; fields that it does not name are ignored and
    never reach an engine. `query`: what stands behind the `?`, as a model of plain fields.

    For the document: `answer` is what comes with `status`, a model or something made of models (`list[Model]`); without
    one it is of `media_types`, none of them where nothing comes. `also`: further statuses that bring the same.
    `stream`: how a streamed answer is framed, empty where nothing can be streamed. `errors`: further statuses, with
    what they mean.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope
    dialect: Dialect
    summary: str
    body: type[BaseModel] | None = None
    answer: Any = None
    stream: Stream = ""
    errors: Mapping[int, str] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    status: int = 200
    media_types: tuple[str, ...] = ("application/json",)
    also: Mapping[int, str] = field(default_factory=dict)


MODEL_ERRORS: Mapping[int, str] = {
    400: "The request cannot be honoured as it is; `context_needed` says how long the context would have to be.",
    404: "The model is not on this machine.",
    409: "The download of the model has not ended.",
    422: "The file of the model cannot be used, or not for this.",
    429: "Too many wait already; Retry-After says when to come again.",
    503: "The model could not be loaded, its worker died, or the server is being stopped.",
    507: "The model does not fit into memory, or the disk is full.",
}
"""Of all endpoints that ask a model."""
