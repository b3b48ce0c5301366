"""What a test tells its llama-server when it starts it, said as bendi takes it: by the request.

Those tests start llama-server with one model and options, so that requests need not name the model, nor the `/v1` of a
path. Here are two servers that run all the time, one of them with keys; what a test has told its own is added to each
of its requests. Nothing else of what is asked is changed.
"""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai
import requests
from requests.structures import CaseInsensitiveDict

OPENAI_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/rerank", "/models")
"""llama-server has them without `/v1`, too."""
_MODELS = {
    "tinygemma3": "cat",
    "bert-bge": "minilm",
    "jina-reranker": "ranker",
    "stories": "stories260K",
}
"""By a part of the name in the tests; what each is, make_models.py says."""


@dataclass(frozen=True)
class Running:
    """A `bendi serve`. `key`: one of its keys, empty where it asks for none."""

    port: int
    key: str = ""

    def unload_all(self) -> None:
        body = json.dumps({"all": True}).encode()
        headers = {"Content-Type": "application/json"}
        address = f"http://127.0.0.1:{self.port}/api/bendi/stop"
        urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30).close()


class Translator:
    """`told`: the last llama-server that a test has started, with its options; None before there was one. `guarded`:
    starts the server with keys when it is first needed. `picture`: what stands behind addresses of pictures."""

    def __init__(self, plain: Running, guarded: Callable[[], Running], picture: bytes) -> None:
        self._plain, self._guarded, self._picture = plain, guarded, picture
        self._running = plain
        self.told: Any = None

    def start(self, server: Any) -> None:
        """Instead of `ServerProcess.start`."""
        with_keys = server.api_key is not None or server.cors_origins is not None
        self._running = self._guarded() if with_keys else self._plain
        self.told = server
        server.server_port = self._running.port
        if server.n_slots == 1 and not with_keys:
            # A server with one slot has computed nothing yet.
            self._running.unload_all()

    def request(self, session: requests.Session, method: str, url: str, **options: Any) -> requests.Response:
        """Instead of `requests.Session.request`."""
        parts = urlsplit(url)
        if parts.hostname == "huggingface.co":
            return self._picture_from(url)
        if self.told is not None and parts.port == self._running.port:
            url = f"{parts.scheme}://{parts.netloc}{self.path(url.partition(parts.netloc)[2])}"
            if method.upper() == "POST" and isinstance(options.get("json"), dict):
                options["json"] = self.body(options["json"])
            options["headers"] = self.headers(options.get("headers") or {})
        response = _plain_request(session, method, url, **options)
        # They look for names of headers as llama-server writes them; such names have no case (RFC 9110, 5.1).
        response.headers = CaseInsensitiveDict({name.title(): value for name, value in response.headers.items()})
        return response

    def prepare(self, client: Any, options: Any) -> Any:
        """Before `openai.OpenAI` sends what `options` say."""
        if self.told is not None:
            if not client.base_url.path.rstrip("/").endswith("/v1"):
                options.url = self.path(options.url)
            if isinstance(options.json_data, dict):
                options.json_data = self.body(options.json_data)
            given = options.headers if isinstance(options.headers, Mapping) else {}
            options.headers = {**given, **self.headers({"Authorization": f"Bearer {client.api_key}"})}
        return _plain_prepare(client, options)

    def path(self, path: str) -> str:
        return f"/v1{path}" if path.startswith(OPENAI_PATHS) else path

    def body(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """With the model, and with the seed and the temperature that the server was started with."""
        options = {"seed": self.told.seed, "temperature": self.told.temperature}
        return options | dict(given) | {"model": self._model(given)}

    def headers(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """With a key of bendi's instead of the one that the test wanted its server to have."""
        wanted = self.told.api_key
        if not wanted:
            return dict(given)
        return {
            name: value.replace(wanted, self._running.key) if isinstance(value, str) else value
            for name, value in given.items()
        }

    def _model(self, body: Mapping[str, Any]) -> Any:
        name = body.get("model")
        if self.told.model_hf_repo is None:  # a router: the request says which
            return _known(str(name)) or name
        found = _known(f"{self.told.model_hf_repo} {self.told.model_hf_file}")
        if found == "stories260K" and (body.get("tools") or self.told.chat_template_file):
            return f"{found}-tools"
        if found == "stories260K" and " " in (self.told.chat_template or ""):  # a template, not the name of one
            return f"{found}-plain"
        return found

    def _picture_from(self, url: str) -> requests.Response:
        """There is no network."""
        response = requests.Response()
        response.status_code, response.url, response.raw = 200, url, io.BytesIO(self._picture)
        return response


def _known(name: str) -> str | None:
    return next((model for part, model in _MODELS.items() if part in name), None)


_plain_request = requests.Session.request
_plain_prepare = openai.OpenAI._prepare_options
