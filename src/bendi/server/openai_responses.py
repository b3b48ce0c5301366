"""/v1/responses: answers that go on from one another by their ids, and what is kept of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response

from bendi.errors import DataError, NotFoundError
from bendi.i18n import _
from bendi.server.answers import Whole
from bendi.server.api_errors import ApiError
from bendi.server.counting import prompt_tok
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.generation import Ask, Note, answer
from bendi.server.openai_fields import new_id
from bendi.server.openai_response_events import Event, ResponseWriter
from bendi.server.openai_response_items import ask_of, input_items, wants_logprobs
from bendi.server.openai_response_types import Deleted, ItemList, ItemsQuery, ResponseAnswer, ResponseBody
from bendi.server.openai_types import InputTokens
from bendi.server.sse import EventStream, frame
from bendi.server.stored_answers import StoredAnswer

T = TypeVar("T")
Items = list[dict[str, Any]]


async def _create(call: Call) -> Response:
    body: ResponseBody = call.body
    own = input_items(body)
    earlier = await _earlier(call, body.previous_response_id)
    ask = ask_of(body, [*earlier, *own])
    writer = ResponseWriter(_head(body), wants_logprobs(body))
    events = _events(call, ask, writer, own)
    if body.stream:

        def failed(error: ApiError) -> bytes:
            return _frame(writer.failed(error))

        return EventStream(_frames(events), failed)
    async with aclosing(events):
        async for _event in events:
            pass
    return JSONResponse(writer.response)


async def _earlier(call: Call, previous_id: str | None) -> Items:
    """What was said before: of every earlier answer its input and its output."""
    if previous_id is None:
        return []
    links = await _known(call.services.stored.chain, call.caller.owner, previous_id)
    return [dict(item) for link in links for item in (*link.input, *link.answer["output"])]


async def _events(call: Call, ask: Ask, writer: ResponseWriter, own: Items) -> AsyncGenerator[Event, None]:
    whole = Whole()
    async with aclosing(answer(call, ask)) as parts:
        async for part in parts:
            whole.add(part)
            for event in writer.begin() if isinstance(part, Note) else writer.add(part):
                yield event
    for event in writer.end(whole):
        yield event
    await _store(call, writer.response, own)
    yield writer.ended()


async def _store(call: Call, response: dict[str, Any], own: Items) -> None:
    """Before the client is told that the answer is complete. What could not be stored is told, the answer not lost."""
    if not response["store"]:
        return
    stored = StoredAnswer(response["id"], response["previous_response_id"] or "", own, response)
    try:
        await asyncio.to_thread(call.services.stored.put, call.caller.owner, stored)
    except DataError as error:
        response["store"] = False
        response["bendi"]["store_error"] = error.message


async def _frames(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield _frame(event)


def _frame(event: Event) -> bytes:
    return frame(event, event["type"])


def _head(body: ResponseBody) -> dict[str, Any]:
    """What the answer repeats of the request."""
    asked = body.model_dump(include={"text", "tools", "tool_choice"}, exclude_none=True, by_alias=True)
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": body.store is not False,
        "background": False,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": {"format": {"type": "text"}} | asked.get("text", {}),
        "tools": asked.get("tools", []),
        "tool_choice": asked.get("tool_choice", "auto"),
        "truncation": body.truncation or "disabled",
        "usage": None,
        "metadata": body.metadata or {},
        "bendi": None,
    }


async def _count(call: Call) -> Response:
    body: ResponseBody = call.body
    items = [*await _earlier(call, body.previous_response_id), *input_items(body)]
    count = await prompt_tok(call, body.model, ask_of(body, items).request)
    return JSONResponse(InputTokens(input_tokens=count).model_dump())


async def _show(call: Call) -> Response:
    return JSONResponse((await _stored(call)).answer)


async def _delete(call: Call) -> Response:
    wanted = call.request.path_params["id"]
    await _known(call.services.stored.delete, call.caller.owner, wanted)
    return JSONResponse({"id": wanted, "object": "response", "deleted": True})


async def _cancel(call: Call) -> Response:
    await _stored(call)
    raise ApiError(
        400,
        _("Only answers that are written in the background can be cancelled. Close the connection of one that runs."),
        code="not_cancellable",
    )


async def _items(call: Call) -> Response:
    query: ItemsQuery = call.query
    items: Sequence[Mapping[str, Any]] = (await _stored(call)).input
    if query.order == "desc":
        items = items[::-1]
    if query.after is not None:
        ids = [item["id"] for item in items]
        if query.after not in ids:
            raise ApiError(400, _("There is no such item in this answer."), code="invalid_request", param="after")
        items = items[ids.index(query.after) + 1 :]
    page = items[: query.limit]
    return JSONResponse(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(items) > len(page),
        }
    )


async def _stored(call: Call) -> StoredAnswer:
    """Of this caller only."""
    return await _known(call.services.stored.get, call.caller.owner, call.request.path_params["id"])


async def _known(work: Callable[[str, str], T], owner: str, answer_id: str) -> T:
    """What `work` finds, in a thread. Raises ApiError 404, the same for what never was and what is somebody else's."""
    try:
        return await asyncio.to_thread(work, owner, answer_id)
    except NotFoundError as error:
        raise ApiError(404, f"{error.message} {error.hint}", code="response_not_found") from error


_GONE = {
    404: "There is no such answer, or it is somebody else's.",
    507: "What is stored cannot be read or written: the disk may be full.",
}
_ASK_ERRORS = {**MODEL_ERRORS, 404: "There is no such model, or no such earlier answer."}
ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/responses",
        handler=_create,
        scope="infer",
        dialect="openai",
        summary="An answer, which may go on from a stored one.",
        body=ResponseBody,
        answer=ResponseAnswer,
        stream="sse",
        errors=_ASK_ERRORS,
    ),
    Endpoint(
        method="POST",
        path="/v1/responses/input_tokens",
        handler=_count,
        scope="infer",
        dialect="openai",
        summary="How many tokens the prompt of an answer has, exactly.",
        body=ResponseBody,
        answer=InputTokens,
        errors=_ASK_ERRORS,
    ),
    Endpoint(
        method="GET",
        path="/v1/responses/{id}",
        handler=_show,
        scope="infer",
        dialect="openai",
        summary="A stored answer.",
        answer=ResponseAnswer,
        errors=_GONE,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/responses/{id}",
        handler=_delete,
        scope="infer",
        dialect="openai",
        summary="Deletes a stored answer for good.",
        answer=Deleted,
        errors=_GONE,
    ),
    Endpoint(
        method="POST",
        path="/v1/responses/{id}/cancel",
        handler=_cancel,
        scope="infer",
        dialect="openai",
        summary="Refused: no answer is written in the background.",
        status=400,
        errors={400: "The answer is not written in the background.", **_GONE},
    ),
    Endpoint(
        method="GET",
        path="/v1/responses/{id}/input_items",
        handler=_items,
        scope="infer",
        dialect="openai",
        summary="The items that a stored answer answered.",
        query=ItemsQuery,
        answer=ItemList,
        errors=_GONE,
    ),
)
