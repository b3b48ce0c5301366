"""The simplest dialect there could be: an endpoint that shows what `generation` makes of a request."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response, StreamingResponse

from bendi.messages import Chunk, GenerateRequest, Message, Sampling
from bendi.server.answers import Whole
from bendi.server.endpoint import Call, Endpoint
from bendi.server.generation import Ask, Note, answer, repeated
from bendi.server.pool import Wish
from bendi.server.sse import merged


class Question(BaseModel):
    model: str = "demo"
    messages: list[dict[str, str]] = []
    prompt: str | None = None
    max_tokens: int | None = None
    ignore_end: bool = False
    seed: int | None = None
    temperature: float | None = None
    context_tok: int | None = None
    policy: Literal["error", "grow", "compact", "slide"] | None = None
    stream: bool = False
    n: int = 1


def _ask(body: Question) -> Ask:
    request = GenerateRequest(
        messages=tuple(Message(**message) for message in body.messages),  # type: ignore[arg-type]
        prompt=body.prompt,
        max_tokens=body.max_tokens,
        ignore_end=body.ignore_end,
        sampling=Sampling(seed=body.seed, temperature=body.temperature),
    )
    return Ask(Wish(body.model, context_tok=body.context_tok), request, body.policy)


async def _answer(call: Call) -> Response:
    body: Question = call.body
    if body.n > 1:
        texts = [""] * body.n
        sources = [answer(call, ask) for ask in repeated(_ask(body), body.n)]
        async with aclosing(merged(sources)) as together:
            async for index, part in together:
                if isinstance(part, Chunk):
                    texts[index] += part.text
        return JSONResponse({"texts": texts})
    parts = answer(call, _ask(body))
    if not body.stream:
        return JSONResponse(await _whole(parts))
    first = await anext(parts)
    assert isinstance(first, Note)
    return StreamingResponse(_lines(first, parts), media_type="application/x-ndjson")


async def _whole(parts: AsyncGenerator[Note | Chunk, None]) -> dict[str, Any]:
    whole = Whole()
    async with aclosing(parts):
        async for part in parts:
            whole.add(part)
    assert whole.note and whole.last and whole.last.timings
    return {
        "note": asdict(whole.note),
        "text": whole.text,
        "finish": whole.finish,
        "usage": asdict(whole.usage),
        "timings": asdict(whole.last.timings),
    }


async def _lines(first: Note, parts: AsyncGenerator[Note | Chunk, None]) -> AsyncIterator[str]:
    async with aclosing(parts):
        yield _line(asdict(first))
        async for part in parts:
            assert isinstance(part, Chunk)
            yield _line({"text": part.text, "finish": part.finish})


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value) + "\n"


ENDPOINTS = (Endpoint("POST", "/answer", _answer, "infer", "bendi", "An answer.", body=Question, stream="ndjson"),)
