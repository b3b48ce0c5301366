"""Models that only read: encoders and models that rank, over every engine that loads models."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_engine import opener

from bendi.engines import Embedder, LoadRequest, Reranker, wheel
from bendi.engines.pooling import pooling
from bendi.engines.prepare import prepare
from bendi.engines.protocol import Pooling
from bendi.engines.vectors import sigmoid
from bendi.errors import ContextOverflow, EngineCrashed, ModelFileError, RequestRejected
from bendi.formats import read_gguf_split
from bendi.messages import Cancellation, GenerateRequest, Message
from bert_models import SMALL, SMALL_RANKER, write_random_bert

ENGINES = ("fake", "wheel", "native")
REAL = ("wheel", "native")
DOCUMENTS = ("the weather is rain", "memory bandwidth", "the cache", "speed of the model")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bert(tmp_path_factory.mktemp("models") / "encoder.gguf")


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bert(tmp_path_factory.mktemp("models") / "ranker.gguf", SMALL_RANKER)


@pytest.fixture(scope="module", params=ENGINES)
def ranking_engine(request: pytest.FixtureRequest, ranker: Path) -> Iterator[Any]:
    engine = opener(request.param)(LoadRequest(model_path=ranker, context_tok=256, reranking=True), None)
    yield engine
    engine.close()


def test_ranks_each_document_by_itself(ranking_engine: Any) -> None:
    assert isinstance(ranking_engine, Reranker)
    ranking = ranking_engine.rerank("memory speed", DOCUMENTS)
    assert len(ranking.scores) == len(DOCUMENTS)
    assert len(set(ranking.scores)) > 1
    assert all(0 <= score <= 1 for score in ranking.scores)
    assert ranking.prompt_tok > 2 * len(DOCUMENTS)
    backwards = ranking_engine.rerank("memory speed", DOCUMENTS[::-1])
    assert backwards.scores[::-1] == pytest.approx(ranking.scores, abs=1e-5)
    assert ranking_engine.rerank("memory speed", []).scores == []


def test_a_document_that_is_too_long_is_never_cut(ranking_engine: Any) -> None:
    with pytest.raises(ContextOverflow) as caught:
        ranking_engine.rerank("memory speed", ["rain", "the rain " * 200])
    assert caught.value.needed_tok >= 402 > caught.value.available_tok == 256
    assert ranking_engine.rerank("memory speed", ["the rain " * 120]).prompt_tok >= 242


def test_cancelled_ranking(ranking_engine: Any) -> None:
    cancel = Cancellation()
    cancel.cancel()
    assert ranking_engine.rerank("memory speed", DOCUMENTS, cancel).scores == []


@pytest.mark.parametrize("name", REAL)
def test_scores_are_those_of_the_model(name: str, ranker: Path) -> None:
    """One engine and another agree, whatever else is asked at the same time."""
    with closing(opener(name)(LoadRequest(model_path=ranker, reranking=True, parallel=4), None)) as engine:
        together = engine.rerank("memory speed", DOCUMENTS * 4).scores
        alone = [engine.rerank("memory speed", [document]).scores[0] for document in DOCUMENTS]
        assert together == pytest.approx(alone * 4, abs=1e-4)


@pytest.mark.parametrize("name", REAL)
def test_an_encoder_takes_inputs_longer_than_a_batch(name: str, encoder: Path) -> None:
    with closing(opener(name)(LoadRequest(model_path=encoder, embeddings=True), None)) as engine:
        assert isinstance(engine, Embedder)
        assert engine.info.context_tok == SMALL.context_tok > 512
        long = engine.vectors(["a " * (SMALL.context_tok - 2), "rain"])
        assert long.prompt_tok == SMALL.context_tok + 3
        with pytest.raises(ContextOverflow) as caught:
            engine.vectors(["rain", "a " * (SMALL.context_tok - 1)])
        assert (caught.value.needed_tok, caught.value.available_tok) == (SMALL.context_tok + 1, SMALL.context_tok)
        assert str(SMALL.context_tok) in caught.value.hint


@pytest.mark.parametrize("name", REAL)
def test_a_shorter_context_is_kept(name: str, encoder: Path) -> None:
    with closing(opener(name)(LoadRequest(model_path=encoder, context_tok=256, embeddings=True), None)) as engine:
        with pytest.raises(ContextOverflow) as caught:
            engine.embed(["a " * 300])
        assert caught.value.available_tok == 256
        assert "--context 512" in caught.value.hint
        with pytest.raises(ContextOverflow):
            engine.vectors([[7] * 300])


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("inputs", [[[]], [[10**6]], [[-1]], [[3], []]])
def test_inputs_that_make_no_sense(name: str, inputs: list[list[int]], encoder: Path) -> None:
    load = LoadRequest(model_path=encoder, embeddings=True)
    with closing(opener(name)(load, None)) as engine, pytest.raises(RequestRejected):
        engine.vectors(inputs)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("embeddings", [False, True])
def test_an_encoder_cannot_write(name: str, embeddings: bool, encoder: Path) -> None:
    with closing(opener(name)(LoadRequest(model_path=encoder, embeddings=embeddings), None)) as engine:
        with pytest.raises(RequestRejected) as caught:
            list(engine.generate(GenerateRequest(messages=(Message("user", "hi"),))))
        assert caught.value.hint


def test_each_is_refused_what_it_was_not_loaded_for(ranker: Path, encoder: Path, demo_model: Path) -> None:
    for load in (LoadRequest(model_path=demo_model, context_tok=256), LoadRequest(model_path=ranker, reranking=True)):
        with closing(wheel.open_engine(load)) as engine, pytest.raises(RequestRejected):
            engine.embed(["rain"])
    load = LoadRequest(model_path=encoder, embeddings=True)
    with closing(wheel.open_engine(load)) as engine, pytest.raises(RequestRejected):
        engine.rerank("rain", DOCUMENTS)
    for path in (encoder, demo_model):
        with pytest.raises(ModelFileError) as caught:
            wheel.open_engine(LoadRequest(model_path=path, reranking=True))
        assert "rank" in caught.value.message and caught.value.hint


def test_pooling_is_what_the_header_says(tmp_path: Path, demo_model: Path) -> None:
    for stated in ("mean", "cls", "last"):
        path = write_random_bert(tmp_path / f"{stated}.gguf", replace(SMALL, pooling=stated))
        assert prepare(LoadRequest(model_path=path, embeddings=True)).pooling == stated
        assert prepare(LoadRequest(model_path=path, embeddings=True, pooling="cls")).pooling == "cls"
    silent = LoadRequest(model_path=demo_model, embeddings=True)
    assert pooling(silent, read_gguf_split(demo_model)) == "mean"
    assert prepare(LoadRequest(model_path=demo_model)).pooling == ""


@pytest.mark.parametrize("name", REAL)
def test_poolings_differ(name: str, tmp_path: Path) -> None:
    vectors = []
    for pooled in ("mean", "cls", "last"):
        path = write_random_bert(tmp_path / f"{pooled}.gguf", replace(SMALL, pooling=pooled))
        with closing(opener(name)(LoadRequest(model_path=path, embeddings=True), None)) as engine:
            vectors += engine.embed(["memory bandwidth of the model"])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True)) < 0.999


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("pooled", ["mean", "cls", "last"])
@pytest.mark.parametrize("reads_only", [True, False])
def test_inputs_of_different_lengths_do_not_disturb_one_another(
    name: str, pooled: Pooling, reads_only: bool, encoder: Path, demo_model: Path
) -> None:
    path = encoder if reads_only else demo_model
    load = LoadRequest(model_path=path, context_tok=512, embeddings=True, pooling=pooled, parallel=4)
    with closing(opener(name)(load, None)) as engine:
        texts = ["rain", "What is a KV cache?", "the " * 300, "What does quantization do, and why?", "a", "speed of"]
        alone = [engine.embed([text])[0] for text in texts]
        for together, single in zip(engine.embed(texts * 2), alone * 2, strict=True):
            # Not to the last digit: attention is computed in half precision, in another order.
            assert sum(x * y for x, y in zip(together, single, strict=True)) > 0.999


def test_only_what_must_be_computed_at_once_takes_larger_batches(encoder: Path, demo_model: Path) -> None:
    def batch(path: Path, **options: Any) -> int:
        return prepare(LoadRequest(model_path=path, context_tok=1024, **options)).setup.n_ubatch

    assert batch(encoder, embeddings=True) == 1024
    assert batch(demo_model, embeddings=True) == 1024, "the mean is over all tokens"
    assert batch(demo_model, embeddings=True, pooling="last") == 512
    assert batch(demo_model) == 512


@pytest.mark.parametrize("name", REAL)
def test_the_last_token_of_an_input_longer_than_a_batch(name: str, demo_model: Path) -> None:
    load = LoadRequest(model_path=demo_model, context_tok=1024, embeddings=True, pooling="last")
    with closing(opener(name)(load, None)) as engine:
        (vector,) = engine.embed(["带宽" * 700])
        assert abs(sum(x * x for x in vector) - 1) < 1e-3


@pytest.mark.parametrize("name", REAL)
def test_cancelling_stops_the_computation(name: str, encoder: Path) -> None:
    with closing(opener(name)(LoadRequest(model_path=encoder, embeddings=True), None)) as engine:
        cancel = Cancellation()
        started_s = time.monotonic()
        threading.Timer(0.1, cancel.cancel).start()
        assert engine.vectors(["a " * 1000] * 2000, cancel).vectors == []
        cancelled_s = time.monotonic() - started_s
        engine.embed(["rain"])
        assert time.monotonic() - started_s < 10 * cancelled_s + 2, "the rest is not computed first"


@pytest.mark.parametrize("name", REAL)
def test_closed_engine_says_so(name: str, ranker: Path) -> None:
    engine = opener(name)(LoadRequest(model_path=ranker, reranking=True), None)
    engine.close()
    with pytest.raises(EngineCrashed):
        engine.rerank("rain", DOCUMENTS)


def test_sigmoid() -> None:
    assert sigmoid(0) == 0.5
    assert sigmoid(1000) == 1 and sigmoid(-1000) == 0
    assert math.isclose(sigmoid(2) + sigmoid(-2), 1)
