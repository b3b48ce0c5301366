"""/v1/responses over real HTTP: events in order, chains, owners, and everything that is kept."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import LiveServer

from bendi.server.policy import Policy
from bendi.settings import load_settings

TOOL = {
    "type": "function",
    "name": "f",
    "description": "For tests.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


def ask(server: LiveServer, **fields: Any) -> httpx.Response:
    body = {"model": "demo", "input": "What is a KV cache?", "max_output_tokens": 12, "temperature": 0} | fields
    return server.client.post("/v1/responses", json=body)


def answer(server: LiveServer, **fields: Any) -> dict[str, Any]:
    got = ask(server, **fields)
    assert got.status_code == 200, got.text
    return got.json()


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def events(server: LiveServer, **fields: Any) -> list[dict[str, Any]]:
    got = ask(server, stream=True, **fields)
    assert got.status_code == 200, got.text
    found = []
    for block in got.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_a_whole_answer(talking: LiveServer) -> None:
    got = answer(talking, metadata={"a": "b"}, instructions="Be brief.")
    assert got["object"] == "response"
    assert got["status"] == "incomplete"
    assert got["incomplete_details"] == {"reason": "max_output_tokens"}
    assert text_of(got)
    assert got["metadata"] == {"a": "b"}
    usage = got["usage"]
    assert usage["output_tokens"] == 12
    assert usage["total_tokens"] == usage["input_tokens"] + 12
    assert got["bendi"]["model"] == "demo"
    whole = answer(talking, max_output_tokens=200)
    assert (whole["status"], whole["incomplete_details"]) == ("completed", None)
    assert whole["output"][0]["status"] == "completed"


def test_the_series_of_events(talking: LiveServer) -> None:
    found = events(talking, max_output_tokens=200)
    kinds = [event["type"] for event in found]
    deltas = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    whole = found[-1]["response"]
    assert "".join(event["delta"] for event in found if event["type"].endswith("text.delta")) == text_of(whole)
    assert text_of(whole) == text_of(answer(talking, max_output_tokens=200))
    assert found[2]["item"]["content"] == []
    assert found[0]["response"]["output"] == []
    assert talking.client.get(f"/v1/responses/{whole['id']}").json() == whole


def test_calls_are_streamed_and_answered(talking: LiveServer) -> None:
    found = events(talking, model="tools", tools=[TOOL], tool_choice="required", max_output_tokens=200)
    kinds = [event["type"] for event in found]
    assert kinds[2] == "response.output_item.added"
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    (call,) = found[-1]["response"]["output"]
    sent = "".join(event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta")
    assert call["type"] == "function_call"
    assert call["arguments"] == sent == found[-3]["arguments"]
    assert isinstance(json.loads(sent)["a"], int)
    reply = [{"type": "function_call_output", "call_id": call["call_id"], "output": "42"}]
    before = found[-1]["response"]
    fields = {"model": "tools", "tools": [TOOL], "tool_choice": "none", "previous_response_id": before["id"]}
    after = answer(talking, input=reply, **fields)
    assert after["usage"]["input_tokens"] > before["usage"]["input_tokens"]
    by_hand = [{"role": "user", "content": "What is a KV cache?"}, call, *reply]
    same = answer(talking, model="tools", tools=[TOOL], tool_choice="none", input=by_hand)
    assert same["usage"]["input_tokens"] == after["usage"]["input_tokens"]


@pytest.mark.parametrize("choice", [{"type": "function", "name": "f"}, {"type": "allowed_tools", "mode": "required",
    "tools": [{"type": "function", "name": "f"}]}])  # fmt: skip
def test_named_and_allowed_tools(talking: LiveServer, choice: dict[str, Any]) -> None:
    got = answer(talking, model="tools", tools=[TOOL], tool_choice=choice, max_output_tokens=200)
    assert got["output"][0]["name"] == "f"


def test_thinking_is_an_item_of_its_own(talking: LiveServer, thinking_model: Path) -> None:
    (talking.services.settings.models_dirs[0] / "thinking.gguf").write_bytes(thinking_model.read_bytes())
    found = events(talking, model="thinking", input="What is a KV cache? Think.")
    kinds = [event["type"] for event in found]
    assert "response.reasoning_text.delta" in kinds and "response.reasoning_text.done" in kinds
    whole = found[-1]["response"]
    assert whole["output"][0]["type"] == "reasoning"
    assert whole["output"][0]["content"][0]["text"]
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    without = answer(talking, model="thinking", reasoning={"effort": "none"})
    assert without["output"][0]["type"] == "message"
    assert answer(talking, model="thinking", input=[*whole["output"], {"role": "user", "content": "And?"}])


def test_json_as_a_schema_says(talking: LiveServer) -> None:
    schema = {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}, "required": ["size"]}
    wanted = {"format": {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}}
    got = answer(talking, text=wanted, max_output_tokens=80)
    assert json.loads(text_of(got))["size"] in ("small", "large")
    assert got["text"] == wanted


def test_log_probabilities(talking: LiveServer) -> None:
    got = answer(talking, include=["message.output_text.logprobs"], top_logprobs=2)
    rows = got["output"][0]["content"][0]["logprobs"]
    assert "".join(row["token"] for row in rows) == text_of(got)
    assert all(len(row["top_logprobs"]) == 2 for row in rows)
    assert answer(talking)["output"][0]["content"][0]["logprobs"] == []


def test_an_answer_goes_on_from_another(talking: LiveServer) -> None:
    first = answer(talking, instructions="Be brief.")
    second = answer(talking, input="And what does it cost?", previous_response_id=first["id"])
    turns = [
        {"role": "user", "content": "What is a KV cache?"},
        {"role": "assistant", "content": text_of(first)},
        {"role": "user", "content": [{"type": "input_text", "text": "And what does it cost?"}]},
    ]
    assert text_of(second) == text_of(answer(talking, input=turns))
    third = answer(talking, input="Thanks.", previous_response_id=second["id"], store=False)
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"]
    assert ask(talking, previous_response_id=third["id"]).status_code == 404


def test_what_is_stored_can_be_read_listed_and_deleted(talking: LiveServer) -> None:
    turns = [{"role": "user", "content": str(number)} for number in range(5)]
    got = answer(talking, input=turns)
    url = f"/v1/responses/{got['id']}"
    assert talking.client.get(url).json() == got
    listed = talking.client.get(f"{url}/input_items", params={"order": "asc", "limit": 2}).json()
    assert [item["content"][0]["text"] for item in listed["data"]] == ["0", "1"]
    assert listed["has_more"]
    rest = talking.client.get(f"{url}/input_items", params={"order": "asc", "after": listed["last_id"]}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "3", "4"]
    newest = talking.client.get(f"{url}/input_items").json()["data"]
    assert [item["content"][0]["text"] for item in newest] == ["4", "3", "2", "1", "0"]
    assert talking.client.get(f"{url}/input_items", params={"after": "nothing"}).status_code == 400
    assert talking.client.post(f"{url}/cancel").status_code == 400
    assert talking.client.delete(url).json() == {"id": got["id"], "object": "response", "deleted": True}
    for method, path in (("GET", url), ("DELETE", url), ("POST", f"{url}/cancel"), ("GET", f"{url}/input_items")):
        assert talking.client.request(method, path).status_code == 404


def test_nothing_is_stored_unless_wanted(talking: LiveServer) -> None:
    got = answer(talking, store=False, input="a word that must not stay: xylophone")
    assert got["store"] is False
    assert talking.client.get(f"/v1/responses/{got['id']}").status_code == 404
    with sqlite3.connect(talking.services.settings.responses_file) as connection:
        rows = connection.execute("SELECT count(*) FROM answers WHERE input LIKE '%xylophone%'").fetchone()
    connection.close()
    assert rows == (0,)


def test_nobody_finds_the_answers_of_others(tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in ("BENDI_STATE", "BENDI_CACHE", "BENDI_CONFIG", "BENDI_MODELS")}
    with LiveServer(load_settings({"HOME": str(tmp_path), **folders}), Policy(keys_required=True)) as server:
        ann, bob = ({"Authorization": f"Bearer {server.services.keys.add(name)}"} for name in ("ann", "bob"))
        body = {"model": "demo", "input": "Hi", "max_output_tokens": 4}
        url = f"/v1/responses/{server.client.post('/v1/responses', json=body, headers=ann).json()['id']}"
        assert server.client.get(url, headers=ann).status_code == 200
        follow = body | {"previous_response_id": url.rpartition("/")[2]}
        refused = [
            server.client.get(url, headers=bob),
            server.client.delete(url, headers=bob),
            server.client.get(f"{url}/input_items", headers=bob),
            server.client.post("/v1/responses", json=follow, headers=bob),
        ]
        assert [got.status_code for got in refused] == [404] * 4
        never = server.client.get(url.replace("resp_", "resp_0"), headers=bob).json()
        assert refused[0].json()["error"]["code"] == never["error"]["code"] == "response_not_found"
        assert server.client.get(url, headers=ann).status_code == 200


def test_too_much_text(talking: LiveServer) -> None:
    turns = [
        {"role": role, "content": f"{number} " + "memory bandwidth " * 200}
        for number in range(6)
        for role in ("user", "assistant")
    ]
    turns.append({"role": "user", "content": "What is a KV cache?"})
    for stream in (False, True):
        refused = ask(talking, input=turns, truncation="disabled", stream=stream)
        assert refused.status_code == 400
        assert refused.json()["error"]["context_needed"] > 0
    slid = answer(talking, input=turns, truncation="auto")
    assert slid["truncation"] == "auto"
    assert slid["bendi"]["policy_applied"] == "slide"
    assert slid["bendi"]["dropped"] > 0


def test_an_answer_that_cannot_be_stored_is_not_lost(talking: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking.services.stored, "_path", Path("/proc/nowhere/responses.sqlite3"))
    talking.services.stored.close()
    got = answer(talking)
    assert text_of(got)
    assert got["store"] is False
    assert got["bendi"]["store_error"]
    talking.services.stored.close()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://a"}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b.png"}]}]}, "input"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "some"}, "truncation"),
        ({"text": {"format": {"type": "xml"}}}, "text"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(talking: LiveServer, fields: dict[str, Any], param: str) -> None:
    got = ask(talking, **fields)
    assert got.status_code == 400, got.text
    assert got.json()["error"]["param"].startswith(param)


def test_a_model_that_is_not_there(talking: LiveServer) -> None:
    for stream in (False, True):
        assert ask(talking, model="nobody", stream=stream).json()["error"]["code"] == "model_not_found"
