"""POST /api/generate and /api/chat, as Ollama's clients know them. docs/ollama.md compares field by field."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from bendi.i18n import _
from bendi.messages import Chunk, Timings, TokenLogprob, ToolCall, Usage
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.generation import Ask, Note, answer
from bendi.server.model_facts import known_facts
from bendi.server.ndjson import line, line_stream
from bendi.server.ollama_requests import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaRequest,
    chat_ask,
    generate_ask,
    wish_of,
)
from bendi.server.pool import Wish

_NS = 1_000_000_000
DoneReason = Literal["stop", "length", "load", "unload"]


class OllamaAnswer(BaseModel):
    """Durations are in ns. `context_policy`, `dropped_messages`: only where something was left out of the prompt
    because the request allowed it."""

    model: str
    created_at: str
    done: bool
    done_reason: DoneReason | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    context_policy: str | None = None
    dropped_messages: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaGenerateAnswer(OllamaAnswer):
    response: str
    thinking: str | None = None


class OllamaChatAnswer(OllamaAnswer):
    message: OllamaMessage


@dataclass
class _Shape:
    """Writes pieces the way one of the two endpoints does. `chat`: whether as messages."""

    model: str
    chat: bool

    def piece(
        self, text: str = "", thinking: str = "", calls: Sequence[ToolCall] = (), rest: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"thinking": thinking} if thinking else {}
        if self.chat:
            message: dict[str, Any] = {"role": "assistant", "content": text, **said}
            if calls:
                message["tool_calls"] = [_call_record(at, call) for at, call in enumerate(calls)]
            said = {"message": message}
        else:
            said = {"response": text, **said}
        return {"model": self.model, "created_at": _now(), **said, "done": False, **(rest or {})}


@dataclass
class _Collected:
    """An answer that is sent at once."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


async def _generate(call: Call) -> Response:
    body: OllamaGenerateRequest = call.body
    shape = _Shape(body.model, chat=False)
    if not body.prompt and not body.images:
        return await _load_only(call, body, shape)
    return await _respond(call, body, generate_ask(body), shape)


async def _chat(call: Call) -> Response:
    body: OllamaChatRequest = call.body
    shape = _Shape(body.model, chat=True)
    if not body.messages:
        return await _load_only(call, body, shape)
    return await _respond(call, body, chat_ask(body), shape)


async def _load_only(call: Call, body: OllamaRequest, shape: _Shape) -> Response:
    """A request without a question loads the model, or with `keep_alive` 0 lets go of it once nobody uses it."""
    wish = replace(wish_of(body), session=None)
    reason: DoneReason = "load"
    if wish.keep_alive_s == 0:
        reason = "unload"
        model = await call.services.pool.model_of(wish)
        if not any(loaded.path == str(model.path) for loaded in call.services.pool.loaded()):
            return JSONResponse(shape.piece(rest={"done": True, "done_reason": reason}))
    async with call.services.pool.lease(wish):
        pass
    return JSONResponse(shape.piece(rest={"done": True, "done_reason": reason}))


async def _respond(call: Call, body: OllamaRequest, ask: Ask, shape: _Shape) -> Response:
    if body.think and not await _can_think(call, ask.wish):
        # Without the word "thinking" in it, clients do not know that they may ask again without.
        raise ApiError(400, _("{model} does not support thinking").format(model=body.model), param="think")
    if body.stream is not False:
        return line_stream(_lines(call, ask, shape))
    collected, last = _Collected(), dict[str, Any]()
    async with aclosing(_pieces(call, ask)) as pieces:
        async for piece in pieces:
            if isinstance(piece, dict):
                last = piece
                continue
            collected.text.append(piece.text)
            collected.thinking.append(piece.reasoning)
            collected.calls += piece.tool_calls
            collected.logprobs += _logprobs(piece.logprobs)
    if collected.logprobs:
        last["logprobs"] = collected.logprobs
    return JSONResponse(shape.piece("".join(collected.text), "".join(collected.thinking), collected.calls, last))


async def _lines(call: Call, ask: Ask, shape: _Shape) -> AsyncGenerator[bytes, None]:
    async with aclosing(_pieces(call, ask)) as pieces:
        async for piece in pieces:
            if isinstance(piece, dict):
                yield line(shape.piece(rest=piece))
                continue
            rest = {"logprobs": _logprobs(piece.logprobs)} if piece.logprobs else None
            yield line(shape.piece(piece.text, piece.reasoning, piece.tool_calls, rest))


async def _pieces(call: Call, ask: Ask) -> AsyncGenerator[Chunk | dict[str, Any], None]:
    """The chunks that say something, and at the end the fields of the last line."""
    started_s = time.monotonic()
    note = Note(ask.wish.model, "", 0)
    async with aclosing(answer(call, ask)) as events:
        async for event in events:
            if isinstance(event, Note):
                note = event
                continue
            if event.tool_calls:
                calls, broken = _whole_calls(event.tool_calls)
                yield Chunk(text=broken, tool_calls=calls)
            elif event.text or event.reasoning:
                yield event
            if event.finish:
                yield _ending(event, note, time.monotonic() - started_s)


def _ending(last: Chunk, note: Note, total_s: float) -> dict[str, Any]:
    usage, timings = last.usage or Usage(0, 0), last.timings or Timings()
    computed_tok = usage.prompt_tok - usage.cached_tok
    prompt_s = computed_tok / timings.pp_tok_s if timings.pp_tok_s else timings.ttft_s or 0.0
    answer_s = usage.completion_tok / timings.tg_tok_s if timings.tg_tok_s else 0.0
    ending: dict[str, Any] = {
        "done": True,
        "done_reason": "length" if last.finish == "length" else "stop",
        "total_duration": int(total_s * _NS),
        "load_duration": int(note.load_s * _NS),
        "prompt_eval_count": usage.prompt_tok,
        "prompt_eval_duration": int(prompt_s * _NS),
        "eval_count": usage.completion_tok,
        "eval_duration": int(answer_s * _NS),
    }
    if note.policy_applied:
        ending |= {"context_policy": note.policy_applied, "dropped_messages": note.dropped}
    return ending


def _whole_calls(calls: Sequence[ToolCall]) -> tuple[tuple[ToolCall, ...], str]:
    """The calls whose arguments are an object, and the others (the model was cut off in them) as it wrote them."""
    whole, broken = [], []
    for call in calls:
        try:
            parsed = json.loads(call.arguments or "{}")
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            whole.append(replace(call, arguments=json.dumps(parsed)))
        else:
            broken.append(f"{call.name}({call.arguments}")
    return tuple(whole), "\n".join(broken)


def _call_record(index: int, call: ToolCall) -> dict[str, Any]:
    function = {"index": index, "name": call.name, "arguments": json.loads(call.arguments)}
    return {"id": call.id, "function": function} if call.id else {"function": function}


def _logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [_logprob(token) | {"top_logprobs": [_logprob(other) for other in token.alternatives]} for token in tokens]


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.token_bytes)}


async def _can_think(call: Call, wish: Wish) -> bool:
    """Also True where nobody can tell: then the engine is asked."""
    model = await call.services.pool.model_of(wish)
    facts = await asyncio.to_thread(known_facts, model, call.services.settings)
    return facts is None or "thinking" in facts.capabilities


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="POST",
        path="/api/generate",
        handler=_generate,
        scope="infer",
        dialect="ollama",
        summary="Continues a prompt. Without a prompt: loads the model, or lets go of it (keep_alive 0).",
        body=OllamaGenerateRequest,
        answer=OllamaGenerateAnswer,
        stream="ndjson",
        errors=MODEL_ERRORS,
    ),
    Endpoint(
        method="POST",
        path="/api/chat",
        handler=_chat,
        scope="infer",
        dialect="ollama",
        summary="Answers a conversation. Without messages: loads the model, or lets go of it (keep_alive 0).",
        body=OllamaChatRequest,
        answer=OllamaChatAnswer,
        stream="ndjson",
        errors=MODEL_ERRORS,
    ),
)
