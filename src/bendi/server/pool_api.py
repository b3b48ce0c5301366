"""What is loaded, and loading, pinning and unloading by hand: `bendi ps`, `bendi stop`, and the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from bendi.errors import UsageError
from bendi.i18n import _
from bendi.server.endpoint import MODEL_ERRORS, Call, Endpoint
from bendi.server.pool import Loaded, Wish, not_loaded
from bendi.units import parse_duration

_Name = Annotated[str, Field(min_length=1, max_length=2048)]


class LoadedModel(BaseModel):
    """As `pool.Loaded`; `path` is told to administrators only."""

    model_config = ConfigDict(protected_namespaces=())
    model: str
    kind: Literal["text", "embedding", "rerank"]
    path: str | None
    build: str
    context_tok: int
    slots: int
    memory_bytes: int
    resident_bytes: int
    busy: int
    waiting: int
    expires_s: float | None
    pinned: bool
    state: Literal["loading", "ready", "stopping"]


class LoadedModels(BaseModel):
    models: list[LoadedModel]
    waiting: int


class StopRequest(BaseModel):
    """One of both."""

    model: _Name | None = None
    all: bool = False


class Stopped(BaseModel):
    stopped: int


class PinRequest(BaseModel):
    model: _Name
    pinned: bool = True


class LoadRequest(BaseModel):
    """`keep_alive`: seconds, or a text such as `5m` or `never`."""

    model: _Name
    kind: Literal["text", "embedding", "rerank"] = "text"
    context_tok: Annotated[int, Field(ge=1, le=2**31)] | None = None
    keep_alive: Annotated[float, Field(ge=0)] | Annotated[str, Field(max_length=40)] | None = None
    pinned: bool | None = None


async def _ps(call: Call) -> Response:
    return JSONResponse(_state(call).model_dump())


async def _stop(call: Call) -> Response:
    body: StopRequest = call.body
    if body.all == (body.model is not None):
        raise UsageError(_("Say which model to stop, or all."))
    stopped = await call.services.pool.stop(body.model)
    if body.model is not None and not stopped:
        raise not_loaded(body.model)
    return JSONResponse(Stopped(stopped=stopped).model_dump())


async def _pin(call: Call) -> Response:
    body: PinRequest = call.body
    await call.services.pool.pin(body.model, body.pinned)
    return JSONResponse(_state(call).model_dump())


async def _load(call: Call) -> Response:
    body: LoadRequest = call.body
    pool = call.services.pool
    wish = Wish(body.model, body.kind, body.context_tok, _seconds(body.keep_alive), session=None)
    async with pool.lease(wish) as lease:
        if body.pinned is not None:
            await pool.pin(lease.model, body.pinned)
    return JSONResponse(_state(call).model_dump())


def _seconds(keep_alive: float | str | None) -> float | None:
    if not isinstance(keep_alive, str):
        return keep_alive
    try:
        return parse_duration(keep_alive)
    except ValueError as error:
        raise UsageError(_("{text!r} is no time.").format(text=keep_alive)) from error


def _state(call: Call) -> LoadedModels:
    pool = call.services.pool
    admin = "admin" in call.caller.scopes
    return LoadedModels(models=[_shown(loaded, admin) for loaded in pool.loaded()], waiting=pool.waiting)


def _shown(loaded: Loaded, admin: bool) -> LoadedModel:
    values = asdict(loaded)
    if not admin:
        values["path"] = None
    if values["expires_s"] is not None:
        values["expires_s"] = round(values["expires_s"], 3)
    return LoadedModel(**values)


ENDPOINTS = (
    Endpoint("GET", "/api/bendi/ps", _ps, "infer", "bendi", "What is loaded.", answer=LoadedModels),
    Endpoint(
        "POST",
        "/api/bendi/stop",
        _stop,
        "admin",
        "bendi",
        "Unloads a model, or all, at once, also in the middle of answers.",
        body=StopRequest,
        answer=Stopped,
        errors={404: "It is not loaded."},
    ),
    Endpoint(
        "POST",
        "/api/bendi/pin",
        _pin,
        "admin",
        "bendi",
        "Keeps a loaded model, or does not any longer.",
        body=PinRequest,
        answer=LoadedModels,
        errors={404: "It is not loaded."},
    ),
    Endpoint(
        "POST",
        "/api/bendi/load",
        _load,
        "admin",
        "bendi",
        "Loads a model before it is needed.",
        body=LoadRequest,
        answer=LoadedModels,
        errors=MODEL_ERRORS,
    ),
)
