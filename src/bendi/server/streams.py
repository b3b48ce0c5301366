"""Answers that come in pieces, as lines of JSON or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.responses import StreamingResponse

from bendi.errors import BendiError
from bendi.server.api_errors import ApiError, as_api_error

T = TypeVar("T")
QUIET_S = 15.0
"""After so long without anything to send, something is sent: proxies end connections that are silent."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def ndjson_line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def sse_event(value: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event; `name` empty: without one."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def as_error(error: Exception) -> ApiError:
    """What the client reads in the middle of a stream; says nothing of what only the log should say."""
    if isinstance(error, ApiError):
        return error
    return as_api_error(error if isinstance(error, BendiError) else BendiError("Internal error."))


async def begun(pieces: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """`pieces`, of which the first has come: until then, an error can still become a status of its own."""
    try:
        first = await anext(pieces)
    except BaseException:
        await pieces.aclose()
        raise

    async def rest() -> AsyncGenerator[T]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return rest()


async def with_pauses(pieces: AsyncGenerator[T], quiet_s: float = QUIET_S) -> AsyncGenerator[T | None]:
    """`pieces`, and a None whenever none has come for so long."""
    async with aclosing(pieces):
        waiting = asyncio.ensure_future(anext(pieces, None))
        try:
            while True:
                done, _pending = await asyncio.wait({waiting}, timeout=quiet_s)
                if not done:
                    yield None
                    continue
                piece = waiting.result()
                if piece is None:
                    return
                yield piece
                waiting = asyncio.ensure_future(anext(pieces, None))
        finally:
            if not waiting.done():
                waiting.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await waiting


def streaming(chunks: AsyncIterator[bytes], media_type: str) -> StreamingResponse:
    return StreamingResponse(chunks, media_type=media_type, headers=HEADERS)
