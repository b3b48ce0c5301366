"""What those who run the server ask it: is it alive, is it ready, what has it counted, what can it do."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from bendi.server.endpoint import Call, Endpoint
from bendi.server.metrics import CONTENT_TYPE
from bendi.server.table import Table


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """`starting`: models are being loaded that the server was told to load. `draining`: it ends."""

    status: Literal["ready", "starting", "draining"]


async def _health(_call: Call) -> Response:
    return JSONResponse(Health().model_dump())


async def _ready(call: Call) -> Response:
    now = call.services.phase.now
    return JSONResponse(Readiness(status=now).model_dump(), 200 if now == "ready" else 503)


async def _metrics(call: Call) -> Response:
    return Response(call.services.metrics.text(call.services.pool.loaded()), media_type=CONTENT_TYPE)


async def _openapi(call: Call) -> Response:
    table: Table = call.request.app.table
    return Response(await asyncio.to_thread(lambda: table.document), media_type="application/json")


ENDPOINTS = (
    Endpoint("GET", "/health", _health, "public", "bendi", "Whether the server is alive.", answer=Health),
    Endpoint(
        "GET",
        "/ready",
        _ready,
        "public",
        "bendi",
        "Whether requests can be answered now.",
        answer=Readiness,
        also={503: "Not yet, or no longer."},
    ),
    Endpoint(
        "GET",
        "/metrics",
        _metrics,
        "infer",
        "bendi",
        "Numbers for Prometheus (text format 0.0.4).",
        media_types=("text/plain",),
    ),
    Endpoint("GET", "/openapi.json", _openapi, "infer", "bendi", "This document.", answer=dict[str, Any]),
)
