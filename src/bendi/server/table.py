"""Which endpoint a request is for. Asked once for each request: who checks keys and who answers cannot disagree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from starlette.convertors import Convertor
from starlette.routing import compile_path

from bendi.server.endpoint import Endpoint
from bendi.server.openapi import openapi_document


@dataclass(frozen=True)
class Found:
    """`endpoint`: None where no row has this path and method; then `methods` are those that the path has rows for."""

    endpoint: Endpoint | None
    params: dict[str, Any]
    methods: tuple[str, ...]


class Table:
    """All endpoints, by path. A path with rows of its own takes no others; patterns are tried in the order given."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._plain: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Convertor[Any]], dict[str, Endpoint]]] = {}
        for endpoint in self.endpoints:
            regex, _format, convertors = compile_path(endpoint.path)
            rows = (
                self._plain.setdefault(endpoint.path, {})
                if not convertors
                else (self._patterns.setdefault(endpoint.path, (regex, convertors, {}))[2])
            )
            if endpoint.method in rows:
                raise ValueError(f"two endpoints for {endpoint.method} {endpoint.path}")
            rows[endpoint.method] = endpoint

    @cached_property
    def document(self) -> bytes:
        """What these endpoints are, as JSON (OpenAPI 3.1)."""
        return json.dumps(openapi_document(self.endpoints), ensure_ascii=False).encode()

    def find(self, method: str, path: str) -> Found:
        """HEAD is answered where GET is."""
        methods: list[str] = []
        own = self._plain.get(path)
        for candidate, values in [(own, dict[str, Any]())] if own else self._matching(path):
            endpoint = candidate.get("GET" if method == "HEAD" else method)
            if endpoint:
                return Found(endpoint, values, ())
            methods += candidate
        return Found(None, {}, tuple(dict.fromkeys([*methods, "HEAD"] if "GET" in methods else methods)))

    def _matching(self, path: str) -> Iterator[tuple[dict[str, Endpoint], dict[str, Any]]]:
        for regex, convertors, rows in self._patterns.values():
            match = regex.match(path)
            if match:
                yield rows, {name: convertors[name].convert(text) for name, text in match.groupdict().items()}
