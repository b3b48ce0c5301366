"""Conversations that are kept, shared by the web page, programs and the terminal. Everybody sees their own only: those
of the key they use; without keys, those of whoever sits at this machine, which are those of `bendi session list`.

    GET    /api/bendi/sessions?limit=N            [session]
    GET    /api/bendi/sessions?search=WORDS       [session + {"role", "excerpt"}]
    POST   /api/bendi/sessions                    {"model", "persona", "system", "parameters"} -> session, status 201.
                                                  It is stored with its first message
    GET    /api/bendi/sessions/{id}?all=true      session, "messages" are [message]; `all`: also superseded ones
    GET    /api/bendi/sessions/{id}/export        the session as Markdown, to be saved as a file
    PATCH  /api/bendi/sessions/{id}               any of {"title", "model", "persona", "system", "parameters"}
                                                  -> session. null takes system or a parameter back to the persona's
    DELETE /api/bendi/sessions/{id}               {"deleted": [id]}, for good
    POST   /api/bendi/sessions/{id}/branch        {"before_position": N} -> a new session with the messages before it
    POST   /api/bendi/sessions/{id}/messages      asks, answers as events, see below
    GET    /api/bendi/sessions/{id}/images/{name}  the file of an image that one of its messages shows

    session: {"id", "title", "model", "persona", "created", "updated", "settings": {"system", "set": {name: value}},
              "messages": how many}
    message: {"role", "content", "images"?: [{"name"}], "reasoning"?, "tool_calls"?, "position",
              "kind": "turn" | "summary", "state": "complete" | "partial", "superseded", "created",
              "details": {"finish", "usage", "timings"}}

A question and the events of its answer: `session_answer`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from bendi.chat.branching import branch
from bendi.chat.export import session_markdown, session_record
from bendi.chat.kept_states import KeptStates
from bendi.chat.parameters import PARAMETERS, check_value
from bendi.chat.sessions import Session
from bendi.chat.setup import Setup
from bendi.errors import NotFoundError, UsageError
from bendi.formats.images import media_type
from bendi.i18n import _
from bendi.server.api_errors import ApiError, error_body
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.images import image_from_url
from bendi.server.session_answer import SessionQuestion, answer
from bendi.server.sse import EventStream, frame

_MOST_LISTED = 1000


class SessionsQuery(BaseModel):
    limit: int = Field(default=_MOST_LISTED, ge=1, le=_MOST_LISTED)
    search: str = Field(default="", max_length=1000)


class SessionQuery(BaseModel):
    """`all`: also the messages that were superseded."""

    all: bool = False


class SessionChange(BaseModel):
    """`system`, and every value of `parameters`: null for what the persona says."""

    title: str | None = Field(default=None, max_length=500)
    model: str | None = Field(default=None, min_length=1, max_length=2048)
    persona: str | None = Field(default=None, max_length=64)
    system: str | None = Field(default=None, max_length=1_000_000)
    parameters: dict[str, Any] = {}


class SessionBranch(BaseModel):
    before_position: int = Field(ge=1)


class SessionRecord(BaseModel):
    """`messages`: how many, or all of them."""

    id: str
    title: str
    model: str
    persona: str | None
    created: str
    updated: str
    settings: dict[str, Any]
    messages: int | list[dict[str, Any]]


class SessionFound(SessionRecord):
    """`role`, `excerpt`: of the message that has the words, where words were searched for."""

    role: str | None = None
    excerpt: str | None = None


class SessionsDeleted(BaseModel):
    deleted: list[str]


async def _list(call: Call) -> Response:
    sessions, owner = call.services.sessions, call.caller.owner
    query: SessionsQuery = call.query
    if query.search.strip():
        hits = await asyncio.to_thread(lambda: sessions.search(query.search, query.limit, owner=owner))
        return JSONResponse(
            [{**session_record(hit.session), "role": hit.role or None, "excerpt": hit.excerpt} for hit in hits]
        )
    found = await asyncio.to_thread(lambda: sessions.recent(query.limit, owner=owner))
    return JSONResponse([session_record(session) for session in found])


async def _create(call: Call) -> Response:
    body: SessionChange = call.body
    services = call.services
    persona = services.personas.get(body.persona) if body.persona else None
    model = body.model or (persona.model if persona else "")
    if not model:
        raise ApiError(400, _("The session needs a model."), code="invalid_request", param="model")
    settings: dict[str, Any] = {} if body.system is None else {"system": body.system}
    if chosen := _checked(body.parameters):
        settings["set"] = {name: value for name, value in chosen.items() if value is not None}
    session = services.sessions.create(
        model, persona=persona.name if persona else "", settings=settings, owner=call.caller.owner
    )
    if body.title:
        session = services.sessions.change(session.id, title=body.title)
    return JSONResponse(session_record(session), 201)


async def _show(call: Call) -> Response:
    session = await _owned(call)
    query: SessionQuery = call.query
    messages = await asyncio.to_thread(call.services.sessions.messages, session.id, superseded=query.all)
    return JSONResponse(session_record(session, messages))


async def _export(call: Call) -> Response:
    session = await _owned(call)
    messages = await asyncio.to_thread(call.services.sessions.messages, session.id)
    headers = {"Content-Disposition": f'attachment; filename="{session.id}.md"'}
    text = await asyncio.to_thread(session_markdown, session, messages, call.services.sessions.images)
    return Response(text, media_type="text/markdown; charset=utf-8", headers=headers)


async def _change(call: Call) -> Response:
    body: SessionChange = call.body
    session = await _owned(call)
    chosen = _checked(body.parameters)
    setup = Setup(call.services.sessions, session.id, call.services.personas)

    def write() -> Session:
        fields = {name: value for name in ("title", "model") if (value := getattr(body, name)) is not None}
        if fields:
            call.services.sessions.change(session.id, **fields)
        if body.persona is not None:
            setup.use_persona(body.persona)
        if "system" in body.model_fields_set:
            setup.set_system(body.system)
        for name, value in chosen.items():
            setup.set_parameter(name, value)
        return setup.session

    return JSONResponse(session_record(await asyncio.to_thread(write)))


async def _delete(call: Call) -> Response:
    services = call.services
    session = await _owned(call)

    def forget() -> None:
        services.sessions.delete([session.id])
        KeptStates(services.settings.kept_states_dir, services.settings.kept_states_bytes).forget([session.id])

    async with services.talking.alone(session.id):
        await asyncio.to_thread(forget)
    return JSONResponse({"deleted": [session.id]})


async def _branch(call: Call) -> Response:
    body: SessionBranch = call.body
    session = await _owned(call)
    new = await asyncio.to_thread(branch, call.services.sessions, session, body.before_position)
    return JSONResponse(session_record(new), 201)


async def _ask(call: Call) -> Response:
    body: SessionQuestion = call.body
    if body.retry == bool(body.text.strip() or body.images):
        raise ApiError(400, _("Send a text, or retry, and not both."), code="invalid_request", param="text")
    session = await _owned(call)
    images = await asyncio.to_thread(_images_of, body) if body.images else ()
    return EventStream(answer(call, session, images), lambda error: frame(error_body(error, "bendi"), "error"))


def _images_of(body: SessionQuestion) -> tuple[bytes, ...]:
    return tuple(image_from_url(text, f"images.{at}") for at, text in enumerate(body.images))


async def _image(call: Call) -> Response:
    session = await _owned(call)
    name = call.request.path_params["name"]
    messages = await asyncio.to_thread(call.services.sessions.messages, session.id, superseded=True)
    if not any(name in stored.images for stored in messages):
        raise ApiError(404, _("There is no such image."), code="image_not_found")
    image = await asyncio.to_thread(call.services.sessions.pictures.read, session.id, name)
    return Response(image, media_type=media_type(image))


async def _owned(call: Call) -> Session:
    """The session of the path. Of those of others nobody learns that they exist."""
    session_id = call.request.path_params["id"]
    try:
        session = await asyncio.to_thread(call.services.sessions.get, session_id)
    except NotFoundError:
        session = None
    if session is None or session.owner != call.caller.owner:
        raise ApiError(404, _("There is no such session."), code="session_not_found")
    return session


def _checked(parameters: dict[str, Any]) -> dict[str, Any]:
    """By name; None for what the persona says. Raises ApiError."""
    try:
        for name in parameters:
            if name not in PARAMETERS:
                check_value(name, None)
        return {name: None if value is None else check_value(name, value) for name, value in parameters.items()}
    except UsageError as error:
        message = f"{error.message} {error.hint}".strip()
        raise ApiError(400, message, code="invalid_request", param="parameters") from error


_UNSTORED = {507: "What is stored cannot be read or written: the disk may be full."}
_MISSING = {404: "There is no such session, or it belongs to somebody else.", **_UNSTORED}
_BUSY = {409: "An answer is being written in it."}
_AT = "/api/bendi/sessions"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET",
        path=_AT,
        handler=_list,
        scope="infer",
        dialect="bendi",
        summary="One's sessions, the one used last first; or those with some words.",
        answer=list[SessionFound],
        query=SessionsQuery,
        errors=_UNSTORED,
    ),
    Endpoint(
        method="POST",
        path=_AT,
        handler=_create,
        scope="infer",
        dialect="bendi",
        summary="Begins a session. It is stored with its first message.",
        body=SessionChange,
        answer=SessionRecord,
        status=201,
        errors={404: "There is no such persona.", **_UNSTORED},
    ),
    Endpoint(
        method="GET",
        path=f"{_AT}/{{id}}",
        handler=_show,
        scope="infer",
        dialect="bendi",
        summary="A session with its messages.",
        answer=SessionRecord,
        errors=_MISSING,
        query=SessionQuery,
    ),
    Endpoint(
        method="GET",
        path=f"{_AT}/{{id}}/export",
        handler=_export,
        scope="infer",
        dialect="bendi",
        summary="A session as Markdown.",
        errors=_MISSING,
        media_types=("text/markdown",),
    ),
    Endpoint(
        method="GET",
        path=f"{_AT}/{{id}}/images/{{name}}",
        handler=_image,
        scope="infer",
        dialect="bendi",
        summary="An image that was shown in a session.",
        errors={**_MISSING, 404: "There is no such session or image, or it belongs to somebody else."},
        media_types=("image/png", "image/jpeg", "image/gif", "image/bmp"),
    ),
    Endpoint(
        method="PATCH",
        path=f"{_AT}/{{id}}",
        handler=_change,
        scope="infer",
        dialect="bendi",
        summary="Changes title, model, persona, system prompt or parameters.",
        body=SessionChange,
        answer=SessionRecord,
        errors=_MISSING,
    ),
    Endpoint(
        method="DELETE",
        path=f"{_AT}/{{id}}",
        handler=_delete,
        scope="infer",
        dialect="bendi",
        summary="Deletes a session for good.",
        answer=SessionsDeleted,
        errors={**_MISSING, **_BUSY},
    ),
    Endpoint(
        method="POST",
        path=f"{_AT}/{{id}}/branch",
        handler=_branch,
        scope="infer",
        dialect="bendi",
        summary="A new session that begins as this one did.",
        body=SessionBranch,
        answer=SessionRecord,
        status=201,
        errors=_MISSING,
    ),
    Endpoint(
        method="POST",
        path=f"{_AT}/{{id}}/messages",
        handler=_ask,
        scope="infer",
        dialect="bendi",
        summary="Asks in a session; the answer comes as events and is stored.",
        body=SessionQuestion,
        stream="sse",
        errors={**MODEL_ERRORS, 404: "There is no such session, or its model is not here any more.", **_BUSY},
    ),
)
