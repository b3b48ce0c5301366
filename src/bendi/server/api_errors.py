"""Errors as each dialect writes them, and which HTTP status an error of ours has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from bendi.errors import (
    BendiError,
    ContextOverflow,
    DataError,
    DownloadError,
    EngineError,
    HashMismatch,
    LoadRefused,
    ModelFileError,
    ModelIncomplete,
    NotFoundError,
    Offline,
    OutOfMemory,
    RequestRejected,
    StoreError,
    UsageError,
)


class ApiError(Exception):
    """An error with a status of its own. `code`: for programs, as OpenAI writes it. `param`: the field at fault.
    `extra`: further fields of the error object. `headers`: such as Retry-After."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.extra, self.headers = dict(extra or {}), dict(headers or {})


_STATUS: tuple[tuple[type[BendiError], int, str], ...] = (
    (ContextOverflow, 400, "context_length_exceeded"),
    (NotFoundError, 404, "model_not_found"),
    (RequestRejected, 400, "invalid_request"),
    (UsageError, 400, "invalid_request"),
    (ModelFileError, 422, "model_unusable"),
    (LoadRefused, 422, "model_unusable"),
    (OutOfMemory, 507, "insufficient_memory"),
    (EngineError, 503, "engine_failed"),
    (ModelIncomplete, 409, "model_incomplete"),
    (Offline, 403, "offline"),
    (DownloadError, 502, "download_failed"),
    (HashMismatch, 502, "download_failed"),
    (StoreError, 507, "store"),
    (DataError, 507, "storage"),
    (BendiError, 500, "internal"),
)
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    **_OPENAI_TYPES,
    400: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    503: "overloaded_error",
}


def as_api_error(error: BendiError) -> ApiError:
    """With the status that clients of these APIs expect; the hint is part of the message."""
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    extra: dict[str, Any] = {}
    if isinstance(error, ContextOverflow):
        extra = {"context_needed": error.needed_tok, "context_available": error.available_tok}
    message = f"{error.message} {error.hint}".strip()
    return ApiError(status, message, code=code, extra=extra)


def error_body(error: ApiError, dialect: str) -> dict[str, Any]:
    """What the client reads."""
    if dialect == "ollama":
        return {"error": error.message, **error.extra}
    if dialect == "anthropic":
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": error.message, **error.extra}}
    kind = _OPENAI_TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    fields = {"message": error.message, "type": kind, "param": error.param, "code": error.code or None}
    return {"error": {**fields, **error.extra}}


def error_response(error: ApiError, dialect: str) -> JSONResponse:
    return JSONResponse(error_body(error, dialect), error.status, headers=error.headers)


def let_go(error: BaseException) -> None:
    """Frees the frames that `error`, and those that led to it, passed on their way. A frame that also holds the error
    would keep a refused request, with its body, until the collector next looks at everything."""
    seen: set[int] = set()
    found: list[BaseException | None] = [error]
    while found:
        one = found.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            found += [one.__cause__, one.__context__]
