"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients know them.

A streamed answer is a series of events: `message_start`, then each block as `content_block_start`, deltas and
`content_block_stop`, then `message_delta` with the reason of the end and the usage, and `message_stop`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from bendi.messages import Chunk, ToolDelta, Usage
from bendi.server.answers import whole_answers
from bendi.server.anthropic_requests import AnthropicCount, AnthropicRequest, ask_of, prompt_of
from bendi.server.api_errors import ApiError, error_body
from bendi.server.counting import prompt_tok
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.generation import Ask, Note, answer
from bendi.server.sse import EventStream, frame

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
BlockKind = Literal["text", "thinking", "tool_use"]


class AnthropicUsage(BaseModel):
    """`cache_read_input_tokens`: of the prompt, not computed again; `input_tokens`: the rest of it."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicAnswer(BaseModel):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: AnthropicUsage


class AnthropicTokens(BaseModel):
    input_tokens: int


async def _messages(call: Call) -> Response:
    body: AnthropicRequest = call.body
    ask = ask_of(body)
    if body.stream:
        ping = frame({"type": "ping"}, "ping")
        return EventStream(_events(call, ask), _failed, ping)
    (whole,) = await whole_answers(call, [ask])
    content: list[dict[str, Any]] = []
    if whole.reasoning:
        content.append({"type": "thinking", "thinking": whole.reasoning, "signature": ""})
    if whole.text:
        content.append({"type": "text", "text": whole.text})
    for tool_call in whole.tool_calls:
        arguments = _arguments(tool_call.arguments)
        content.append(
            {"type": "tool_use", "id": tool_call.id or _new_id("toolu"), "name": tool_call.name, "input": arguments}
        )
    last = Chunk(finish=whole.finish, usage=whole.usage, stopped_by=whole.stopped_by)
    message = AnthropicAnswer(
        id=_new_id("msg"),
        model=body.model,
        content=content,
        stop_reason=_stop_reason(last, ask),
        stop_sequence=whole.stopped_by or None,
        usage=_usage(whole.usage),
    )
    return JSONResponse(message.model_dump())


async def _events(call: Call, ask: Ask) -> AsyncGenerator[bytes, None]:
    """The frames of a streamed answer. The first waits for the engine's first sign, which tells the prompt's length."""
    ask = replace(ask, request=replace(ask.request, progress=True))
    writer = _Writer()
    begun = False
    async with aclosing(answer(call, ask)) as parts:
        async for part in parts:
            if isinstance(part, Note):
                continue
            if not begun:
                begun = True
                for piece in _start(ask.wish.model, part):
                    yield piece
            for piece in writer.chunk(part):
                yield piece
            if part.finish:
                for piece in _end(part, ask):
                    yield piece


def _start(model: str, first: Chunk) -> Iterator[bytes]:
    progress = first.progress
    usage = Usage(progress.total_tok, 0, progress.cached_tok) if progress else first.usage or Usage(0, 0)
    message = AnthropicAnswer(
        id=_new_id("msg"),
        model=model,
        content=[],
        stop_reason=None,
        stop_sequence=None,
        usage=_usage(usage, answer_tok=0),
    )
    yield _event("message_start", message=message.model_dump())
    yield _event("ping")


def _end(last: Chunk, ask: Ask) -> Iterator[bytes]:
    delta = {"stop_reason": _stop_reason(last, ask), "stop_sequence": last.stopped_by or None}
    yield _event("message_delta", delta=delta, usage=_usage(last.usage or Usage(0, 0)).model_dump())
    yield _event("message_stop")


@dataclass
class _Writer:
    """Chunks to blocks. `index`: of the block that is open or comes next; `kind`: of the open one, empty for none;
    `calls`: the calls of tools that have been begun, in order."""

    index: int = 0
    kind: BlockKind | Literal[""] = ""
    calls: list[int] = field(default_factory=list)

    def chunk(self, chunk: Chunk) -> Iterator[bytes]:
        if chunk.reasoning:
            yield from self._open("thinking", {"thinking": "", "signature": ""})
            yield self._delta("thinking_delta", thinking=chunk.reasoning)
        if chunk.text:
            yield from self._open("text", {"text": ""})
            yield self._delta("text_delta", text=chunk.text)
        for delta in chunk.tool_deltas:
            yield from self._tool(delta)
        if chunk.finish:
            for at, call in enumerate(chunk.tool_calls):
                if at not in self.calls:  # an engine that does not tell calls as they come
                    yield from self._tool(ToolDelta(at, call.id, call.name, call.arguments))
            yield from self._close()

    def _tool(self, delta: ToolDelta) -> Iterator[bytes]:
        if delta.index not in self.calls:
            self.calls.append(delta.index)
            yield from self._close()
            facts = {"id": delta.id or _new_id("toolu"), "name": delta.name, "input": {}}
            yield from self._open("tool_use", facts)
        if delta.arguments:
            yield self._delta("input_json_delta", partial_json=delta.arguments)

    def _open(self, kind: BlockKind, facts: dict[str, Any]) -> Iterator[bytes]:
        if self.kind == kind:
            return
        yield from self._close()
        self.kind = kind
        yield _event("content_block_start", index=self.index, content_block={"type": kind, **facts})

    def _close(self) -> Iterator[bytes]:
        if self.kind:
            yield _event("content_block_stop", index=self.index)
            self.kind = ""
            self.index += 1

    def _delta(self, kind: str, **facts: str) -> bytes:
        return _event("content_block_delta", index=self.index, delta={"type": kind, **facts})


def _event(kind: str, **facts: Any) -> bytes:
    return frame({"type": kind, **facts}, kind)


def _failed(error: ApiError) -> bytes:
    return frame(error_body(error, "anthropic"), "error")


def _stop_reason(last: Chunk, ask: Ask) -> StopReason:
    if last.finish == "tool_calls":
        return "tool_use"
    if last.finish == "length":
        asked_tok = ask.request.max_tokens
        short = last.usage is not None and asked_tok is not None and last.usage.completion_tok < asked_tok
        return "model_context_window_exceeded" if short else "max_tokens"
    return "stop_sequence" if last.stopped_by else "end_turn"


def _usage(usage: Usage, answer_tok: int | None = None) -> AnthropicUsage:
    return AnthropicUsage(
        input_tokens=usage.prompt_tok - usage.cached_tok,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=usage.cached_tok,
        output_tokens=usage.completion_tok if answer_tok is None else answer_tok,
    )


def _arguments(text: str) -> dict[str, Any]:
    """An object, as clients expect it. What was cut off in the middle stays readable under a name of its own."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"unfinished_json": text}


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


async def _count_tokens(call: Call) -> Response:
    body: AnthropicCount = call.body
    return JSONResponse({"input_tokens": await prompt_tok(call, body.model, prompt_of(body))})


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="POST",
        path="/v1/messages",
        handler=_messages,
        scope="infer",
        dialect="anthropic",
        summary="Answers a conversation, with text, thinking and calls of tools.",
        body=AnthropicRequest,
        answer=AnthropicAnswer,
        stream="sse",
        errors=MODEL_ERRORS,
    ),
    Endpoint(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=_count_tokens,
        scope="infer",
        dialect="anthropic",
        summary="How many tokens a request would have, exactly.",
        body=AnthropicCount,
        answer=AnthropicTokens,
        errors=MODEL_ERRORS,
    ),
)
