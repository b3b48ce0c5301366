"""What schemathesis cannot know of `bendi serve`: names of models that are there, and how a stream must end.

Runs in the process of schemathesis (SCHEMATHESIS_HOOKS), so it is no part of the tests' own imports. What was asked and
how it ended is written to the file BENDI_FUZZ_REPORT: {operation: {status: how often}}. BENDI_FUZZ_IMAGE: an image
that is there, as SESSION/NAME.
"""

from __future__ import annotations

import atexit
import json
import os
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import schemathesis

ONE, OTHER = "hf:org/One-GGUF:Q4_K_M", "hf:org/Other-GGUF:Q4_K_M"
MODELS = ("demo", "demo", "demo", "ranks", "tools", "broken", ONE, "")
"""By which a generated name is replaced; empty: it stays."""
BROUGHT = {
    "/api/pull": (ONE, OTHER, "demo", ""),
    "/api/bendi/pull": (OTHER, ONE, "demo", ""),
    "/api/delete": (ONE, ONE, "demo", ""),
    "/api/bendi/models/{name}": (OTHER, OTHER, "demo", ""),
}
"""Likewise, where models come and go: what one operation deletes is not what the other does."""
FILES = ("main.js", "look.css", "bendi.svg", "")
QUESTION = "What is quantization?"
MOST_TOK = 8
LIMITS = {
    "/v1/chat/completions": "max_completion_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}
"""Under which name an operation takes the length of an answer."""
_LONGEST_NAME = 64
_answers: defaultdict[str, Counter[int]] = defaultdict(Counter)
_ids: defaultdict[str, list[str]] = defaultdict(list)


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Most requests name something that is there, or nothing but 404 would be tested; all, until an operation has once
    done what it is for. Answers are short."""
    path = case.operation.path
    undone = not {200, 201} & _answers[case.operation.label].keys()
    if isinstance(case.body, dict):
        case.body = _body(path, case.body, undone)
    parameters = case.path_parameters or {}
    dice = 0 if undone else zlib.crc32(repr(sorted(parameters.items())).encode("utf-8", "replace"))
    if path.endswith("/images/{name}") and dice % 4 == 0:
        parameters["id"], parameters["name"] = os.environ["BENDI_FUZZ_IMAGE"].split("/")
        return
    for name in parameters:
        known = _ids[_family(path)]
        if name == "id" and known and (undone or dice % 4):
            parameters[name] = known[-1 - dice % min(len(known), 8)]
        elif name in ("model", "name"):
            there = FILES if path.startswith("/page/") else BROUGHT.get(path, MODELS)
            parameters[name] = there[dice % len(there)] or parameters[name]


def _body(path: str, sent: dict[str, Any], undone: bool) -> dict[str, Any]:
    body = dict(sent)
    dice = 0 if undone else zlib.crc32(json.dumps(body, sort_keys=True).encode())
    names = BROUGHT.get(path, MODELS)
    for field in ("model", "name", "source"):
        value = body.get(field)
        if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME:
            body[field] = names[dice % len(names)] or value
    limit = LIMITS.get(path)
    value = body.get(limit) if limit else None
    if (
        limit
        and (value is None or (isinstance(value, int) and value > MOST_TOK))
        and (limit in body or undone or dice % 8)
    ):
        body[limit] = MOST_TOK
    if path in ("/api/chat", "/api/generate") and isinstance(body.get("options") or {}, dict):
        body["options"] = {"num_predict": MOST_TOK, **(body.get("options") or {})}
    if undone or dice % 4:
        _make_sense(path, body)
    # Each of these takes the model away or loads it anew, which is slow: not every time.
    if undone or dice % 8:
        body.pop("keep_alive", None)
    if path == "/api/bendi/stop" and dice % 2:
        body["all"] = False
    return body


def _make_sense(path: str, body: dict[str, Any]) -> None:
    """What no schema can say: fields that go together."""
    if path == "/api/bendi/sessions":
        body |= {"model": body.get("model") or "demo", "persona": None, "parameters": {"max_tokens": MOST_TOK}}
    if path == "/api/bendi/sessions/{id}/messages" and not body.get("retry"):
        body |= {"text": body.get("text") or QUESTION, "images": [], "from_position": None}
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        if message.get("role") == "tool" and not message.get("tool_call_id"):
            message["role"] = "user"
        if message.get("role") in ("user", "system", "developer"):
            message.pop("tool_calls", None)
        if not message.get("content") and not message.get("tool_calls"):
            message["content"] = QUESTION
    texts = body.get("input")
    if path == "/v1/embeddings" and isinstance(texts, str | list) and not (texts and all(texts)):
        body["input"] = QUESTION
    if "documents" in body:
        body["model"] = "ranks"
    if body.get("tools"):
        body["model"] = "tools"
    else:
        body.pop("tool_choice", None)
    if body.get("top_logprobs") is not None:
        body["logprobs"] = True


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    """Remembers what was made, so that later requests can ask for it."""
    path = case.operation.path
    _answers[case.operation.label][response.status_code] += 1
    if response.status_code in (200, 201) and case.method == "POST" and _family(path) == path:
        try:
            made = response.json().get("id")
        except ValueError:  # a stream
            return
        if isinstance(made, str):
            _ids[path].append(made)


def _family(path: str) -> str:
    """The path at which things are made of which `path` is one."""
    return path.partition("/{id}")[0]


@schemathesis.check
def streams_are_whole(_context: Any, response: Any, case: Any) -> None:
    """Every event is JSON with an object in it, and the last one is an end as clients of that API know it."""
    kind = (response.headers.get("content-type") or [""])[0].partition(";")[0]
    if kind == "application/x-ndjson":
        lines = [json.loads(line) for line in response.content.decode().splitlines()]
        last = lines[-1]
        assert all(isinstance(line, dict) for line in lines), "a line is no object"
        assert "error" in last or last.get("done") is True or last.get("status") == "success", last
        return
    if kind != "text/event-stream":
        return
    text = response.content.decode()
    assert text.endswith("\n\n"), "the last event has no end"
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    data = ["\n".join(row[6:] for row in frame.split("\n") if row.startswith("data: ")) for frame in frames]
    events = [json.loads(one) for one in data if one != "[DONE]"]
    assert all(isinstance(event, dict) for event in events), "an event is no object"
    ended = {
        "/v1/chat/completions": data[-1] == "[DONE]",
        "/v1/completions": data[-1] == "[DONE]",
        "/v1/responses": events[-1].get("type") in ("response.completed", "response.incomplete", "response.failed"),
        "/v1/messages": events[-1].get("type") == "message_stop",
        "/api/bendi/pull": frames[-1].startswith("event: done\n"),
        "/api/bendi/sessions/{id}/messages": frames[-1].startswith("event: done\n"),
    }
    assert ended[case.operation.path] or "error" in events[-1], frames[-1]


@atexit.register
def _report() -> None:
    path = os.environ.get("BENDI_FUZZ_REPORT")
    if path:
        Path(path).write_text(json.dumps({name: dict(counts) for name, counts in sorted(_answers.items())}, indent=1))
