"""POST /v1/completions over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from live import LiveServer


def ask(server: LiveServer, **fields: Any) -> httpx.Response:
    body = {"model": "demo", "prompt": "A KV cache keeps", "max_tokens": 8, "temperature": 0} | fields
    return server.client.post("/v1/completions", json=body)


def answer(server: LiveServer, **fields: Any) -> dict[str, Any]:
    got = ask(server, **fields)
    assert got.status_code == 200, got.text
    return got.json()


def events(server: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    got = ask(server, stream=True, **fields)
    assert got.status_code == 200, got.text
    frames = [line.removeprefix("data: ") for line in got.text.split("\n\n") if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [json.loads(text) for text in frames[:-1]]


def text_of(streamed: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(choice["text"] for event in streamed for choice in event["choices"] if choice["index"] == index)


def test_a_text_is_continued(talking: LiveServer) -> None:
    got = answer(talking)
    (choice,) = got["choices"]
    assert got["object"] == "text_completion"
    assert choice["text"]
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    assert got["usage"]["completion_tokens"] == 8
    streamed = events(talking, stream_options={"include_usage": True})
    assert text_of(streamed) == choice["text"]
    assert streamed[-2]["choices"][0]["finish_reason"] == "length"
    assert streamed[-1]["usage"]["completion_tokens"] == 8
    assert streamed[-1]["choices"] == []


def test_the_default_is_sixteen_tokens(talking: LiveServer) -> None:
    assert answer(talking, model="endless", prompt="a", max_tokens=None)["usage"]["completion_tokens"] == 16


def test_several_prompts_and_several_answers_to_each(talking: LiveServer) -> None:
    single = [answer(talking, prompt=prompt) for prompt in ("A KV cache", "Quantization is")]
    alone = [one["choices"][0]["text"] for one in single]
    got = answer(talking, prompt=["A KV cache", "Quantization is"], n=2, best_of=2)
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in got["choices"]] == [alone[0], alone[0], alone[1], alone[1]]
    for counted, times in (("completion_tokens", 2), ("prompt_tokens", 1)):
        assert got["usage"][counted] == times * sum(one["usage"][counted] for one in single)
    streamed = events(talking, prompt=["A KV cache", "Quantization is"], n=2)
    assert [text_of(streamed, at) for at in range(4)] == [choice["text"] for choice in got["choices"]]


def test_prompts_as_tokens(talking: LiveServer) -> None:
    text = answer(talking, model="endless", prompt="ab a")["choices"][0]["text"]
    tokens = list(b"ab a")
    assert answer(talking, model="endless", prompt=tokens)["choices"][0]["text"] == text == "a" * 8
    both = answer(talking, model="endless", prompt=[tokens, tokens])
    assert [choice["text"] for choice in both["choices"]] == [text, text]


def test_tokens_that_do_not_exist_harm_nobody(talking: LiveServer) -> None:
    got = ask(talking, prompt=[1, 2**31 - 1])
    assert got.status_code == 400, got.text
    assert answer(talking)["choices"][0]["text"]


def test_echo(talking: LiveServer) -> None:
    plain = answer(talking)["choices"][0]["text"]
    assert answer(talking, echo=True)["choices"][0]["text"] == f"A KV cache keeps{plain}"
    assert text_of(events(talking, echo=True)) == f"A KV cache keeps{plain}"


def test_log_probabilities_in_the_old_shape(talking: LiveServer) -> None:
    (choice,) = answer(talking, logprobs=2)["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(told["tokens"])
    assert all(len(row) == 2 for row in told["top_logprobs"])
    ends = [offset + len(token) for offset, token in zip(told["text_offset"], told["tokens"], strict=True)]
    assert told["text_offset"] == [0, *ends[:-1]]
    parts = [choice["logprobs"] for event in events(talking, logprobs=2) for choice in event["choices"]]
    assert [at for part in parts if part for at in part["text_offset"]] == told["text_offset"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "after"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": False}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"context_policy": "slide"}, "context_policy"),
        ({"grammar": 'root ::= "a"'}, "grammar"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(talking: LiveServer, fields: dict[str, Any], param: str) -> None:
    got = ask(talking, **fields)
    assert got.status_code == 400, got.text
    assert got.json()["error"]["param"].startswith(param)


def test_too_much_text_is_refused_with_numbers(talking: LiveServer) -> None:
    for stream in (False, True):
        got = ask(talking, prompt="memory bandwidth " * 3000, context_policy="error", stream=stream)
        assert got.status_code == 400
        assert got.json()["error"]["context_needed"] > got.json()["error"]["context_available"]
