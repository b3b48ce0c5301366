"""One answer at a time in each session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from bendi.i18n import _
from bendi.server.api_errors import ApiError

_ENDS_S = 1.0
"""Within this time an answer ends whose client went away: noticing that and stopping the engine takes some 200 ms."""


class Talking:
    """The sessions in which an answer is being written. Used in one event loop.

    async with talking.alone(session_id):
        ...                               # nobody else writes in it
    """

    def __init__(self) -> None:
        self._ends: dict[str, asyncio.Event] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._ends

    @asynccontextmanager
    async def alone(self, session_id: str) -> AsyncIterator[None]:
        """Raises ApiError 409 where an answer goes on being written. One that is just being stopped is waited for: who
        stops an answer may ask again, or delete the session, at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_S):
                while before := self._ends.get(session_id):
                    await before.wait()
        if session_id in self._ends:
            raise ApiError(409, _("An answer is being written in this session."), code="session_busy")
        ended = self._ends[session_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._ends[session_id]
            ended.set()
