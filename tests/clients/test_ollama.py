"""The `ollama` package for Python, unmodified."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import ollama
import pytest

from conftest import Server

QUESTION: Any = [{"role": "user", "content": "What is a KV cache?"}]
OPTIONS: Any = {"temperature": 0, "num_predict": 16}


@pytest.fixture(scope="module")
def client(server: Server) -> ollama.Client:
    return ollama.Client(host=server.url)


def memory_needed(billions: int, exact: bool) -> str:
    """Says how much memory a model needs.

    Args:
      billions: parameters of the model
      exact: whether a guess will not do
    """
    return f"{billions} {exact}"


def test_generate(client: ollama.Client) -> None:
    whole = client.generate("demo", "What is a KV cache?", options=OPTIONS)
    assert whole.response and whole.done and whole.done_reason == "length" and whole.eval_count == 16
    pieces = list(client.generate("demo", "What is a KV cache?", options=OPTIONS, stream=True))
    assert "".join(piece.response or "" for piece in pieces) == whole.response
    assert pieces[-1].total_duration and pieces[-1].prompt_eval_count


def test_chat(client: ollama.Client) -> None:
    whole = client.chat("demo", QUESTION, options=OPTIONS)
    assert whole.message.role == "assistant" and whole.message.content
    pieces = list(client.chat("demo", QUESTION, options=OPTIONS, stream=True, keep_alive="5m"))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = client.chat("demo", QUESTION, options={"temperature": 0, "num_predict": 60}, format=schema)
    assert isinstance(json.loads(answer.message.content or "")["n"], int)


def test_a_function_is_a_tool(client: ollama.Client) -> None:
    answer = client.chat("tools.gguf", QUESTION, tools=[memory_needed], options={"temperature": 0})
    (call,) = answer.message.tool_calls or ()
    assert call.function.name == "memory_needed"
    assert memory_needed(**call.function.arguments)
    more = [*QUESTION, answer.message, {"role": "tool", "tool_name": "memory_needed", "content": "4 GiB"}]
    assert client.chat("tools.gguf", more, options={"num_predict": 4}).done


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("nothing-like-it", "x")
    assert caught.value.status_code == 404 and "nothing-like-it" in caught.value.error
    with pytest.raises(ollama.ResponseError) as caught:
        list(client.chat("demo", QUESTION, think=True, stream=True))
    assert caught.value.status_code == 400


def test_models(client: ollama.Client) -> None:
    assert {"demo", "tools.gguf"} <= {model.model for model in client.list().models}
    shown = client.show("demo")
    assert shown.capabilities == ["completion"] and shown.template and shown.modelinfo
    client.generate("demo", "", keep_alive="10m")
    (running,) = [model for model in client.ps().models if model.model == "demo"]
    assert running.size and running.context_length and running.expires_at
    assert client.copy("demo", "mine").status == "success"
    assert client.generate("mine", "Hello", options={"num_predict": 2}).done
    assert client.delete("mine").status == "success"
    with pytest.raises(ollama.ResponseError):
        client.delete("demo")


def test_pull(client: ollama.Client) -> None:
    assert client.pull("demo").status == "success"
    assert [step.status for step in client.pull("demo", stream=True)][-1] == "success"
    with pytest.raises(ollama.ResponseError):
        client.pull("https://example.org/a.gguf")


def test_the_async_client(server: Server) -> None:
    async def talk() -> str:
        client = ollama.AsyncClient(host=server.url)
        stream = await client.chat("demo", QUESTION, options=OPTIONS, stream=True)
        return "".join([piece.message.content or "" async for piece in stream])

    assert asyncio.run(talk())
