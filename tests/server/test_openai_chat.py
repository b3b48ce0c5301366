"""POST /v1/chat/completions: every field that changes the answer, and every refusal, over real HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from live import LiveServer
from pictures import png

ANY = {"temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0, "max_tokens": 30}
"""Sampling so wild that two answers are never the same by chance."""
QUESTION = [{"role": "user", "content": "What is a KV cache?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "For tests.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


def ask(server: LiveServer, **fields: Any) -> httpx.Response:
    body = {"model": "demo", "messages": QUESTION, "max_tokens": 12, "temperature": 0} | fields
    return server.client.post("/v1/chat/completions", json=body)


def answer(server: LiveServer, **fields: Any) -> dict[str, Any]:
    got = ask(server, **fields)
    assert got.status_code == 200, got.text
    return got.json()


def events(server: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    """The data of a streamed answer, without the last, which must be [DONE]."""
    got = ask(server, stream=True, **fields)
    assert got.status_code == 200, got.text
    assert got.headers["content-type"].startswith("text/event-stream")
    frames = [line.removeprefix("data: ") for line in got.text.split("\n\n") if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [json.loads(text) for text in frames[:-1]]


def text_of(streamed: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for event in streamed for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_a_whole_answer(talking: LiveServer) -> None:
    got = answer(talking)
    (choice,) = got["choices"]
    assert got["object"] == "chat.completion"
    assert got["id"].startswith("chatcmpl-")
    assert got["model"] == "demo"
    assert got["system_fingerprint"].startswith("bendi-") and "-xllamacpp-" in got["system_fingerprint"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    usage = got["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12
    assert got["bendi"]["context_tok"] > 0
    assert got["bendi"]["timings"]["ttft_s"] > 0


def test_a_streamed_answer_is_the_same(talking: LiveServer) -> None:
    whole = answer(talking)
    streamed = events(talking, stream_options={"include_usage": True})
    assert text_of(streamed) == whole["choices"][0]["message"]["content"]
    assert streamed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len({event["id"] for event in streamed}) == 1
    *_pieces, last, usage = streamed
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["bendi"]["model"] == "demo"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert all(event["usage"] is None for event in streamed[:-1])


def test_no_usage_is_streamed_unless_asked_for(talking: LiveServer) -> None:
    assert all("usage" not in event and event["choices"] for event in events(talking))


def test_several_answers(talking: LiveServer) -> None:
    got = answer(talking, n=3, seed=5, **ANY)
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in got["choices"]}) > 1
    assert got["usage"]["completion_tokens"] == 90
    again = events(talking, n=3, seed=5, **ANY)
    assert [text_of(again, at) for at in range(3)] == [choice["message"]["content"] for choice in got["choices"]]


def test_a_seed_makes_an_answer_repeatable(talking: LiveServer) -> None:
    first, second, other = (
        answer(talking, seed=seed, **ANY)["choices"][0]["message"]["content"] for seed in (2**40 + 7, 2**40 + 7, 8)
    )
    assert first == second != other


def test_a_stop_text_ends_the_answer_and_is_not_in_it(talking: LiveServer) -> None:
    long = answer(talking, max_tokens=40)["choices"][0]["message"]["content"]
    stop = long.split()[4]
    (choice,) = answer(talking, max_tokens=40, stop=[stop])["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == long[: long.index(stop)]


def test_log_probabilities(talking: LiveServer) -> None:
    (choice,) = answer(talking, logprobs=True, top_logprobs=3)["choices"]
    rows = choice["logprobs"]["content"]
    assert "".join(row["token"] for row in rows) == choice["message"]["content"]
    assert all(len(row["top_logprobs"]) == 3 and row["logprob"] <= 0 for row in rows)
    assert bytes(rows[0]["bytes"]).decode() == rows[0]["token"]
    assert rows[0]["top_logprobs"][0]["token"] == rows[0]["token"]
    streamed = events(talking, logprobs=True, top_logprobs=3)
    sent = [choice["logprobs"] for event in streamed for choice in event["choices"] if choice["logprobs"]]
    assert [row["token"] for part in sent for row in part["content"]] == [row["token"] for row in rows]


def test_a_bias_forbids_a_token(talking: LiveServer) -> None:
    (choice,) = answer(talking, logprobs=True, max_tokens=1)["choices"]
    assert choice["logprobs"]["content"][0]["top_logprobs"] == []
    first = choice["message"]["content"]
    tokens = {str(number): -100 for number in range(260, 400)}
    assert answer(talking, max_tokens=1)["choices"][0]["message"]["content"] == first
    assert ask(talking, logit_bias=tokens).status_code == 200
    assert ask(talking, logit_bias={"99999999": 1}).status_code == 400


def test_json_as_a_schema_says(talking: LiveServer) -> None:
    schema = {
        "type": "object",
        "properties": {"size": {"enum": ["small", "large"]}, "count": {"type": "integer", "maximum": 99}},
        "required": ["size", "count"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}
    got = answer(talking, response_format=wanted, max_tokens=60)["choices"][0]["message"]["content"]
    assert json.loads(got)["size"] in ("small", "large")
    got = answer(talking, response_format={"type": "json_object"}, max_tokens=80)["choices"][0]["message"]["content"]
    assert isinstance(json.loads(got), dict)
    wanted = {"type": "json_object", "schema": {"const": "42"}}
    assert (
        json.loads(answer(talking, response_format=wanted, max_tokens=60)["choices"][0]["message"]["content"]) == "42"
    )
    for wrong in (123, {"type": "hiccup"}):
        assert ask(talking, response_format={"type": "json_object", "schema": wrong}).status_code == 400
    assert "{" not in answer(talking, response_format={"type": "text"})["choices"][0]["message"]["content"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}, "auto", None])
def test_tools_are_called(talking: LiveServer, choice: Any) -> None:
    fields = {"model": "tools", "tools": [WEATHER], "tool_choice": choice, "max_tokens": 200}
    (whole,) = answer(talking, **fields)["choices"]
    (call,) = whole["message"]["tool_calls"]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    assert call["type"] == "function" and call["id"]
    assert call["function"]["name"] == "f"
    assert isinstance(json.loads(call["function"]["arguments"])["a"], int)

    deltas = [
        delta
        for event in events(talking, **fields)
        for choice in event["choices"]
        for delta in choice["delta"].get("tool_calls", ())
    ]
    assert deltas[0]["id"] and deltas[0]["function"]["name"] == "f" and deltas[0]["type"] == "function"
    assert len(deltas) > 1 and all("id" not in delta for delta in deltas[1:])
    assert "".join(delta["function"]["arguments"] for delta in deltas) == call["function"]["arguments"]


def test_the_answer_of_a_tool_is_read(talking: LiveServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    turns = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    got = answer(talking, model="tools", tools=[WEATHER], tool_choice="none", messages=turns)
    assert got["usage"]["prompt_tokens"] > 100
    assert "tool_calls" not in got["choices"][0]["message"]


def test_thinking_is_kept_apart(talking: LiveServer, thinking_model: Any) -> None:
    link = talking.services.settings.models_dirs[0] / "thinking.gguf"
    link.write_bytes(thinking_model.read_bytes())
    message = answer(talking, model="thinking")["choices"][0]["message"]
    assert message["reasoning_content"]
    assert message["content"] == ""
    streamed = events(talking, model="thinking", stream_options={"include_usage": True})
    assert streamed[1]["choices"][0]["delta"]["reasoning_content"]
    assert streamed[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    for wish in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        assert "reasoning_content" not in answer(talking, model="thinking", **wish)["choices"][0]["message"]


def test_a_persona_is_part_of_the_name(talking: LiveServer) -> None:
    plain, concise = answer(talking), answer(talking, model="demo@concise")
    assert concise["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]
    assert concise["model"] == "demo@concise"
    assert ask(talking, model="demo@nobody").status_code == 404


def test_parts_and_old_roles(talking: LiveServer) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "a KV cache?"}]
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "somebody"}]
    assert answer(talking, messages=turns)["choices"][0]["message"]["content"]


def test_harmless_fields_change_nothing(talking: LiveServer) -> None:
    extra = {"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "modalities": ["text"]}
    assert answer(talking, **extra)["choices"][0]["message"] == answer(talking)["choices"][0]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"grammar": 'root ::= "a"'}, "grammar"),
        ({"chat_template": "{{ evil }}"}, "chat_template"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"abc": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, "messages.0.tool_call_id"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"context_policy": "forget"}, "context_policy"),
        ({"model": None}, "model"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(talking: LiveServer, fields: dict[str, Any], param: str) -> None:
    got = ask(talking, **fields)
    assert got.status_code == 400, got.text
    error = got.json()["error"]
    assert error["param"].startswith(param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_schemas_are_bounded(talking: LiveServer) -> None:
    deep: dict[str, Any] = {}
    for _level in range(40):
        deep = {"properties": {"a": deep}}
    for schema in (deep, {"description": "x" * 100_000}):
        wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        assert ask(talking, response_format=wanted).status_code == 400
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        assert ask(talking, model="tools", tools=[tool]).status_code == 400


def test_images_only_as_data_and_only_where_the_model_sees(talking: LiveServer) -> None:
    def shown(url: str) -> httpx.Response:
        parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        return ask(talking, messages=[{"role": "user", "content": parts}])

    remote = shown("https://127.0.0.1:1/cat.png")
    assert remote.status_code == 400
    assert remote.json()["error"]["param"] == "messages.0.content.1.image_url"
    blind = shown(f"data:image/png;base64,{base64.b64encode(png(8, 8)).decode()}")
    assert blind.status_code == 400
    assert "image" in blind.json()["error"]["message"]


def test_a_model_that_is_not_there(talking: LiveServer) -> None:
    for stream in (False, True):
        got = ask(talking, model="nobody", stream=stream)
        assert got.status_code == 404
        assert got.json()["error"]["code"] == "model_not_found"


def test_too_much_text_is_refused_with_numbers_or_made_to_fit_as_asked(talking: LiveServer) -> None:
    turns = [
        {"role": role, "content": f"{number} " + "memory bandwidth " * 200}
        for number in range(6)
        for role in ("user", "assistant")
    ]
    turns.append(QUESTION[0])
    for stream in (False, True):
        refused = ask(talking, messages=turns, context_policy="error", stream=stream)
        error = refused.json()["error"]
        assert refused.status_code == 400
        assert error["code"] == "context_length_exceeded"
        assert error["context_needed"] > error["context_available"]
    done = answer(talking, messages=turns, context_policy="slide")["bendi"]
    assert done["policy_applied"] == "slide"
    assert done["dropped"] > 0
