"""The `openai` package for Python, unmodified: what it parses, streams and raises is what its users get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from conftest import Server

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
QUESTION: Any = [{"role": "user", "content": "What is a KV cache?"}]


class Thing(BaseModel):
    size: Literal["small", "large"]
    count: Literal[1, 2, 3]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def test_models(client: openai.OpenAI) -> None:
    assert "demo" in [model.id for model in client.models.list()]


def test_chat(client: openai.OpenAI) -> None:
    got = client.chat.completions.create(
        model="demo", messages=QUESTION, max_completion_tokens=12, logprobs=True, top_logprobs=2, n=2, seed=1
    )
    assert [choice.finish_reason for choice in got.choices] == ["length", "length"]
    assert got.choices[0].logprobs and got.choices[0].logprobs.content
    assert len(got.choices[0].logprobs.content[0].top_logprobs) == 2
    assert got.usage and got.usage.completion_tokens == 24
    assert got.system_fingerprint
    assert got.model_extra and got.model_extra["bendi"]["context_tok"] > 0


def test_chat_streamed(client: openai.OpenAI) -> None:
    kwargs: Any = {"model": "demo", "messages": QUESTION, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**kwargs)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **kwargs))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage and chunks[-1].usage.prompt_tokens == (whole.usage and whole.usage.prompt_tokens)


def test_the_streaming_helper_and_the_parser(client: openai.OpenAI) -> None:
    kwargs: Any = {"model": "demo", "messages": QUESTION, "max_tokens": 120, "temperature": 0}
    with client.chat.completions.stream(response_format=Thing, **kwargs) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_completion().choices[0].message.parsed
    parsed = client.chat.completions.parse(response_format=Thing, **kwargs).choices[0].message.parsed
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(parsed, Thing)
    assert parsed == streamed


def test_tools(client: openai.OpenAI) -> None:
    kwargs: Any = {"model": "tools", "messages": QUESTION, "tools": [TOOL], "tool_choice": "required", "temperature": 0}
    parsed = client.chat.completions.parse(**kwargs)
    assert parsed.choices[0].finish_reason == "tool_calls"
    (call,) = parsed.choices[0].message.tool_calls or ()
    assert call.function.name == "f"
    assert isinstance(call.function.parsed_arguments["a"], int)  # type: ignore[index]
    with client.chat.completions.stream(**kwargs) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0].message.tool_calls
    assert len(deltas) > 1
    assert final and final[0].function.arguments == call.function.arguments
    turns = [*QUESTION, parsed.choices[0].message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    assert client.chat.completions.create(
        model="tools", messages=turns, tools=[TOOL], tool_choice="none", max_tokens=20
    ).choices


def test_texts(client: openai.OpenAI) -> None:
    kwargs: Any = {"model": "demo", "prompt": ["A KV cache", "Quantization"], "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(logprobs=1, **kwargs)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].logprobs and len(whole.choices[0].logprobs.tokens or ()) == 6
    chunks = client.completions.create(stream=True, **kwargs)
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == 0)
    assert text == whole.choices[0].text


def test_responses(client: openai.OpenAI) -> None:
    first = client.responses.create(model="demo", input="What is a KV cache?", max_output_tokens=200, temperature=0)
    assert first.status == "completed"
    assert first.output_text
    assert first.usage and first.usage.output_tokens > 0
    counted = client.responses.input_tokens.count(model="demo", input="What is a KV cache?")
    assert counted.input_tokens == first.usage.input_tokens
    with client.responses.stream(
        model="demo", input="And what does it cost?", previous_response_id=first.id, max_output_tokens=300
    ) as stream:
        events = list(stream)
        second = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))  # type: ignore[union-attr]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == second.output_text
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert [item.type for item in client.responses.input_items.list(first.id)] == ["message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(second.id)


def test_responses_parsed_and_with_tools(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model="demo", input="Hi", text_format=Thing, max_output_tokens=120, temperature=0)
    assert isinstance(parsed.output_parsed, Thing)
    tool: Any = {"type": "function", "strict": True, **{k: TOOL["function"][k] for k in ("name", "parameters")}}
    kwargs: Any = {"model": "tools", "tools": [tool], "tool_choice": "required", "temperature": 0}
    with client.responses.stream(input="Hi", **kwargs) as stream:
        deltas = [event for event in stream if event.type == "response.function_call_arguments.delta"]
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert "".join(delta.delta for delta in deltas) == call.arguments
    assert isinstance(json.loads(call.arguments)["a"], int)


def test_errors_are_those_that_the_package_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        turns: Any = [{"role": "user", "content": "memory bandwidth " * 5000}]
        client.chat.completions.create(model="demo", messages=turns, extra_body={"context_policy": "error"})
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="demo", messages=QUESTION, temperature=9)
    assert wrong.value.param == "temperature"


def test_many_at_once_and_leaving_in_the_middle(server: Server) -> None:
    async def talk() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:

            async def one() -> str:
                got = await client.chat.completions.create(model="demo", messages=QUESTION, max_tokens=8, temperature=0)
                return got.choices[0].message.content or ""

            stream = await client.chat.completions.create(model="endless", messages=QUESTION, stream=True)
            async for _chunk in stream:
                break
            await stream.close()
            assert len(set(await asyncio.gather(*[one() for _number in range(8)]))) == 1

    asyncio.run(talk())
