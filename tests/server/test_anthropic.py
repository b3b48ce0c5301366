"""/v1/messages as Anthropic's clients use it, over a real server and real models."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from live import LiveServer

import scripted_model
from bendi.settings import Settings

QUESTION = [{"role": "user", "content": "What is a KV cache?"}]
BODY = {"model": "demo", "max_tokens": 24, "temperature": 0, "messages": QUESTION}
TOOL = {
    "name": "memory_needed",
    "description": "Memory that a model needs",
    "input_schema": {
        "type": "object",
        "properties": {"billions": {"type": "integer"}, "exact": {"type": "boolean"}},
        "required": ["billions", "exact"],
    },
}


def events(server: LiveServer, body: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    with server.client.stream("POST", "/v1/messages", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                assert data["type"] == name
                found.append(data)
    return [event for event in found if event["type"] != "ping"]


def whole(server: LiveServer, body: dict[str, Any]) -> dict[str, Any]:
    answer = server.client.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.fixture
def tools(settings: Settings) -> Any:
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    scripted_model.write(folder / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    with LiveServer(settings) as live:
        yield live


def test_a_whole_answer(server: LiveServer) -> None:
    message = whole(server, BODY)
    assert message["type"] == "message" and message["role"] == "assistant" and message["model"] == "demo"
    assert message["id"].startswith("msg_")
    (block,) = message["content"]
    assert block["type"] == "text" and block["text"]
    assert (message["stop_reason"], message["stop_sequence"]) == ("max_tokens", None)
    assert message["usage"]["output_tokens"] == 24 and message["usage"]["input_tokens"] > 5


def test_a_streamed_answer_is_the_same_in_events(server: LiveServer) -> None:
    message = whole(server, BODY)
    found = events(server, BODY)
    kinds = [event["type"] for event in found]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    text = "".join(event["delta"]["text"] for event in found if event["type"] == "content_block_delta")
    assert text == message["content"][0]["text"]
    start, end = found[0]["message"], found[-2]
    assert start["content"] == [] and start["stop_reason"] is None
    prompt_tok = sum(message["usage"][name] for name in ("input_tokens", "cache_read_input_tokens"))
    assert start["usage"]["input_tokens"] + start["usage"]["cache_read_input_tokens"] == prompt_tok
    assert end["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert end["usage"]["output_tokens"] == 24


def test_which_stop_sequence_ended_it(server: LiveServer) -> None:
    text = whole(server, BODY)["content"][0]["text"]
    word = text.split()[2]
    message = whole(server, {**BODY, "stop_sequences": ["never said", word]})
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", word)
    end = events(server, {**BODY, "stop_sequences": [word]})[-2]
    assert end["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": word}


def test_system_and_blocks_are_the_same_as_texts(server: LiveServer) -> None:
    as_text = whole(server, {**BODY, "system": "Be brief."})
    cached = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    blocks = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    in_blocks = whole(server, {**BODY, "system": [cached], "messages": blocks, "metadata": {"user_id": "x"}})
    assert in_blocks["content"] == as_text["content"]
    document = {"type": "document", "title": "Notes", "source": {"type": "text", "data": "A KV cache holds keys."}}
    with_document = whole(
        server, {**BODY, "messages": [{"role": "user", "content": [document, *blocks[0]["content"]]}]}
    )
    assert with_document["usage"]["input_tokens"] + with_document["usage"]["cache_read_input_tokens"] > 20


@pytest.mark.parametrize("choice", [None, {"type": "any"}, {"type": "tool", "name": "memory_needed"}])
def test_calls_of_tools(tools: LiveServer, choice: dict[str, Any] | None) -> None:
    body = {**BODY, "model": "tools.gguf", "max_tokens": 200, "tools": [TOOL]}
    if choice:
        body["tool_choice"] = {**choice, "disable_parallel_tool_use": True}
    message = whole(tools, body)
    call = message["content"][-1]
    assert message["stop_reason"] == "tool_use"
    assert call["type"] == "tool_use" and call["name"] == "memory_needed" and call["id"]
    assert isinstance(call["input"]["billions"], int)
    found = events(tools, body)
    starts = [event for event in found if event["type"] == "content_block_start"]
    assert starts[-1]["content_block"]["name"] == "memory_needed" and starts[-1]["content_block"]["input"] == {}
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    pieces = [delta["partial_json"] for delta in deltas if delta["type"] == "input_json_delta"]
    assert json.loads("".join(pieces)) == call["input"]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
    # The next turn, as clients send it.
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "4 GiB"}]}
    more = [*QUESTION, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": [result]}]
    assert whole(tools, {**body, "messages": more, "tool_choice": {"type": "auto"}})["usage"]["output_tokens"] > 0


def test_no_tools_when_none_shall_be_called(tools: LiveServer) -> None:
    body = {**BODY, "model": "tools.gguf", "tools": [TOOL], "tool_choice": {"type": "none"}}
    assert whole(tools, body)["stop_reason"] != "tool_use"


def test_thinking_is_a_block_of_its_own(settings: Settings, thinking_model: Path) -> None:
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    (folder / "thinking.gguf").write_bytes(thinking_model.read_bytes())
    with LiveServer(settings) as server:
        body = {**BODY, "model": "thinking.gguf"}
        asked = {**body, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        assert whole(server, asked)["content"][0]["type"] == "thinking"
        start = next(event for event in events(server, asked) if event["type"] == "content_block_start")
        assert start["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
        assert {block["type"] for block in whole(server, body)["content"]} == {"text"}
        # The budget ends the thinking, and the answer follows within the same max_tokens.
        short = whole(server, {**body, "thinking": {"type": "enabled", "budget_tokens": 2}})["content"]
        assert [block["type"] for block in short] == ["thinking", "text"]
        assert len(short[0]["thinking"].split()) <= 2 and short[1]["text"].strip()


def test_an_answer_by_a_schema(server: LiveServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    output = {"format": {"type": "json_schema", "schema": schema}}
    message = whole(server, {**BODY, "max_tokens": 60, "output_config": output})
    assert isinstance(json.loads(message["content"][0]["text"])["n"], int)


def test_tokens_are_counted_exactly(server: LiveServer) -> None:
    counted = server.client.post(
        "/v1/messages/count_tokens", json={"model": "demo", "messages": QUESTION, "system": "Be brief."}
    ).json()
    usage = whole(server, {**BODY, "system": "Be brief."})["usage"]
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08" + bytes(20)).decode()


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "x"}]}]}, "thinking"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://a"}}]}
                ]
            },
            "opens no URL",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": ""}}]}
                ]
            },
            "text only",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "no tools of its own"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ],
)
def test_what_cannot_be_is_refused_in_the_shape_of_the_dialect(
    server: LiveServer, extra: dict[str, Any], word: str
) -> None:
    answer = server.client.post("/v1/messages", json={**BODY, **extra})
    assert answer.status_code == 400, answer.text
    error = answer.json()
    assert error["type"] == "error" and error["error"]["type"] == "invalid_request_error"
    assert word in error["error"]["message"]


def test_errors_have_their_kinds(server: LiveServer) -> None:
    missing = server.client.post("/v1/messages", json={**BODY, "model": "nothing-like-it"})
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    long = server.client.post("/v1/messages", json={**BODY, "messages": [{"role": "user", "content": "word " * 30000}]})
    assert long.status_code == 400 and long.json()["error"]["context_needed"] > 10000
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    blind = server.client.post("/v1/messages", json={**BODY, "messages": [{"role": "user", "content": [image]}]})
    assert blind.status_code == 400, blind.text
