"""A real embedding model: the engine's vectors are those of the published weights, and mean what they should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from native_engine import opener

import minilm
from bendi.engines import LoadRequest
from bendi.formats import read_model
from bert_reference import BertReference

TEXTS = [
    "Memory bandwidth decides how fast tokens are generated.",
    "How quickly a model writes depends on the speed of the RAM.",
    "The cat sits on the mat.",
    "A kitten is resting on a rug.",
    "Naïve café owners don't (usually) pay 12.5% interest!",
    "内存带宽 and unaffordability",
    "x " * 250,
]
ALIKE = [(0, 1), (2, 3)]
UNLIKE = [(0, 2), (0, 3), (1, 2), (1, 3), (0, 4), (2, 4)]


@pytest.fixture(scope="module")
def reference() -> BertReference:
    minilm.needed_model()
    weights = minilm.Weights(minilm.fetched())
    return BertReference(minilm.SHAPE, weights.vocabulary, weights.original)


@pytest.fixture(scope="module", params=["wheel", "native"])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = opener(request.param)(LoadRequest(model_path=minilm.needed_model(), embeddings=True, threads=2), None)
    yield opened
    opened.close()


def test_the_header_is_understood() -> None:
    info = read_model(minilm.needed_model())
    assert (info.architecture, info.context_length, info.embedding_length) == ("bert", 512, 384)
    assert (info.vocab_size, info.parameters) == (30522, 22_565_376)


def test_tokens_are_those_of_the_model(engine: Any, reference: BertReference) -> None:
    for text in TEXTS:
        assert engine.tokenize(text) == reference.tokens(text)[1:-1], text


def test_vectors_are_those_of_the_weights(engine: Any, reference: BertReference) -> None:
    made = engine.vectors(TEXTS)
    assert made.prompt_tok == sum(len(reference.tokens(text)) for text in TEXTS)
    for text, vector in zip(TEXTS, made.vectors, strict=True):
        cosine = float(np.dot(np.asarray(vector), reference.embed(text)))
        assert cosine >= 0.999, text


def test_what_means_the_same_is_near(engine: Any) -> None:
    vectors = np.asarray(engine.embed(TEXTS))
    similar = vectors @ vectors.T
    assert min(similar[pair] for pair in ALIKE) > 0.4 > 0.2 > max(similar[pair] for pair in UNLIKE)
