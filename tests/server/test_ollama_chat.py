"""/api/generate and /api/chat as Ollama's clients use them, over a real server and the built-in model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import LiveServer

import scripted_model
from bendi.server.api_errors import ApiError
from bendi.server.ollama_fields import keep_alive_s, local_name
from bendi.settings import Settings

OPTIONS = {"temperature": 0.0, "num_predict": 24}
QUESTION = [{"role": "user", "content": "What is a KV cache?"}]


def lines(server: LiveServer, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with server.client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.iter_lines()]


def refusal(server: LiveServer, path: str, body: dict[str, Any], status: int = 400) -> str:
    answer = server.client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"])


def test_chat_streams_lines_unless_told_not_to(server: LiveServer) -> None:
    body = {"model": "demo", "messages": QUESTION, "options": OPTIONS}
    streamed = lines(server, "/api/chat", body)
    *pieces, last = streamed
    assert pieces
    assert all(piece["model"] == "demo" and not piece["done"] for piece in pieces)
    assert all(piece["message"]["role"] == "assistant" for piece in streamed)
    whole = server.client.post("/api/chat", json={**body, "stream": False}).json()
    assert whole["message"]["content"] == "".join(piece["message"]["content"] for piece in pieces)
    assert whole["done"] and last["done"] and last["message"]["content"] == ""
    assert whole["done_reason"] == last["done_reason"] == "length"
    assert whole["eval_count"] == last["eval_count"] == 24


def test_counts_and_durations(server: LiveServer) -> None:
    whole = server.client.post(
        "/api/chat", json={"model": "demo", "messages": QUESTION, "options": OPTIONS, "stream": False}
    ).json()
    names = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    total, load, prompt, answer = (whole[name] for name in names)
    assert all(isinstance(whole[name], int) for name in names)
    assert 0 < load < total and prompt > 0 and answer > 0
    assert load + prompt + answer <= total * 1.1
    assert whole["prompt_eval_count"] > 5


def test_generate_is_the_same_answer_with_a_template_and_another_without(server: LiveServer) -> None:
    ask = {"model": "demo:latest", "prompt": QUESTION[0]["content"], "options": OPTIONS, "stream": False}
    generated = server.client.post("/api/generate", json=ask).json()
    chatted = server.client.post(
        "/api/chat", json={"model": "demo", "messages": QUESTION, "options": OPTIONS, "stream": False}
    ).json()
    raw = server.client.post("/api/generate", json={**ask, "raw": True}).json()
    assert generated["model"] == "demo:latest"
    assert generated["response"] == chatted["message"]["content"]
    assert raw["prompt_eval_count"] < generated["prompt_eval_count"]
    assert "context" not in generated
    streamed = lines(server, "/api/generate", {**ask, "stream": True})
    assert "".join(piece["response"] for piece in streamed) == generated["response"]


def test_system_prompts_and_stop_texts_reach_the_engine(server: LiveServer) -> None:
    ask = {"model": "demo", "prompt": "What is a KV cache?", "options": OPTIONS, "stream": False}
    plain = server.client.post("/api/generate", json=ask).json()
    with_system = server.client.post("/api/generate", json={**ask, "system": "Be brief."}).json()
    assert with_system["prompt_eval_count"] > plain["prompt_eval_count"]
    word = plain["response"].split()[2]
    stopped = server.client.post("/api/generate", json={**ask, "options": {**OPTIONS, "stop": [word]}}).json()
    assert stopped["done_reason"] == "stop"
    assert word not in stopped["response"]


def test_format_json_and_schemas(server: LiveServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    ask = {"model": "demo", "prompt": "A number?", "options": {"temperature": 0, "num_predict": 60}, "stream": False}
    answer = server.client.post("/api/generate", json={**ask, "format": schema}).json()
    assert isinstance(json.loads(answer["response"])["n"], int)
    assert server.client.post("/api/generate", json={**ask, "format": "json"}).json()["response"].startswith("{")
    assert "format" in refusal(server, "/api/generate", {**ask, "format": "xml"})


def test_log_probabilities(server: LiveServer) -> None:
    ask = {"model": "demo", "prompt": "Hello", "options": {"temperature": 0, "num_predict": 4}, "stream": False}
    answer = server.client.post("/api/generate", json={**ask, "logprobs": True, "top_logprobs": 2}).json()
    assert 1 <= len(answer["logprobs"]) <= 4
    first = answer["logprobs"][0]
    assert first["logprob"] <= 0 and len(first["top_logprobs"]) == 2
    assert bytes(first["bytes"]).decode() == first["token"]


def test_a_request_without_a_question_loads_and_unloads(server: LiveServer) -> None:
    loaded = server.client.post("/api/generate", json={"model": "demo", "keep_alive": "10m"}).json()
    assert (loaded["response"], loaded["done"], loaded["done_reason"]) == ("", True, "load")
    (model,) = server.client.get("/api/ps").json()["models"]
    assert model["name"] == "demo"
    let_go = server.client.post("/api/chat", json={"model": "demo", "messages": [], "keep_alive": 0}).json()
    assert let_go["done_reason"] == "unload" and let_go["message"]["content"] == ""
    assert server.client.get("/api/ps").json()["models"] == []
    again = server.client.post("/api/generate", json={"model": "demo", "keep_alive": "0s"}).json()
    assert again["done_reason"] == "unload"


@pytest.mark.parametrize(
    ("path", "extra", "word"),
    [
        ("/api/generate", {"suffix": "end"}, "suffix"),
        ("/api/generate", {"template": "{{ x }}"}, "Templates"),
        ("/api/generate", {"context": [1, 2]}, "context"),
        ("/api/generate", {"raw": True, "system": "x"}, "raw"),
        ("/api/generate", {"options": {"temperature": "hot"}}, "temperature"),
        ("/api/generate", {"options": {"num_ctx": "x"}}, "num_ctx"),
        ("/api/generate", {"options": {"stop": [1]}}, "stop"),
        ("/api/generate", {"keep_alive": "soon"}, "keep_alive"),
        ("/api/generate", {"images": ["!!"]}, "base64"),
        ("/api/chat", {"messages": [{"role": "wizard"}]}, "role"),
        ("/api/chat", {"tools": [{"function": {}}]}, "tool"),
        ("/api/chat", {"think": True}, "does not support thinking"),
    ],
)
def test_what_cannot_be_is_refused_and_says_why(
    server: LiveServer, path: str, extra: dict[str, Any], word: str
) -> None:
    body = {"model": "demo", "prompt": "x", "messages": QUESTION, **extra}
    assert word in refusal(server, path, body)


def test_a_model_that_is_not_here(server: LiveServer) -> None:
    assert "nothing-like-it" in refusal(server, "/api/generate", {"model": "nothing-like-it", "prompt": "x"}, 404)
    assert refusal(server, "/api/chat", {"model": "/etc/passwd", "messages": QUESTION}, 404)


def test_nothing_is_truncated_unless_the_client_says_so(server: LiveServer) -> None:
    long = [{"role": "user", "content": "KV cache. " * 3000}, *QUESTION]
    body = {"model": "demo", "messages": long, "options": OPTIONS, "stream": False}
    answer = server.client.post("/api/chat", json={**body, "truncate": False})
    assert answer.status_code == 400
    assert answer.json()["context_needed"] > 3000
    turns = [{"role": "user", "content": "word " * 1500}, {"role": "assistant", "content": "Yes."}] * 4
    slid = server.client.post("/api/chat", json={**body, "messages": [*turns, *QUESTION], "truncate": True}).json()
    assert slid["context_policy"] == "slide"
    assert slid["dropped_messages"] >= 2


def test_thinking_is_apart(settings: Settings, thinking_model: Path) -> None:
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thinking.gguf").write_bytes(thinking_model.read_bytes())
    with LiveServer(settings) as server:
        body = {"model": "thinking.gguf", "messages": QUESTION, "options": OPTIONS}
        pieces = lines(server, "/api/chat", {**body, "think": True})
        assert any(piece["message"].get("thinking") for piece in pieces)
        whole = server.client.post("/api/chat", json={**body, "think": False, "stream": False}).json()
        assert whole["message"]["content"] and "thinking" not in whole["message"]


def test_calls_of_tools_are_objects_and_come_whole(settings: Settings) -> None:
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    scripted_model.write(folder / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    parameters = {
        "type": "object",
        "properties": {"billions": {"type": "integer"}, "exact": {"type": "boolean"}},
        "required": ["billions", "exact"],
    }
    tool = {"type": "function", "function": {"name": "memory_needed", "parameters": parameters}}
    with LiveServer(settings) as server:
        body = {"model": "tools.gguf", "messages": QUESTION, "tools": [tool], "options": {"temperature": 0}}
        *pieces, last = lines(server, "/api/chat", body)
        (piece,) = [piece for piece in pieces if "tool_calls" in piece["message"]]
        (call,) = piece["message"]["tool_calls"]
        assert last["done_reason"] == "stop"
        assert call["function"]["name"] == "memory_needed"
        assert isinstance(call["function"]["arguments"]["billions"], int)
        whole = server.client.post("/api/chat", json={**body, "stream": False}).json()
        assert whole["message"]["tool_calls"][0]["function"] == call["function"]
        # The call and its result, as clients send them back: arguments as an object, the result by the tool's name.
        result = {"role": "tool", "tool_name": "memory_needed", "content": "4 GiB"}
        more = {**body, "messages": [*QUESTION, whole["message"], result], "stream": False, "tools": None}
        more["options"] = {"temperature": 0, "num_predict": 4}
        asked_tok = server.client.post("/api/chat", json={**more, "messages": QUESTION}).json()["prompt_eval_count"]
        assert server.client.post("/api/chat", json=more).json()["prompt_eval_count"] > asked_tok + len("memory_needed")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_keep_alive_takes_any_number(value: float) -> None:
    seconds = keep_alive_s(value)
    assert seconds == (math.inf if value < 0 else value)


@given(st.text(max_size=12))
def test_keep_alive_is_a_time_or_refused(text: str) -> None:
    try:
        seconds = keep_alive_s(text)
    except ApiError as error:
        assert error.status == 400
    else:
        assert seconds is not None and seconds >= 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("-1", math.inf), ("-5m", math.inf), ("0", 0), ("1.5s", 1.5)]
)
def test_keep_alive_texts(text: str, seconds: float) -> None:
    assert keep_alive_s(text) == pytest.approx(seconds)


def test_names() -> None:
    assert local_name("demo:latest") == "demo"
    assert local_name(" hf:a/b:Q4_K_M ") == "hf:a/b:Q4_K_M"
