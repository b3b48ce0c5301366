"""Embeddings and reranking over HTTP, with models that have random weights and a real engine."""

from __future__ import annotations

import base64
import math
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import LiveServer

from bendi.formats import read_gguf
from bendi.server.kinds import usual_kind
from bendi.server.reading import MOST_INPUTS, says_it_can_be_shortened
from bendi.settings import load_settings
from bert_models import SMALL, SMALL_RANKER, write_random_bert

TEXTS = ["the memory bandwidth", "rain", "speed of the cache"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_random_bert(folder / "encoder.gguf")
    write_random_bert(folder / "ranker.gguf", SMALL_RANKER)
    return folder


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("server")
    environment = {"BENDI_STATE": str(home / "s"), "BENDI_CACHE": str(home / "c"), "BENDI_CONFIG": str(home / "k")}
    settings = load_settings({"BENDI_MODELS": str(models), "BENDI_ENGINE": "wheel", **environment})
    with LiveServer(replace(settings, threads=2)) as live:
        yield live


def post(server: LiveServer, path: str, body: dict[str, Any]) -> httpx.Response:
    return server.client.post(path, json=body)


def embed(server: LiveServer, given: Any, **options: Any) -> dict[str, Any]:
    response = post(server, "/v1/embeddings", {"model": "encoder", "input": given, **options})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def vectors(answer: dict[str, Any]) -> list[list[float]]:
    return [row["embedding"] for row in answer["data"]]


def metric(server: LiveServer, name: str) -> float:
    """Of all models together."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def refused(server: LiveServer, path: str, body: dict[str, Any], status: int = 400) -> dict[str, Any]:
    response = post(server, path, body)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


def test_one_text_and_several(server: LiveServer) -> None:
    several = embed(server, TEXTS)
    assert several["object"] == "list" and several["model"] == "encoder"
    assert [row["index"] for row in several["data"]] == [0, 1, 2]
    assert all(row["object"] == "embedding" for row in several["data"])
    assert all(len(vector) == SMALL.width for vector in vectors(several))
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-6 for vector in vectors(several))
    one = embed(server, TEXTS[1])
    assert vectors(one)[0] == pytest.approx(vectors(several)[1], abs=1e-6)
    assert several["usage"]["prompt_tokens"] == several["usage"]["total_tokens"] > one["usage"]["prompt_tokens"] == 3


def test_tokens_instead_of_text(server: LiveServer) -> None:
    one, several = embed(server, [2, 90, 3]), embed(server, [[2, 90, 3], [2, 91, 3]])
    assert vectors(one)[0] == pytest.approx(vectors(several)[0], abs=1e-6)
    assert (one["usage"]["prompt_tokens"], several["usage"]["prompt_tokens"]) == (3, 6)
    assert "invalid tokens" in refused(server, "/v1/embeddings", {"model": "encoder", "input": [10**6]})["message"]


def test_tokens_beside_texts(server: LiveServer) -> None:
    mixed = vectors(embed(server, ["rain", [2, 90, 3]]))
    assert mixed[0] == pytest.approx(vectors(embed(server, "rain"))[0], abs=1e-6)
    assert mixed[1] == pytest.approx(vectors(embed(server, [2, 90, 3]))[0], abs=1e-6)


def test_base64_has_the_same_numbers(server: LiveServer) -> None:
    (plain,) = vectors(embed(server, "rain"))
    (encoded,) = vectors(embed(server, "rain", encoding_format="base64"))
    raw = base64.b64decode(encoded)  # type: ignore[arg-type]
    assert list(struct.unpack(f"<{SMALL.width}f", raw)) == pytest.approx(plain, rel=1e-8)
    # As many digits as a 32-bit float has, and no more.
    assert struct.pack(f"<{SMALL.width}f", *plain) == raw


def test_many_texts(server: LiveServer) -> None:
    answer = embed(server, ["the rain"] * MOST_INPUTS)
    assert len(answer["data"]) == MOST_INPUTS
    assert vectors(answer)[-1] == pytest.approx(vectors(answer)[0], abs=1e-5)
    error = refused(server, "/v1/embeddings", {"model": "encoder", "input": ["x"] * (MOST_INPUTS + 1)})
    assert error["param"].startswith("input")


@pytest.mark.parametrize("given", ["", [], [""], ["rain", ""], [[]], [-1], {"text": "rain"}, None, [["rain"]], 5])
def test_inputs_that_make_no_sense(server: LiveServer, given: Any) -> None:
    assert refused(server, "/v1/embeddings", {"model": "encoder", "input": given})["param"].startswith("input")


@pytest.mark.parametrize("field", [{"encoding_format": "int8"}, {"dimensions": 0}, {"dimensions": 1000}])
def test_options_that_cannot_be(server: LiveServer, field: dict[str, Any]) -> None:
    error = refused(server, "/v1/embeddings", {"model": "encoder", "input": "rain", **field})
    assert error["param"] == next(iter(field))


def test_nothing_is_cut(server: LiveServer) -> None:
    too_long = "a " * SMALL.context_tok
    error = refused(server, "/v1/embeddings", {"model": "encoder", "input": ["rain", too_long]})
    assert error["code"] == "context_length_exceeded"
    assert error["context_needed"] == SMALL.context_tok + 2 > error["context_available"] == SMALL.context_tok
    assert "--context" not in error["message"], "clients have no command line"
    assert embed(server, "a " * (SMALL.context_tok - 2))["usage"]["prompt_tokens"] == SMALL.context_tok


def test_the_context_grows_where_the_model_can(models: Path, tmp_path: Path) -> None:
    settings = load_settings(
        {"BENDI_MODELS": str(models), "BENDI_CONTEXT": "256", **{f"BENDI_{x}": str(tmp_path / x) for x in _FOLDERS}}
    )
    with LiveServer(settings) as live:
        assert embed(live, "rain")
        assert metric(live, "bendi_model_context_tokens") == 256
        assert embed(live, "a " * 600)["usage"]["prompt_tokens"] == 602
        assert metric(live, "bendi_model_context_tokens") == 768


_FOLDERS = ("STATE", "CACHE", "CONFIG")


def test_shorter_vectors_only_from_models_that_were_trained_for_it(server: LiveServer, tmp_path: Path) -> None:
    assert len(vectors(embed(server, "rain", dimensions=SMALL.width))[0]) == SMALL.width
    error = refused(server, "/v1/embeddings", {"model": "encoder", "input": "rain", "dimensions": 16})
    assert error["param"] == "dimensions" and "trained" in error["message"]
    folder = tmp_path / "models"
    folder.mkdir()
    names = {"qwen": "Qwen3 Embedding 0.6B", "other": "MiniLM"}
    for file, name in names.items():
        write_random_bert(folder / f"{file}.gguf", name=name)
    tagged = write_random_bert(folder / "tagged.gguf", tags=["sentence-similarity", "Matryoshka"])
    assert says_it_can_be_shortened(read_gguf(tagged))
    assert [says_it_can_be_shortened(read_gguf(folder / f"{file}.gguf")) for file in names] == [True, False]
    settings = load_settings({"BENDI_MODELS": str(folder), **{f"BENDI_{x}": str(tmp_path / x) for x in _FOLDERS}})
    with LiveServer(settings) as live:
        body = {"model": "tagged", "input": "rain"}
        (whole,) = vectors(post(live, "/v1/embeddings", body).json())
        (short,) = vectors(post(live, "/v1/embeddings", {**body, "dimensions": 16}).json())
    length = math.sqrt(sum(x * x for x in whole[:16]))
    assert short == pytest.approx([x / length for x in whole[:16]], abs=1e-6)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_ranks_the_best_first(server: LiveServer, path: str) -> None:
    answer = post(server, path, {"model": "ranker", "query": "memory", "documents": TEXTS}).json()
    results = answer["results"]
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] < scores[0] <= 1
    assert "document" not in results[0]
    assert answer["usage"]["total_tokens"] > 10 and answer["id"] and answer["model"] == "ranker"


def test_only_the_best_with_their_texts(server: LiveServer) -> None:
    body = {"model": "ranker", "query": "memory", "documents": [{"text": text} for text in TEXTS], "top_n": 2}
    results = post(server, "/v1/rerank", {**body, "return_documents": True}).json()["results"]
    assert len(results) == 2
    assert all(result["document"]["text"] == TEXTS[result["index"]] for result in results)
    assert len(post(server, "/v1/rerank", {**body, "top_n": 50}).json()["results"]) == 3


@pytest.mark.parametrize(
    "field",
    [{"query": ""}, {"query": 5}, {"documents": []}, {"documents": "rain"}, {"documents": [5]}, {"top_n": 0}],
)
def test_rankings_that_make_no_sense(server: LiveServer, field: dict[str, Any]) -> None:
    error = refused(server, "/v1/rerank", {"model": "ranker", "query": "memory", "documents": TEXTS, **field})
    assert error["param"].startswith(next(iter(field)))


def test_a_document_that_is_too_long_is_never_cut(server: LiveServer) -> None:
    documents = ["rain", "a " * SMALL_RANKER.context_tok]
    error = refused(server, "/v1/rerank", {"model": "ranker", "query": "memory", "documents": documents})
    assert error["context_needed"] == SMALL_RANKER.context_tok + 3 > error["context_available"]


def test_models_are_asked_only_what_they_can(server: LiveServer) -> None:
    ranking = {"query": "memory", "documents": TEXTS}
    assert "rank" in refused(server, "/v1/rerank", {"model": "encoder", **ranking}, 422)["message"]
    assert refused(server, "/v1/rerank", {"model": "demo", **ranking}, 422)["code"] == "model_unusable"
    refused(server, "/v1/embeddings", {"model": "absent", "input": "rain"}, 404)
    (vector,) = vectors(post(server, "/v1/embeddings", {"model": "demo", "input": "What is a KV cache?"}).json())
    assert abs(sum(x * x for x in vector) - 1) < 1e-4, "a model that writes can make vectors, too"


def test_kinds_are_known_by_their_headers(models: Path, demo_model: Path, tmp_path: Path) -> None:
    assert usual_kind(models / "encoder.gguf") == "embedding"
    assert usual_kind(models / "ranker.gguf") == "rerank"
    assert usual_kind(demo_model) == "text"
    assert usual_kind(write_random_bert(tmp_path / "silent.gguf", replace(SMALL, pooling=""))) == "embedding"


def test_tokens_are_counted(server: LiveServer) -> None:
    before = metric(server, "bendi_prompt_tokens_total")
    tokens = embed(server, TEXTS)["usage"]["prompt_tokens"]
    assert metric(server, "bendi_prompt_tokens_total") == before + tokens


def test_a_client_that_goes_away_frees_the_model(server: LiveServer) -> None:
    body = {"model": "encoder", "input": ["a " * 1000] * MOST_INPUTS}
    with pytest.raises(httpx.TimeoutException):
        server.client.post("/v1/embeddings", json=body, timeout=httpx.Timeout(10.0, read=0.2))
    gone_s = time.monotonic()
    while metric(server, "bendi_model_busy"):
        assert time.monotonic() - gone_s < 5
        time.sleep(0.01)
    assert embed(server, "rain")
