"""What all requests of Ollama's clients have in common: names with a tag, and how long a model stays loaded."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.pool import Kind, Wish
from bendi.units import parse_duration

OllamaName = Annotated[str, Field(min_length=1, max_length=2048)]
KeepAlive = float | str | None
MAX_CONTEXT_TOK = 2**24


def local_name(text: str) -> str:
    """The name of a model without the tag that Ollama's clients put behind every name."""
    name = text.strip()
    return name.removesuffix(":latest") or name


def keep_alive_s(value: KeepAlive) -> float | None:
    """Seconds, from a number of them or a time such as `5m` or `1h30m`. Below zero: for ever. None: as the server is
    set. Raises ApiError."""
    if value is None:
        return None
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        message = _("keep_alive cannot be {value!r}: it takes seconds, or a time such as 5m or 1h30m.")
        raise ApiError(400, message.format(value=str(value)[:40]), code="invalid_request", param="keep_alive")
    return math.inf if seconds < 0 else seconds


def wish_for(name: str, kind: Kind, options: dict[str, Any] | None, keep_alive: KeepAlive) -> Wish:
    """Raises ApiError for a context or a time that cannot be."""
    context_tok = (options or {}).get("num_ctx")
    if context_tok is not None and (type(context_tok) is not int or not 0 <= context_tok <= MAX_CONTEXT_TOK):
        raise ApiError(
            400,
            _("{field} must be a whole number from {least} to {most}.").format(
                field="num_ctx", least=0, most=MAX_CONTEXT_TOK
            ),
            code="invalid_request",
            param="options.num_ctx",
        )
    return Wish(local_name(name), kind, context_tok or None, keep_alive_s(keep_alive))
