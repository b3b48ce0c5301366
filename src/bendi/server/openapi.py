"""The description of everything that the server can do, made from the table of endpoints: OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema
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
_BODY_ERRORS = {400: "The body cannot be used; `param` names the field.", 413: "The body is too large."}
_KEY_ERRORS = {
    401: "The key is missing or wrong.",
    403: "The key may not do this, or the request comes from a web page of elsewhere.",
    429: "Too many requests; Retry-After says when to try again.",
}

_IN: JsonSchemaMode = "validation"
_OUT: JsonSchemaMode = "serialization"
Refs = dict[tuple[Any, JsonSchemaMode], dict[str, Any]]
"""Where the schema of a model is."""


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
    """Where the schema of each model is, and all schemas by name."""
    bodies = [(endpoint.body, _IN) for endpoint in endpoints if endpoint.body]
    answers = [(endpoint.answer, _OUT) for endpoint in endpoints if endpoint.answer]
    refs, definitions = models_json_schema(list(dict.fromkeys([*bodies, *answers])), ref_template=_REF + "{model}")
    return dict(refs), definitions.get("$defs", {})


def _operation(endpoint: Endpoint, path: str, refs: Refs) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z0-9]+", "_", f"{endpoint.method} {path}".lower()).strip("_"),
        "summary": endpoint.summary,
        "tags": [endpoint.dialect],
        "security": [] if endpoint.scope == "public" else [{name: []} for name in _SECURITY],
        "responses": _responses(endpoint, refs),
    }
    if endpoint.scope != "public":
        operation["x-scope"] = endpoint.scope
    parameters = _parameters(endpoint, path)
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body:
        schema = refs[endpoint.body, _IN]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _responses(endpoint: Endpoint, refs: Refs) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if endpoint.answer:
        content["application/json"] = {"schema": refs[endpoint.answer, _OUT]}
    elif not endpoint.stream:
        content[endpoint.media_type] = {}
    if endpoint.stream:
        content[_STREAM_TYPES[endpoint.stream]] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {str(endpoint.status): {"description": "The answer.", "content": content}}
    error = {"application/json": {"schema": {"$ref": _REF + _ERROR_OF[endpoint.dialect]}}}
    told = {**(_KEY_ERRORS if endpoint.scope != "public" else {}), **(_BODY_ERRORS if endpoint.body else {})}
    if endpoint.query:
        told.setdefault(400, "The query cannot be used; `param` names the field.")
    for status, said in sorted({**told, **endpoint.errors}.items()):
        responses[str(status)] = {"description": said, "content": error}
    responses["default"] = {"description": "Any other error.", "content": error}
    return responses


def _parameters(endpoint: Endpoint, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    if endpoint.query:
        schema = endpoint.query.model_json_schema(mode=_IN)
        required = schema.get("required", [])
        found += [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            for name, field in schema["properties"].items()
        ]
    return found
