"""POST /v1/completions: texts that are continued as they are, without a chat template."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from starlette.responses import JSONResponse, Response

from bendi.i18n import _
from bendi.messages import GenerateRequest, TokenLogprob
from bendi.server.answers import Whole, several, whole_answers
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.generation import Ask, Note, repeated
from bendi.server.openai_fields import (
    bendi_of,
    biases_of,
    build_of,
    failed_frame,
    finish_of,
    new_id,
    refuse_unknown,
    refused,
    sampling_of,
    stops_of,
    usage_of,
)
from bendi.server.openai_types import CompletionAnswer, CompletionBody
from bendi.server.pool import Wish
from bendi.server.sse import DONE, EventStream, frame

_MAX_TOKENS = 16
"""OpenAI's default for this endpoint."""
Prompt = str | tuple[int, ...]


async def _complete(call: Call) -> Response:
    body: CompletionBody = call.body
    _check(body)
    asks = [ask for prompt in prompts_of(body) for ask in repeated(_ask(body, prompt), body.n or 1)]
    if body.stream:
        return EventStream(_frames(call, body, asks), failed_frame)
    wholes = await whole_answers(call, asks)
    choices = [_choice(body, ask, index, whole) for index, (ask, whole) in enumerate(zip(asks, wholes, strict=True))]
    return JSONResponse(
        _head(call, body, wholes[0].note)
        | {"choices": choices, "usage": usage_of(wholes, body.n or 1), "bendi": bendi_of(wholes[0])}
    )


def _check(body: CompletionBody) -> None:
    refuse_unknown(body)
    if body.suffix:
        raise refused("suffix", _("This server cannot fill in before a suffix; send a prompt only."))
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise refused("best_of", _("Only best_of = n can be honoured: nothing is generated that is not sent."))
    if body.echo and not all(isinstance(prompt, str) for prompt in prompts_of(body)):
        raise refused("echo", _("echo needs prompts as text."))
    if body.echo and body.logprobs is not None:
        raise refused("echo", _("Log-probabilities of a prompt are not known; send echo without logprobs."))


def prompts_of(body: CompletionBody) -> list[Prompt]:
    """Each a text, or token numbers."""
    wanted = body.prompt
    if isinstance(wanted, str):
        return [wanted]
    if isinstance(wanted[0], int):
        return [tuple(wanted)]
    return [prompt if isinstance(prompt, str) else tuple(prompt) for prompt in cast(list[str | list[int]], wanted)]


def _ask(body: CompletionBody, prompt: Prompt) -> Ask:
    request = GenerateRequest(
        prompt=prompt,
        max_tokens=body.max_tokens or _MAX_TOKENS,
        stop=stops_of(body.stop),
        sampling=sampling_of(body),
        logprobs=body.logprobs,
        logit_bias=biases_of(body.logit_bias),
    )
    return Ask(Wish(body.model), request, policy=body.context_policy)


def _head(call: Call, body: CompletionBody, note: Note | None) -> dict[str, Any]:
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": build_of(note),
    }


def _choice(body: CompletionBody, ask: Ask, index: int, whole: Whole) -> dict[str, Any]:
    prompt = ask.request.prompt if body.echo else ""
    return {
        "index": index,
        "text": f"{prompt}{whole.text}",
        "logprobs": None if body.logprobs is None else _logprobs(whole.logprobs, 0),
        "finish_reason": finish_of(whole.finish),
    }


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """As completions write them. `offset`: characters of the answer before the first of these tokens."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.token: other.logprob for other in token.alternatives} for token in tokens],
        "text_offset": offsets,
    }


async def _frames(call: Call, body: CompletionBody, asks: Sequence[Ask]) -> AsyncGenerator[bytes, None]:
    wholes = [Whole() for _ask in asks]
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    sent = [0] * len(asks)
    begun: set[int] = set()
    head: dict[str, Any] = {}

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return frame(head | {"choices": choices} | ({"usage": None} if with_usage else {}) | more)

    async with aclosing(several(call, asks)) as events:
        async for index, item in events:
            whole = wholes[index]
            whole.add(item)
            if isinstance(item, Note):
                head = head or _head(call, body, item)
                continue
            text = item.text
            if body.echo and index not in begun:
                text = f"{asks[index].request.prompt}{text}"
            begun.add(index)
            if text or item.logprobs:
                logprobs = _logprobs(item.logprobs, sent[index]) if item.logprobs else None
                sent[index] += sum(len(token.token) for token in item.logprobs)
                yield event([{"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}])
            if item.finish:
                ended = {"index": index, "text": "", "logprobs": None, "finish_reason": finish_of(item.finish)}
                yield event([ended], bendi=bendi_of(whole))
    if with_usage:
        yield event([], usage=usage_of(wholes, body.n or 1))
    yield DONE


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/completions",
        handler=_complete,
        scope="infer",
        dialect="openai",
        summary="Texts, continued as they are.",
        body=CompletionBody,
        answer=CompletionAnswer,
        stream="sse",
        errors=MODEL_ERRORS,
    ),
)
