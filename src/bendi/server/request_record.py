"""What is known of the request that is being answered: made by the outermost layer, read by all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope

from bendi.server.access import Caller
from bendi.server.endpoint import Dialect
from bendi.server.metrics import RequestTokens
from bendi.server.table import Found

NOBODY = Caller(scopes=frozenset({"public"}))
_KEY = "bendi"


@dataclass
class RequestRecord:
    """`dialect`: how its errors are written. `per_minute`: how many requests its key may send, None for any number.
    `status`: of its answer, 0 while there is none. `body`: as it came, kept only where prompts shall be logged."""

    id: str
    found: Found
    dialect: Dialect
    caller: Caller = NOBODY
    per_minute: int | None = None
    status: int = 0
    tokens: RequestTokens = field(default_factory=RequestTokens)
    body: str = ""

    @property
    def route(self) -> str:
        """The pattern, not the path: paths may hold names that are nobody's business, and there are few patterns."""
        return self.found.endpoint.path if self.found.endpoint else "none"


def record_of(scope: Scope) -> RequestRecord:
    return cast(RequestRecord, scope[_KEY])


def attach(scope: Scope, record: RequestRecord) -> None:
    scope[_KEY] = record
