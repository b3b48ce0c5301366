"""What all requests of Ollama's clients have in common: names with a tag, and how long a model stays loaded."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import Field

from bendi.i18n import _
from bendi.server.api_errors import ApiError
from bendi.server.pool import Kind, Wish

OllamaName = Annotated[str, Field(min_length=1, max_length=2048)]
KeepAlive = float | str | None
MAX_CONTEXT_TOK = 2**24
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def local_name(text: str) -> str:
    """The name of a model without the tag that Ollama's clients put behind every name."""
    name = text.strip()
    return name.removesuffix(":latest") or name


def keep_alive_s(value: KeepAlive) -> float | None:
    """Seconds, from a number of them or a time such as `5m` or `1h30m`. Below zero: for ever. None: as the server is
    set. Raises ApiError."""
    if value is None:
        return None
    seconds = _duration_s(value.strip()) if isinstance(value, str) else float(value)
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


def _duration_s(text: str) -> float:
    """Not a number where it is none."""
    sign = -1.0 if text.startswith("-") else 1.0
    bare = text[1:] if text[:1] in ("+", "-") else text
    if bare.replace(".", "", 1).isdecimal():
        return sign * float(bare)
    parts = _PART.findall(bare)
    if not parts or "".join(number + unit for number, unit in parts) != bare:
        return math.nan
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)
