"""The description of everything that the server can do, made from the table of endpoints: OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from starlette.routing import compile_path

from bendi import __version__
from bendi.server.endpoint import Dialect, Endpoint, Stream

_REF = "#/components/schemas/"
_STREAM_TYPES: Mapping[Stream, str] = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
_TAGS: Mapping[Dialect, str] = {
    "openai": "As clients of OpenAI speak",
    "ollama": "As clients of Ollama speak",
    "anthropic": "As clients of Anthropic speak",
    "bendi": "bendi's own",
}
_TEXT = {"type": "string"}
_NAME = {"type": ["string", "null"]}
_CONTEXT = {"context_needed": {"type": "integer"}, "context_available": {"type": "integer"}}
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": _NAME, "code": _NAME, **_CONTEXT},
        }
    },
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": _TEXT, "message": _TEXT, **_CONTEXT},
        },
    },
}
_OLLAMA_ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TEXT, **_CONTEXT}}
_ERRORS = {"OpenAIError": _OPENAI_ERROR, "OllamaError": _OLLAMA_ERROR, "AnthropicError": _ANTHROPIC_ERROR}
_ERROR_OF: Mapping[Dialect, str] = {
    "openai": "OpenAIError",
    "ollama": "OllamaError",
    "anthropic": "AnthropicError",
    "bendi": "OpenAIError",
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `bendi key add NAME`."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
}
_ANY_ERRORS = {
    400: "The request cannot be understood.",
    403: "The name of this server, or the web page that asks, is not one that may be used.",
    413: "The body is too large.",
    414: "The address is too long.",
    415: "The body is compressed.",
    431: "The headers are too large.",
    500: "bendi has a defect, which its log describes under the X-Request-Id of the answer.",
}
"""Of everything: said before it matters what is asked for."""
_KEY_ERRORS = {
    401: "The key is missing or wrong.",
    403: "The key may not do this, or the request comes from a web page of elsewhere.",
    429: "Too many requests; Retry-After says when to try again.",
}
_BODY_ERRORS = {400: "The body cannot be used; `param` names the field.", 408: "The body did not arrive in time."}
_QUERY_ERRORS = {400: "The query cannot be used; `param` names the field."}
_PATH_ERRORS = {404: "There is nothing at this path."}
_RETRY_AFTER = {"Retry-After": {"description": "In seconds.", "required": True, "schema": {"type": "integer"}}}
_WITHOUT_CONTENT = (204, 304)
_ANY_TEXT = {"type": "string", "minLength": 1}
_SEGMENT = {"type": "string", "pattern": "^[^/]+$"}

_IN: JsonSchemaMode = "validation"
_OUT: JsonSchemaMode = "serialization"
Refs = dict[tuple[Any, JsonSchemaMode], dict[str, Any]]
"""The schema of a model, or of something made of models."""


def openapi_document(endpoints: tuple[Endpoint, ...]) -> dict[str, Any]:
    """The document."""
    refs, schemas = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        _regex, path, _convertors = compile_path(endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bendi",
            "summary": "Large language models, private, on this machine.",
            "version": __version__,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": said} for name, said in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": {**schemas, **_ERRORS}, "securitySchemes": _SECURITY},
    }


def _schemas(endpoints: tuple[Endpoint, ...]) -> tuple[Refs, dict[str, Any]]:
    """The schema of each body and answer, which mostly refers to a model, and the schemas of all models by name."""
    bodies = [(endpoint.body, _IN) for endpoint in endpoints if endpoint.body]
    answers = [(endpoint.answer, _OUT) for endpoint in endpoints if endpoint.answer]
    kinds = [(kind, mode, TypeAdapter(kind)) for kind, mode in dict.fromkeys([*bodies, *answers])]
    refs, definitions = TypeAdapter.json_schemas(kinds, ref_template=_REF + "{model}")
    return dict(refs), definitions.get("$defs", {})


def _operation(endpoint: Endpoint, path: str, refs: Refs) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z0-9]+", "_", f"{endpoint.method} {path}".lower()).strip("_"),
        "summary": endpoint.summary,
        "tags": [endpoint.dialect],
        "security": [] if endpoint.scope == "public" else [{name: []} for name in _SECURITY],
        "responses": _responses(endpoint, path, refs),
    }
    if endpoint.scope != "public":
        operation["x-scope"] = endpoint.scope
    parameters = _parameters(endpoint)
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body:
        schema = refs[endpoint.body, _IN]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _responses(endpoint: Endpoint, path: str, refs: Refs) -> dict[str, Any]:
    """Every status that there can be: none is left to a default, so that whoever reads this knows what to expect."""
    responses: dict[str, Any] = {}
    error = {"application/json": {"schema": {"$ref": _REF + _ERROR_OF[endpoint.dialect]}}}
    for status, said in sorted(_errors(endpoint, path).items()):
        responses[str(status)] = {"description": said, "content": error}
        if status == 429:
            responses[str(status)]["headers"] = _RETRY_AFTER
    if endpoint.status < 400:
        content = _content(endpoint, refs)
        for status, said in {endpoint.status: "The answer.", **endpoint.also}.items():
            responses[str(status)] = {"description": said}
            if content and status not in _WITHOUT_CONTENT:
                responses[str(status)]["content"] = content
    return responses


def _errors(endpoint: Endpoint, path: str) -> dict[int, str]:
    told = dict(_ANY_ERRORS)
    if endpoint.scope != "public":
        told |= _KEY_ERRORS
    if "{" in path:
        told |= _PATH_ERRORS
    if endpoint.query:
        told |= _QUERY_ERRORS
    if endpoint.body:
        told |= _BODY_ERRORS
    return told | dict(endpoint.errors)


def _content(endpoint: Endpoint, refs: Refs) -> dict[str, Any]:
    """What an answer is, by media type."""
    content: dict[str, Any] = {}
    if endpoint.answer:
        content["application/json"] = {"schema": refs[endpoint.answer, _OUT]}
    elif not endpoint.stream:
        content |= {media_type: {} for media_type in endpoint.media_types}
    if endpoint.stream:
        content[_STREAM_TYPES[endpoint.stream]] = {}
    return content


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _ANY_TEXT if kind == "path" else _SEGMENT}
        for name, kind in re.findall(r"\{(\w+):?(\w*)\}", endpoint.path)
    ]
    if endpoint.query:
        schema = endpoint.query.model_json_schema(mode=_IN)
        required = schema.get("required", [])
        found += [
            {"name": name, "in": "query", "required": name in required, "schema": _written(field)}
            for name, field in schema["properties"].items()
        ]
    return found


def _written(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field as it can stand in an address, where there is no null: it is left out instead."""
    kept = {key: value for key, value in field.items() if key != "anyOf" and (key, value) != ("default", None)}
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **kept}
    return {**kept, "anyOf": kinds} if kinds else kept
