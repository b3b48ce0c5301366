"""Embeddings as Ollama's clients ask for them, over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from live import LiveServer

from bendi.server.api_errors import ApiError
from bendi.server.ollama_fields import keep_alive_s, local_name, wish_for
from bendi.settings import load_settings
from bert_models import SMALL, write_random_bert


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("server")
    (home / "models").mkdir()
    write_random_bert(home / "models" / "encoder.gguf")
    folders = {f"BENDI_{name}": str(home / name) for name in ("STATE", "CACHE", "CONFIG")}
    settings = load_settings({"BENDI_MODELS": str(home / "models"), "BENDI_ENGINE": "wheel", **folders})
    with LiveServer(settings) as live:
        yield live


def post(server: LiveServer, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    response = server.client.post(path, json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_one_text_and_several(server: LiveServer) -> None:
    one = post(server, "/api/embed", {"model": "encoder:latest", "input": "rain"})
    several = post(server, "/api/embed", {"model": "encoder", "input": ["rain", "the memory"]})
    assert one["model"] == "encoder:latest"
    assert [len(vector) for vector in several["embeddings"]] == [SMALL.width] * 2
    assert several["embeddings"][0] == pytest.approx(one["embeddings"][0], abs=1e-6)
    assert (one["prompt_eval_count"], several["prompt_eval_count"]) == (3, 7)
    assert one["total_duration"] >= one["load_duration"] >= 0 == several["load_duration"]


def test_the_older_endpoint(server: LiveServer) -> None:
    old = post(server, "/api/embeddings", {"model": "encoder", "prompt": "rain"})
    new = post(server, "/api/embed", {"model": "encoder", "input": "rain"})
    assert old == {"embedding": pytest.approx(new["embeddings"][0], abs=1e-6)}


def test_without_a_text_the_model_is_only_loaded(server: LiveServer) -> None:
    for body in ({}, {"input": ""}, {"input": []}):
        answer = post(server, "/api/embed", {"model": "encoder", **body})
        assert answer["embeddings"] == [] and answer["prompt_eval_count"] == 0
    assert post(server, "/api/embeddings", {"model": "encoder"}) == {"embedding": []}


def test_nothing_is_cut_whatever_truncate_says(server: LiveServer) -> None:
    body = {"model": "encoder", "input": "a " * 2000, "truncate": True}
    error = post(server, "/api/embed", body, 400)
    assert error["context_needed"] == 2002 and "cut" in error["error"]


def test_dimensions(server: LiveServer) -> None:
    body = {"model": "encoder", "input": "rain"}
    assert len(post(server, "/api/embed", {**body, "dimensions": 0})["embeddings"][0]) == SMALL.width
    assert "trained" in post(server, "/api/embed", {**body, "dimensions": 8}, 400)["error"]


@pytest.mark.parametrize(
    "field", [{"input": 5}, {"input": [5]}, {"keep_alive": "soon"}, {"options": {"num_ctx": -1}}, {"options": 3}]
)
def test_fields_that_make_no_sense(server: LiveServer, field: dict[str, Any]) -> None:
    assert post(server, "/api/embed", {"model": "encoder", "input": "rain", **field}, 400)["error"]


def test_models_that_are_not_there(server: LiveServer) -> None:
    assert "absent" in post(server, "/api/embed", {"model": "absent", "input": "rain"}, 404)["error"]


def test_keep_alive() -> None:
    assert keep_alive_s(None) is None
    assert [keep_alive_s(value) for value in (0, 90, 1.5, "90", "5m", "1h30m", "250ms", "1.5h", "+10s")] == [
        *(0, 90, 1.5, 90, 300, 5400, 0.25, 5400, 10)
    ]
    assert [keep_alive_s(value) for value in (-1, "-1", "-5m")] == [math.inf] * 3
    for value in ("", "soon", "5 m", "m", "5m!", "1.2.3s", "²", "nan", "inf", math.nan):
        with pytest.raises(ApiError):
            keep_alive_s(value)


def test_wishes() -> None:
    wish = wish_for("encoder:latest", "embedding", {"num_ctx": 512, "temperature": 1}, "5m")
    assert (wish.model, wish.kind, wish.context_tok, wish.keep_alive_s) == ("encoder", "embedding", 512, 300)
    assert wish_for("a:b", "text", {"num_ctx": 0}, None).context_tok is None
    assert local_name(" a:latest ") == "a" and local_name("a:7b") == "a:7b"
    for value in (True, 1.5, "512", 2**30):
        with pytest.raises(ApiError):
            wish_for("encoder", "embedding", {"num_ctx": value}, None)
