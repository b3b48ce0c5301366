"""Whatever is sent to whatever endpoint of the real server: never a traceback, never a 5xx, and it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import LiveServer

from bendi.server.app import ALL
from bendi.server.endpoint import Endpoint
from bendi.settings import load_settings

WITH_BODY = [endpoint for endpoint in ALL if endpoint.body is not None]
NAMES = sorted({name for endpoint in WITH_BODY if endpoint.body for name in endpoint.body.model_fields})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
    | st.sampled_from(["no-such-model", "", "../../etc/passwd", "http://localhost/x.gguf", "\x00", "a" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "role", "type"]), inner),
    max_leaves=12,
)  # fmt: skip
MODELS = st.sampled_from(["no-such-model", "", "@x", "hf:a/b", "/etc/passwd", "https://localhost/m.gguf", 1, None, {}])
BODIES = st.builds(
    lambda fields, model: {**fields, "model": model},
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
    MODELS,
)
SLOW = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("malformed")
    places = {name: str(home / name) for name in ("BENDI_MODELS", "BENDI_STATE", "BENDI_CACHE", "BENDI_CONFIG")}
    other = {"OLLAMA_MODELS": str(home), "HF_HUB_CACHE": str(home), "BENDI_LMSTUDIO_MODELS": str(home)}
    with LiveServer(load_settings(places | other | {"BENDI_OFFLINE": "1"})) as server:
        yield server


def check(live: LiveServer, endpoint: Endpoint, answer: httpx.Response, sent: object) -> None:
    not_offered = answer.status_code == 501 and 501 in endpoint.errors
    assert answer.status_code < 500 or not_offered, (sent, answer.text)
    assert not [line for line in live.log if line["event"] == "defect"], (sent, live.log)
    if answer.status_code >= 400:
        assert "Traceback" not in answer.text and "error" in answer.json()


@SLOW
@given(st.sampled_from(WITH_BODY), BODIES)
def test_any_fields(live: LiveServer, endpoint: Endpoint, body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    check(
        live,
        endpoint,
        live.client.request(endpoint.method, endpoint.path.split("{")[0], content=raw),
        (endpoint.path, raw),
    )


@SLOW
@given(st.sampled_from(ALL), st.binary(max_size=200))
def test_any_bytes(live: LiveServer, endpoint: Endpoint, raw: bytes) -> None:
    check(
        live,
        endpoint,
        live.client.request(endpoint.method, endpoint.path.split("{")[0], content=raw),
        (endpoint.path, raw),
    )


@SLOW
@given(
    st.sampled_from([endpoint for endpoint in ALL if "{" in endpoint.path]), st.text(max_size=30), st.text(max_size=9)
)
def test_any_path_and_query(live: LiveServer, endpoint: Endpoint, name: str, query: str) -> None:
    path = quote(endpoint.path.split("{")[0] + name) + "?" + quote(query)
    check(live, endpoint, live.client.request(endpoint.method, path, content=b"{}"), path)


def test_it_still_answers(live: LiveServer) -> None:
    assert live.client.get("/health").json() == {"status": "ok"}
