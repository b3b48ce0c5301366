"""Embeddings by the clients that people have: openai, langchain-openai with its test suite, ollama."""

from __future__ import annotations

import math

import ollama
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from conftest import Server

MODEL = "demo"
TEXTS = ["What is a KV cache?", "What does quantization do?"]


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openai(client: openai.OpenAI) -> None:
    # It asks for base64 by itself.
    answer = client.embeddings.create(model=MODEL, input=TEXTS)
    plain = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert [row.index for row in answer.data] == [0, 1]
    assert math.isclose(sum(x * x for x in answer.data[0].embedding), 1, abs_tol=1e-4)
    assert answer.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-6)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > 5


def test_openai_says_what_is_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="memory bandwidth " * 5000)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.body["context_needed"] > caught.value.body["context_available"]  # type: ignore[index]
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="absent", input="rain")


class TestLangchain(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _where(self, server: Server) -> None:
        self._url = f"{server.url}/v1"

    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, object]:
        # Its own tokenizer is that of OpenAI's models: texts are to be sent as they are.
        return {"model": MODEL, "base_url": self._url, "api_key": "none", "check_embedding_ctx_length": False}


def test_ollama(server: Server) -> None:
    client = ollama.Client(host=server.url)
    answer = client.embed(model=MODEL, input=TEXTS)
    assert len(answer.embeddings) == 2 and answer.prompt_eval_count
    old = client.embeddings(model=MODEL, prompt=TEXTS[0])
    assert list(old.embedding) == pytest.approx(list(answer.embeddings[0]), abs=1e-5)
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed(model="absent", input="rain")
    assert caught.value.status_code == 404
