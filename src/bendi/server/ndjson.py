"""Answers that come as lines, each a JSON object: how Ollama streams."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from bendi.server.api_errors import ApiError, error_body
from bendi.server.sse import EventStream

MEDIA_TYPE = "application/x-ndjson"


def line(value: Mapping[str, Any]) -> bytes:
    """One line. Half characters, which UTF-8 cannot express, become question marks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def line_stream(lines: AsyncGenerator[bytes, None]) -> EventStream:
    """The response that sends `lines`. Raises what they raise before the first one; a later error is the last line.
    When the client goes away, `lines` are closed."""
    return EventStream(lines, _failed, b"", MEDIA_TYPE)


def _failed(error: ApiError) -> bytes:
    return line(error_body(error, "ollama"))
