"""What Ollama's clients ask about models: which there are, what they are, which are loaded; and to bring, name and
delete them. docs/ollama.md compares field by field."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from bendi import __version__
from bendi.errors import StoreError
from bendi.formats.gguf_types import GgufArray
from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.endpoint import Call, Endpoint
from bendi.server.model_facts import ModelFacts, facts_of, known_facts, named_models
from bendi.server.ndjson import line, line_stream
from bendi.server.ollama_fields import local_name
from bendi.server.pool import Wish
from bendi.server.pulls import PULL_ERRORS, PullNews
from bendi.settings import Settings
from bendi.store import LocalModel, Store
from bendi.store.aliases import add_alias, drop_alias
from bendi.store.names import AliasName, PathName, as_name
from bendi.store.progress import Progress
from bendi.store.pull import PullResult
from bendi.store.upkeep import remove

API_LEVEL = "0.12.11"
"""The version of Ollama whose API is spoken: clients refuse servers that they take for older ones."""
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)
_LONGEST_S = 1e9
"""Beyond it, dates need not be right, but they must be dates."""
_NOT_SHOWN = frozenset({"general.name", "tokenizer.chat_template"})


class OllamaNamed(BaseModel):
    """`name`: what `model` was called in the past."""

    model: str = Field(default="", max_length=2048)
    name: str = Field(default="", max_length=2048)

    @property
    def wanted(self) -> str:
        if not (self.model or self.name).strip():
            raise ApiError(400, _("The request does not say which model."), code="invalid_request", param="model")
        return local_name(self.model or self.name)


class OllamaShowRequest(OllamaNamed):
    verbose: bool = False


class OllamaPullRequest(OllamaNamed):
    stream: bool | None = None


class OllamaCopyRequest(BaseModel):
    source: str = Field(min_length=1, max_length=2048)
    destination: str = Field(min_length=1, max_length=2048)


class OllamaDetails(BaseModel):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaListed(BaseModel):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaTags(BaseModel):
    models: list[OllamaListed]


class OllamaRunning(BaseModel):
    name: str
    model: str
    size: int
    size_vram: int
    digest: str
    details: OllamaDetails
    expires_at: str
    context_length: int


class OllamaPs(BaseModel):
    models: list[OllamaRunning]


class OllamaShow(BaseModel):
    """`template`: of the model file, in Jinja; `template_sha256`: so that a change of it can be seen."""

    modelfile: str
    parameters: str
    template: str
    template_sha256: str | None
    license: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaProgress(BaseModel):
    """`digest`: what the bytes are of: the name of the file."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class OllamaVersion(BaseModel):
    version: str


async def _tags(call: Call) -> Response:
    listed = await asyncio.to_thread(_listed, call.services.store, call.services.settings)
    return JSONResponse({"models": listed})


def _listed(store: Store, settings: Settings) -> list[dict[str, Any]]:
    entries = [_entry(name, model, settings) for name, model in named_models(store)]
    return sorted(entries, key=lambda entry: str(entry["modified_at"]), reverse=True)


def _entry(name: str, model: LocalModel, settings: Settings) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": _modified(model.path),
        "size": model.size_bytes,
        "digest": (model.sha256[0] if model.sha256 else None) or "",
        "details": _details(known_facts(model, settings), model),
    }


async def _show(call: Call) -> Response:
    body: OllamaShowRequest = call.body
    model = await call.services.pool.model_of(Wish(body.wanted))
    facts = await asyncio.to_thread(facts_of, model, call.services.settings)
    shown = OllamaShow(
        modelfile=f"FROM {model.name}\n",
        parameters="",
        template=facts.info.chat_template or "",
        template_sha256=facts.info.chat_template_sha256,
        license=facts.info.licence,
        details=OllamaDetails(**_details(facts, model)),
        model_info=_model_info(facts, verbose=body.verbose),
        capabilities=list(facts.capabilities),
        modified_at=_modified(model.path),
    )
    return JSONResponse(shown.model_dump())


def _model_info(facts: ModelFacts, *, verbose: bool) -> dict[str, Any]:
    """The metadata of the file; long lists are null, short ones too unless `verbose`."""
    shown: dict[str, Any] = {"general.parameter_count": facts.info.parameters}
    for key, value in facts.header.metadata.items():
        if key in _NOT_SHOWN:
            continue
        if isinstance(value, GgufArray):
            shown[key] = [_finite(item) for item in value.values or ()] if verbose and value.values else None
        else:
            shown[key] = _finite(value)
    return shown


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


async def _ps(call: Call) -> Response:
    loaded = [item for item in call.services.pool.loaded() if item.state != "stopping"]
    models = [await call.services.pool.model_of(Wish(item.model)) for item in loaded]
    rows = await asyncio.to_thread(lambda: [_entry(model.name, model, call.services.settings) for model in models])
    now = datetime.now(UTC)
    for item, row in zip(loaded, rows, strict=True):
        del row["modified_at"]
        expires = _NEVER if item.expires_s is None else now + timedelta(seconds=min(item.expires_s, _LONGEST_S))
        row |= {"size": item.memory_bytes, "size_vram": 0, "expires_at": _iso(expires)}
        row["context_length"] = item.context_tok
    return JSONResponse({"models": rows})


async def _pull(call: Call) -> Response:
    body: OllamaPullRequest = call.body
    name = _pulled_name(call.services.store, body.wanted)
    if body.stream is not False:
        return line_stream(_pull_lines(call, name))
    async with aclosing(call.services.pulls.watch(call.services.store, name)) as news:
        async for _item in news:
            pass
    call.services.pool.names.forget()
    return JSONResponse({"status": "success"})


def _pulled_name(store: Store, text: str) -> str:
    """As Ollama's users write names: what bendi has no short name for is in Ollama's registry."""
    name = as_name(text)
    if isinstance(name, AliasName) and name.alias not in store.catalogue.names():
        return f"ollama:{text}"
    return f"ollama:{text}" if name is None and text.count("/") == 1 and ":" not in text.partition("/")[0] else text


async def _pull_lines(call: Call, name: str) -> AsyncGenerator[bytes, None]:
    yield line({"status": "pulling manifest"})
    async with aclosing(call.services.pulls.watch(call.services.store, name)) as news:
        async for item in news:
            yield line(_news_record(item))
    call.services.pool.names.forget()


def _news_record(item: PullNews) -> dict[str, Any]:
    if isinstance(item, PullResult):
        return {"status": "success"}
    if isinstance(item, str):
        return {"status": item}
    status = "verifying sha256 digest" if item.phase == "check" else f"pulling {Path(item.file).name}"
    return {"status": status, **_amount(item)}


def _amount(item: Progress) -> dict[str, Any]:
    total = {} if item.total_bytes is None else {"total": item.total_bytes}
    return {"digest": item.file, **total, "completed": item.done_bytes}


async def _delete(call: Call) -> Response:
    body: OllamaNamed = call.body
    services, name = call.services, body.wanted
    spelled = as_name(name)
    if isinstance(spelled, AliasName) and services.store.catalogue.is_own(spelled.alias):
        await asyncio.to_thread(drop_alias, services.store.aliases_file, spelled.alias)
        services.pool.names.forget()
    else:
        await delete_model(call, name)
    return Response(status_code=200)


async def delete_model(call: Call, name: str) -> tuple[str, int]:
    """Unloads and deletes a model that bendi brought, also one that is not complete; returns its name and the bytes
    freed. Raises ApiError 409 for others, NotFoundError; whether there are files elsewhere is not told."""
    services = call.services
    if isinstance(as_name(name), PathName):
        model = await services.pool.model_of(Wish(name))
    else:
        model = await asyncio.to_thread(services.store.lookup, name)
    if any(loaded.path == str(model.path) for loaded in services.pool.loaded()) and model.owned:
        await services.pool.stop(model.name)
    try:
        freed_bytes = await asyncio.to_thread(remove, services.store, model)
    except StoreError as error:
        # The hint would say where the file is.
        raise ApiError(409, error.message, code="not_deleted") from error
    services.pool.names.forget()
    return model.name, freed_bytes


async def _copy(call: Call) -> Response:
    body: OllamaCopyRequest = call.body
    services = call.services
    model = await services.pool.model_of(Wish(local_name(body.source)))
    await asyncio.to_thread(add_alias, services.store.aliases_file, local_name(body.destination), model)
    services.pool.names.forget()
    return Response(status_code=200)


async def _version(_call: Call) -> Response:
    return JSONResponse({"version": f"{API_LEVEL}+bendi.{__version__}"})


async def _not_here(_call: Call) -> Response:
    raise ApiError(
        501,
        _("bendi does not make or upload models over the network."),
        code="not_implemented",
    )


def _details(facts: ModelFacts | None, model: LocalModel) -> dict[str, Any]:
    architecture = facts.info.architecture if facts else ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": architecture,
        "families": [architecture] if architecture else [],
        "parameter_size": parameter_size(facts.info.parameters) if facts else "",
        "quantization_level": facts.info.quantization if facts else model.label,
    }


def parameter_size(count: int) -> str:
    """As Ollama writes it: 8.2B, 751.63M, 292K."""
    for unit, size, digits in (("T", 10**12, 1), ("B", 10**9, 1), ("M", 10**6, 2), ("K", 10**3, 0)):
        if count >= size:
            number = count / size
            return f"{number:.0f}{unit}" if number == int(number) else f"{number:.{digits}f}{unit}"
    return str(count)


def _modified(path: Path) -> str:
    try:
        return _iso(datetime.fromtimestamp(path.stat().st_mtime, UTC))
    except (OSError, ValueError, OverflowError):  # gone, or a date that there is not
        return _iso(datetime.fromtimestamp(0, UTC))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


_MISSING = {404: "The model is not on this machine."}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/api/tags", _tags, "infer", "ollama", "The models of this machine.", answer=OllamaTags),
    Endpoint(
        "POST",
        "/api/show",
        _show,
        "infer",
        "ollama",
        "What a model is.",
        OllamaShowRequest,
        OllamaShow,
        errors={**_MISSING, 409: "Its download has not ended.", 422: "The file of the model cannot be used."},
    ),
    Endpoint("GET", "/api/ps", _ps, "infer", "ollama", "The models that are loaded.", answer=OllamaPs),
    Endpoint(
        method="POST",
        path="/api/pull",
        handler=_pull,
        scope="admin",
        dialect="ollama",
        summary="Downloads a model, by name only. It stops when the client goes away; what has arrived is kept.",
        body=OllamaPullRequest,
        answer=OllamaProgress,
        stream="ndjson",
        errors=PULL_ERRORS,
    ),
    Endpoint(
        method="DELETE",
        path="/api/delete",
        handler=_delete,
        scope="admin",
        dialect="ollama",
        summary="Deletes a model that bendi brought, or a name that /api/copy gave.",
        body=OllamaNamed,
        media_types=(),
        errors={**_MISSING, 409: "It belongs to another program."},
    ),
    Endpoint(
        method="POST",
        path="/api/copy",
        handler=_copy,
        scope="admin",
        dialect="ollama",
        summary="Gives a model another name. Nothing is copied.",
        body=OllamaCopyRequest,
        media_types=(),
        errors={**_MISSING, 409: "Its download has not ended."},
    ),
    Endpoint(
        "GET", "/api/version", _version, "infer", "ollama", "Which API of Ollama is spoken.", answer=OllamaVersion
    ),
    *(
        Endpoint(method, path, _not_here, "admin", "ollama", "Not offered.", status=501, errors={501: "Always."})
        for method, path in (
            ("POST", "/api/create"),
            ("POST", "/api/push"),
            ("GET", "/api/blobs/{digest}"),
            ("POST", "/api/blobs/{digest}"),
        )
    ),
)
