"""GET /v1/models and /v1/models/{id}: which models can be asked, as OpenAI's clients list them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from bendi.errors import NotFoundError
from bendi.i18n import _
from bendi.server.endpoint import Call, Endpoint
from bendi.store import Store
from bendi.store.catalogue import DEMO


class ModelEntry(BaseModel):
    """`created`: when the file was last changed, in seconds since 1970. `owned_by`: which program brought it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


async def _list(call: Call) -> Response:
    entries = await asyncio.to_thread(_entries, call.services.store)
    return JSONResponse(ModelList(data=entries).model_dump())


async def _show(call: Call) -> Response:
    wanted = call.request.path_params["model"]
    for entry in await asyncio.to_thread(_entries, call.services.store):
        if entry.id == wanted:
            return JSONResponse(entry.model_dump())
    raise NotFoundError(
        _("There is no model {name!r} on this machine.").format(name=wanted[:200]), hint=_("GET /v1/models lists them.")
    )


def _entries(store: Store) -> list[ModelEntry]:
    """The complete models of this machine; the built-in one is the last."""
    found = []
    for model in (*store.models(), store.resolve(DEMO)):
        # Names only: where models lie is nobody's business. One that just went away is not there.
        with contextlib.suppress(OSError):
            if model.complete:
                created = int(model.path.stat().st_mtime)
                found.append(ModelEntry(id=model.name, created=created, owned_by=model.origin))
    return found


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/models",
        handler=_list,
        scope="infer",
        dialect="openai",
        summary="The models of this machine.",
        answer=ModelList,
    ),
    Endpoint(
        method="GET",
        path="/v1/models/{model:path}",
        handler=_show,
        scope="infer",
        dialect="openai",
        summary="One model of this machine.",
        answer=ModelEntry,
        errors={404: "There is no such model."},
    ),
)
