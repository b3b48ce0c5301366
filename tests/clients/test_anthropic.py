"""The `anthropic` package for Python, unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from conftest import Server

QUESTION: Any = [{"role": "user", "content": "What is a KV cache?"}]
ASK: Any = {"model": "demo", "max_tokens": 16, "messages": QUESTION, "extra_body": {"temperature": 0}}
TOOL: Any = {
    "name": "f",
    "description": "Does it",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0) as made:
        yield made


def test_messages(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ASK, system="Be brief.")
    (block,) = message.content
    assert block.type == "text" and block.text
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 16


def test_streams(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**ASK)
    with client.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == message.content[0].text  # type: ignore[union-attr]
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 16
    kinds = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"


def test_tools(client: anthropic.Anthropic) -> None:
    ask = {**ASK, "model": "tools.gguf", "max_tokens": 200, "tools": [TOOL]}
    with client.messages.stream(**ask, tool_choice={"type": "tool", "name": "f"}) as stream:
        message = stream.get_final_message()
    call = message.content[-1]
    assert message.stop_reason == "tool_use" and call.type == "tool_use"
    assert isinstance(call.input["a"], int)  # type: ignore[index]
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "4"}
    turns = [*QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**{**ask, "messages": turns, "max_tokens": 4}).usage.input_tokens


def test_count_tokens(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="demo", messages=QUESTION).input_tokens
    usage = client.messages.create(**ASK).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**ASK, "model": "nothing-like-it"})
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{**ASK, "messages": [{"role": "user", "content": "word " * 30000}]})
    assert caught.value.body["error"]["context_needed"] > 10000  # type: ignore[index]


def test_the_async_client(server: Server) -> None:
    async def talk() -> str:
        made = anthropic.AsyncAnthropic(base_url=server.url, api_key="unused")
        async with made as client, client.messages.stream(**ASK) as stream:
            return await stream.get_final_text()

    assert asyncio.run(talk())
