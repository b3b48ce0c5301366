"""bendi's own API, beside those of others: the machine, plans, models, personas, downloads. JSON in and out.

What the terminal prints with `--json`, under the same keys. Texts are in the language of the server.

    GET    /api/bendi/machine           infer  {"machine": as `bendi doctor --json`, "advice": {"here", "cpu",
                                               "usable_cores", "usable_bytes", "gpus", "build", "measured",
                                               "measured_at"}, "notes": [text]}
    POST   /api/bendi/plan              infer  {"model", "use", "quantizations", "prompt_tok", "answer_tok",
                                               "context_tok", "min_context_tok", "kv", "parallel", "threads",
                                               "no_spill"}, all but `model` optional -> as `bendi plan --json`.
                                               A model that is not here and not in the catalogue: admin (a connection
                                               is opened to read its header)
    GET    /api/bendi/fit               infer  ?use=&language=&kind=&thinking=&max_bytes=&min_tg_tok_s=&licence=&sort=
                                               &all=&min_context_tok= -> as `bendi fit --json`
    GET    /api/bendi/models            infer  [{"name", "size_bytes", "quantization", "origin", "owned", "complete",
                                               "loaded", and for admins "path", "parts"}] as `bendi list --json`
    GET    /api/bendi/models/catalogue  infer  [{"name", "sources": [name]}] as `bendi list --catalogue --json`
    DELETE /api/bendi/models/{name}     admin  {"name", "freed_bytes"} as `bendi rm --json`
    POST   /api/bendi/pull              admin  {"model"} -> events, see below
    GET    /api/bendi/personas          infer  [{"name", "description", "model", "system", "parameters", "builtin"}]
    PUT    /api/bendi/personas/{name}   admin  {"description", "model", "system", "parameters": {name: value}} -> it

Sessions are in `native_sessions`. Errors are `{"error": {"message", "type", "param", "code", ...}}` everywhere.

Events of a download, each `event: NAME` and `data: JSON`: `progress` {"phase": "download" | "check", "done_bytes",
"total_bytes", "rate_bytes_s", "eta_s", "file"}; `note` {"text"}; at the end `done`, as `bendi pull --json` prints it,
or `error` with the body of an error. Closing the connection stops it unless somebody else watches it too; what
has arrived is kept. `: ` lines are comments that keep the connection alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from bendi.advisor.advice import Advice, advice_for
from bendi.advisor.data import fit_record, machine_record, plans_record
from bendi.advisor.fit import Filters, fit
from bendi.advisor.plans import ModelPlans, PlanRequest, plans_of
from bendi.chat.export import persona_record
from bendi.chat.parameters import check_value
from bendi.chat.personas import Persona, check_name
from bendi.chat.personas_edit import save_persona
from bendi.errors import UsageError
from bendi.hardware import detect_machine, machine_to_json
from bendi.i18n import _
from bendi.planner.plan import WORKLOADS
from bendi.planner.subject import Conditions
from bendi.server.api_errors import ApiError, error_body
from bendi.server.endpoint import Call, Endpoint
from bendi.server.ollama_models import delete_model
from bendi.server.pulls import PULL_ERRORS, PullNews, pull_name
from bendi.server.sse import EventStream, frame
from bendi.store import LocalModel, Store
from bendi.store.catalogue import DEMO, packaged_names
from bendi.store.export import catalogue_records, model_record
from bendi.store.names import AliasName, as_name
from bendi.store.progress import Progress
from bendi.store.pull import PullResult, pull_record

Use = Literal["chat", "code", "rag", "summarise", "translate", "reasoning", "tools", "vision", "embedding"]
_MOST_TOK = 16_777_216
_SECRET = ("path", "parts")
"""Where files are is told to administrators only."""


class PlanWish(BaseModel):
    """As the flags of `bendi plan`."""

    model: str = Field(min_length=1, max_length=2048)
    use: Use = "chat"
    quantizations: list[str] = Field(default=[], max_length=64)
    prompt_tok: int | None = Field(default=None, ge=1, le=_MOST_TOK)
    answer_tok: int | None = Field(default=None, ge=1, le=_MOST_TOK)
    context_tok: int | None = Field(default=None, ge=1, le=_MOST_TOK)
    min_context_tok: int | None = Field(default=None, ge=1, le=_MOST_TOK)
    kv: Literal["f16", "q8_0", "q4_0"] | None = None
    parallel: int = Field(default=1, ge=1, le=1024)
    threads: int | None = Field(default=None, ge=1, le=4096)
    no_spill: bool = False


class FitQuery(BaseModel):
    """As the flags of `bendi fit`."""

    use: Use = "chat"
    language: str | None = Field(default=None, pattern="^[A-Za-z]{2,3}$")
    kind: Literal["dense", "moe"] | None = None
    thinking: bool | None = None
    max_bytes: int | None = Field(default=None, ge=1)
    min_tg_tok_s: float | None = Field(default=None, gt=0)
    min_context_tok: int | None = Field(default=None, ge=1, le=_MOST_TOK)
    licence: str | None = Field(default=None, max_length=100)
    sort: Literal["score", "quality", "tg", "pp", "size", "released", "name"] = "score"
    all: bool = False


class PullWish(BaseModel):
    model: str = Field(min_length=1, max_length=2048)


class PersonaText(BaseModel):
    description: str = Field(default="", max_length=2000)
    model: str = Field(default="", max_length=2048)
    system: str = Field(default="", max_length=1_000_000)
    parameters: dict[str, Any] = {}


class MachineRecord(BaseModel):
    machine: dict[str, Any]
    advice: dict[str, Any]
    notes: list[str]


class PersonaRecord(BaseModel):
    name: str
    description: str | None
    model: str | None
    system: str | None
    parameters: dict[str, Any]
    builtin: bool


class ModelRecord(BaseModel):
    """`path`, `parts`: told to administrators only."""

    name: str
    path: str | None = None
    parts: list[str] | None = None
    size_bytes: int
    quantization: str
    origin: str
    owned: bool
    complete: bool
    loaded: bool


class CatalogueRecord(BaseModel):
    """`sources`: what the short name stands for, the best first."""

    name: str
    sources: list[str]


class ModelDeleted(BaseModel):
    name: str
    freed_bytes: int


async def _machine(call: Call) -> Response:
    def look() -> dict[str, Any]:
        settings = call.services.settings
        advice = advice_for(settings)
        machine = detect_machine(disk_paths=[settings.models_dirs[0]])
        return {"machine": machine_to_json(machine), "advice": machine_record(advice), "notes": list(advice.notes)}

    return JSONResponse(await asyncio.to_thread(look))


async def _plan(call: Call) -> Response:
    body: PlanWish = call.body
    request = PlanRequest(_conditions(body), tuple(label.strip().upper() for label in body.quantizations))

    def plan() -> tuple[ModelPlans, Advice]:
        _check_plannable(call, body.model)
        advice = advice_for(call.services.settings)
        return plans_of(call.services.store, body.model, advice, request), advice

    plans, advice = await asyncio.to_thread(plan)
    return JSONResponse(plans_record(plans, advice))


def _check_plannable(call: Call, text: str) -> None:
    """A header that is far away is read over the network: not for everybody, and never from an address."""
    name = as_name(text)
    if isinstance(name, AliasName) and (name.alias == DEMO or name.alias in packaged_names()):
        return
    pull_name(text)
    if call.services.store.find(text) is None and "admin" not in call.caller.scopes:
        raise ApiError(
            403,
            _("The model {name} is not here; looking at it over the network needs the scope admin.").format(name=text),
            code="insufficient_scope",
        )


def _conditions(body: PlanWish) -> Conditions:
    if body.context_tok and (body.prompt_tok or 0) + (body.answer_tok or 0) > body.context_tok:
        raise ApiError(
            400,
            _("A prompt and an answer of {asked} tokens do not fit in a context of {context}.").format(
                asked=(body.prompt_tok or 0) + (body.answer_tok or 0), context=body.context_tok
            ),
            code="invalid_request",
            param="context_tok",
        )
    workload = WORKLOADS.get(body.use, WORKLOADS["chat"])
    if body.prompt_tok or body.answer_tok:
        workload = replace(
            workload,
            depth_tok=0 if body.prompt_tok else workload.depth_tok,
            prompt_tok=body.prompt_tok or workload.prompt_tok,
            answer_tok=body.answer_tok or workload.answer_tok,
        )
    return Conditions(
        workload=workload,
        context_tok=body.context_tok,
        min_context_tok=body.min_context_tok or (0 if body.context_tok else workload.context_tok),
        type_k=body.kv,
        type_v=body.kv,
        parallel=body.parallel,
        no_spill=body.no_spill,
        threads=body.threads,
    )


async def _fit(call: Call) -> Response:
    query: FitQuery = call.query
    filters = Filters(
        use=query.use,
        language=query.language.lower() if query.language else None,
        kind=query.kind,
        thinking=query.thinking,
        max_bytes=query.max_bytes,
        min_tg_tok_s=query.min_tg_tok_s,
        min_context_tok=query.min_context_tok,
        licence=query.licence,
        everything=query.all,
        sort=query.sort,
    )

    def rank() -> dict[str, Any]:
        advice = advice_for(call.services.settings)
        return fit_record(fit(advice, filters), advice)

    return JSONResponse(await asyncio.to_thread(rank))


async def _models(call: Call) -> Response:
    models = await asyncio.to_thread(_all_models, call.services.store)
    loaded = {item.path for item in call.services.pool.loaded()}
    records = [model_record(model) | {"loaded": str(model.path) in loaded} for model in models]
    return JSONResponse([_told(call, record) for record in records])


def _all_models(store: Store) -> list[LocalModel]:
    return [*store.models(), store.resolve(DEMO)]


async def _catalogue(call: Call) -> Response:
    return JSONResponse(await asyncio.to_thread(catalogue_records, call.services.store.catalogue))


async def _remove(call: Call) -> Response:
    name, freed_bytes = await delete_model(call, call.request.path_params["name"])
    return JSONResponse({"name": name, "freed_bytes": freed_bytes})


async def _pull(call: Call) -> Response:
    body: PullWish = call.body
    name = pull_name(body.model)
    return EventStream(_pull_events(call, name), lambda error: frame(error_body(error, "bendi"), "error"))


async def _pull_events(call: Call, name: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(call.services.pulls.watch(call.services.store, name)) as news:
        async for item in news:
            yield _news_frame(call, item)
    call.services.pool.names.forget()


def _news_frame(call: Call, item: PullNews) -> bytes:
    if isinstance(item, Progress):
        return frame(asdict(item), "progress")
    if isinstance(item, PullResult):
        return frame(_told(call, pull_record(item)), "done")
    return frame({"text": item}, "note")


def _told(call: Call, record: dict[str, Any]) -> dict[str, Any]:
    """The record as this caller may read it."""
    if "admin" in call.caller.scopes:
        return record
    return {key: value for key, value in record.items() if key not in _SECRET}


async def _personas(call: Call) -> Response:
    personas = await asyncio.to_thread(call.services.personas.all)
    return JSONResponse([persona_record(persona) for persona in personas.values()])


async def _put_persona(call: Call) -> Response:
    body: PersonaText = call.body
    try:
        name = check_name(call.request.path_params["name"])
        values = {key: check_value(key, value) for key, value in body.parameters.items()}
    except UsageError as error:
        raise ApiError(400, f"{error.message} {error.hint}".strip(), code="invalid_request") from error
    persona = Persona(name, body.description, body.model, body.system, values)
    await asyncio.to_thread(save_persona, call.services.settings.personas_file, persona)
    return JSONResponse(persona_record(call.services.personas.get(name)))


_MODELS = "/api/bendi/models"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/api/bendi/machine", _machine, "infer", "bendi", "This machine.", answer=MachineRecord),
    Endpoint(
        method="POST",
        path="/api/bendi/plan",
        handler=_plan,
        scope="infer",
        dialect="bendi",
        summary="How a model would run here, in every quantization.",
        body=PlanWish,
        answer=dict[str, Any],
        errors={
            403: "It would have to be looked at over the network, which this key, or bendi itself, may not.",
            404: "There is no such model.",
            409: "Its download has not ended.",
            422: "The file of the model cannot be used.",
            502: "Its source could not be reached.",
            507: "The disk is full.",
        },
    ),
    Endpoint(
        "GET", "/api/bendi/fit", _fit, "infer", "bendi", "Which models of the catalogue this machine can run.",
        query=FitQuery, answer=dict[str, Any],
    ),
    Endpoint(
        "GET", _MODELS, _models, "infer", "bendi", "The models of this machine, also incomplete ones.",
        answer=list[ModelRecord],
    ),
    Endpoint(
        "GET", f"{_MODELS}/catalogue", _catalogue, "infer", "bendi", "The short names that can be pulled.",
        answer=list[CatalogueRecord],
    ),
    Endpoint(
        method="DELETE",
        path=f"{_MODELS}/{{name:path}}",
        handler=_remove,
        scope="admin",
        dialect="bendi",
        summary="Deletes a model that bendi brought.",
        answer=ModelDeleted,
        errors={404: "There is no such model.", 409: "It belongs to another program."},
    ),
    Endpoint(
        method="POST",
        path="/api/bendi/pull",
        handler=_pull,
        scope="admin",
        dialect="bendi",
        summary="Downloads a model, by name only; how far it is comes as events.",
        body=PullWish,
        stream="sse",
        errors=PULL_ERRORS,
    ),
    Endpoint("GET", "/api/bendi/personas", _personas, "infer", "bendi", "The personas.", answer=list[PersonaRecord]),
    Endpoint(
        method="PUT",
        path="/api/bendi/personas/{name}",
        handler=_put_persona,
        scope="admin",
        dialect="bendi",
        summary="Adds a persona to the file, or changes it there.",
        body=PersonaText,
        answer=PersonaRecord,
        errors={400: "It cannot be called so, or a parameter cannot have that value."},
    ),
)  # fmt: skip
