"""POST /v1/chat/completions, and how long its prompt would be."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse, Response

from bendi.i18n import _
from bendi.messages import Chunk, GenerateRequest, Message, ToolCall, ToolDelta
from bendi.server.answers import Whole, several, whole_answers
from bendi.server.counting import prompt_tok
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.generation import Ask, Note, repeated
from bendi.server.images import MAX_IMAGES, image_from_url
from bendi.server.openai_fields import (
    bendi_of,
    biases_of,
    build_of,
    checked_schema,
    failed_frame,
    finish_of,
    logprobs_of,
    new_id,
    refuse_unknown,
    refused,
    sampling_of,
    stops_of,
    template_options_of,
    usage_of,
)
from bendi.server.openai_tools import tools_of
from bendi.server.openai_types import (
    ChatAnswer,
    ChatBody,
    ChatMessage,
    ImagePart,
    InputTokens,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    TextPart,
)
from bendi.server.pool import Wish
from bendi.server.sse import DONE, EventStream, frame


async def _chat(call: Call) -> Response:
    body: ChatBody = call.body
    asks = asks_of(body)
    if body.stream:
        return EventStream(_frames(call, body, asks), failed_frame)
    wholes = await whole_answers(call, asks)
    with_logprobs = bool(body.logprobs)
    return JSONResponse(
        _head(call, body, "chat.completion", wholes[0].note)
        | {
            "choices": [_choice(index, whole, with_logprobs) for index, whole in enumerate(wholes)],
            "usage": usage_of(wholes, len(wholes)),
            "bendi": bendi_of(wholes[0]),
        }
    )


def asks_of(body: ChatBody) -> list[Ask]:
    """One for each answer that is wanted. Raises ApiError for what cannot be honoured."""
    refuse_unknown(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise refused("top_logprobs", _("top_logprobs needs logprobs: true."))
    tools, choice = tools_of(body.tools or (), body.tool_choice)
    messages, schema = messages_of(body.messages), schema_of(body.response_format)
    options = template_options_of(body.reasoning_effort, body.chat_template_kwargs)
    logprobs, biases = (body.top_logprobs or 0) if body.logprobs else None, biases_of(body.logit_bias)
    ask = Ask(
        Wish(body.model),
        GenerateRequest(
            messages=messages,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            stop=stops_of(body.stop),
            sampling=sampling_of(body),
            json_schema=schema,
            tools=tools,
            tool_choice=choice,
            template_options=options,
            logprobs=logprobs,
            logit_bias=biases,
            parallel_tool_calls=body.parallel_tool_calls if tools else None,
        ),
        policy=body.context_policy,
    )
    return repeated(ask, body.n or 1)


def messages_of(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Raises ApiError, naming the message, for one that no model could be given."""
    turns = tuple(_message(message, f"messages.{at}") for at, message in enumerate(messages))
    if sum(len(turn.images) for turn in turns) > MAX_IMAGES:
        raise refused("messages", _("A request may have {count} images at most.").format(count=MAX_IMAGES))
    return turns


def _message(message: ChatMessage, place: str) -> Message:
    if message.role == "tool" and not message.tool_call_id:
        raise refused(f"{place}.tool_call_id", _("A message of a tool says which call it answers: tool_call_id."))
    if message.tool_calls and message.role != "assistant":
        raise refused(f"{place}.tool_calls", _("Only the assistant calls tools."))
    if message.content is None and message.role != "assistant":
        raise refused(f"{place}.content", _("The message has no content."))
    parts = message.content if isinstance(message.content, list) else []
    images = [
        image_from_url(part.image_url.url, f"{place}.content.{at}.image_url")
        for at, part in enumerate(parts)
        if isinstance(part, ImagePart)
    ]
    if images and message.role != "user":
        raise refused(f"{place}.content", _("Only the user shows images."))
    text = message.content if isinstance(message.content, str) else "\n".join(_texts(message))
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=text or "",
        reasoning=message.reasoning_content or "" if message.role == "assistant" else "",
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id or "" if message.role == "tool" else "",
        images=tuple(images),
    )


def _texts(message: ChatMessage) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    return [
        part.text if isinstance(part, TextPart) else part.refusal for part in parts if not isinstance(part, ImagePart)
    ]


def schema_of(wanted: ResponseFormat | None) -> Mapping[str, Any] | None:
    if isinstance(wanted, JsonObjectFormat):
        return checked_schema(wanted.schema_, "response_format.schema") or {"type": "object"}
    if isinstance(wanted, JsonSchemaFormat):
        return checked_schema(wanted.json_schema.schema_, "response_format.json_schema.schema") or {"type": "object"}
    return None


def _head(call: Call, body: ChatBody, kind: str, note: Note | None) -> dict[str, Any]:
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": build_of(note),
    }


def _choice(index: int, whole: Whole, with_logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": whole.text, "refusal": None}
    if whole.reasoning:
        message["reasoning_content"] = whole.reasoning
    if whole.tool_calls:
        message["content"] = whole.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in whole.tool_calls
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_of(whole.logprobs) if with_logprobs else None,
        "finish_reason": finish_of(whole.finish),
    }


async def _count(call: Call) -> Response:
    body: ChatBody = call.body
    count = await prompt_tok(call, body.model, asks_of(body)[0].request)
    return JSONResponse(InputTokens(input_tokens=count).model_dump())


async def _frames(call: Call, body: ChatBody, asks: Sequence[Ask]) -> AsyncGenerator[bytes, None]:
    """The series of events that OpenAI sends: for each answer its role, pieces, and why it ended; at last the usage."""
    wholes = [Whole() for _ask in asks]
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    head: dict[str, Any] = {}
    begun: set[int] = set()

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return frame(head | {"choices": choices} | ({"usage": None} if with_usage else {}) | more)

    async with aclosing(several(call, asks)) as events:
        async for index, item in events:
            whole = wholes[index]
            whole.add(item)
            if isinstance(item, Note):
                head = head or _head(call, body, "chat.completion.chunk", item)
                continue
            if index not in begun:
                begun.add(index)
                yield event([_delta(index, {"role": "assistant", "content": "", "refusal": None})])
            if delta := _piece(item):
                logprobs = logprobs_of(item.logprobs) if item.logprobs else None
                yield event([_delta(index, delta) | {"logprobs": logprobs}])
            if item.finish:
                ended = {"finish_reason": finish_of(item.finish)}
                yield event([_delta(index, {}) | ended], bendi=bendi_of(whole))
    if with_usage:
        yield event([], usage=usage_of(wholes, len(wholes)))
    yield DONE


def _delta(index: int, delta: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _piece(chunk: Chunk) -> dict[str, Any]:
    """The delta for all that a chunk brings; empty for a chunk that only tells of progress."""
    delta: dict[str, Any] = {}
    if chunk.text or chunk.logprobs:
        delta["content"] = chunk.text
    if chunk.reasoning:
        delta["reasoning_content"] = chunk.reasoning
    if chunk.tool_deltas:
        delta["tool_calls"] = [_call_piece(piece) for piece in chunk.tool_deltas]
    return delta


def _call_piece(piece: ToolDelta) -> dict[str, Any]:
    function = {"arguments": piece.arguments} | ({"name": piece.name} if piece.name else {})
    return {"index": piece.index, "function": function} | ({"id": piece.id, "type": "function"} if piece.id else {})


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/chat/completions",
        handler=_chat,
        scope="infer",
        dialect="openai",
        summary="The answer to a conversation.",
        body=ChatBody,
        answer=ChatAnswer,
        stream="sse",
        errors=MODEL_ERRORS,
    ),
    Endpoint(
        method="POST",
        path="/v1/chat/completions/input_tokens",
        handler=_count,
        scope="infer",
        dialect="openai",
        summary="How many tokens the prompt of a conversation has, exactly.",
        body=ChatBody,
        answer=InputTokens,
        errors=MODEL_ERRORS,
    ),
)
