"""bendi's own API: what the terminal prints as JSON, and sessions that the terminal shares."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from live import LiveServer

import scripted_model
from bendi.chat.sessions import SessionStore
from bendi.messages import Message
from bendi.server.keys import KeyRing
from bendi.settings import Settings

Events = list[tuple[str, dict[str, Any]]]
SHORT = {"model": "demo", "parameters": {"max_tokens": 12, "temperature": 0}}


@pytest.fixture
def endless(settings: Settings) -> Iterator[LiveServer]:
    """A server whose model never ends."""
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    scripted_model.write(folder / "endless.gguf", scripted_model.NEVER_ENDS, scripted_model.PLAIN_TEMPLATE)
    with LiveServer(settings) as server:
        yield server


def stream(server: LiveServer, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    with server.client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def begin(server: LiveServer, **fields: Any) -> str:
    answer = server.client.post("/api/bendi/sessions", json={**SHORT, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(server: LiveServer, session: str, text: str = "What is a KV cache?", **more: Any) -> Events:
    return list(stream(server, f"/api/bendi/sessions/{session}/messages", {"text": text, **more}))


def messages(server: LiveServer, session: str, query: str = "") -> list[dict[str, Any]]:
    return list(server.client.get(f"/api/bendi/sessions/{session}{query}").json()["messages"])


def test_a_question_is_answered_and_both_are_kept(server: LiveServer, settings: Settings) -> None:
    session = begin(server)
    events = ask(server, session)
    names = [name for name, _data in events]
    assert names[0] == "loading" and names[-1] == "done" and names.index("question") < names.index("delta")
    text = "".join(data.get("text", "") for name, data in events if name == "delta")
    done = events[-1][1]
    assert done["message"]["content"] == text and done["finish"] == "length"
    assert done["usage"]["completion_tok"] == 12 and done["context"]["used_tok"] > 12
    kept = messages(server, session)
    assert [message["role"] for message in kept] == ["user", "assistant"]
    assert kept[1]["content"] == text and kept[1]["position"] == done["message"]["position"]
    with contextlib.closing(SessionStore(settings.sessions_file)) as store:  # as the terminal reads them
        (shared,) = store.recent(owner="")
        assert (shared.id, shared.title) == (session, "What is a KV cache?")
    assert "loading" not in [name for name, _data in ask(server, session, "And in short?")]
    assert "KV cache" in server.client.get(f"/api/bendi/sessions/{session}/export").text


def test_editing_supersedes_and_branching_keeps_both(server: LiveServer) -> None:
    session = begin(server)
    ask(server, session)
    ask(server, session, "What is quantization?")
    third = messages(server, session)[2]["position"]
    branch = server.client.post(f"/api/bendi/sessions/{session}/branch", json={"before_position": third})
    assert branch.status_code == 201
    edited = ask(server, session, "What is offload?", from_position=third)
    assert edited[-1][0] == "done"
    assert [message["content"] for message in messages(server, session)][2] == "What is offload?"
    everything = messages(server, session, "?all=true")
    assert [message["superseded"] for message in everything] == [False, False, True, True, False, False]
    assert [m["content"] for m in messages(server, branch.json()["id"])] == [m["content"] for m in everything[:2]]
    again = list(stream(server, f"/api/bendi/sessions/{session}/messages", {"retry": True}))
    assert again[-1][0] == "done"
    assert len(messages(server, session)) == 4


def test_what_does_not_fit_is_refused_before_anything_is_touched(server: LiveServer) -> None:
    session = begin(server)
    ask(server, session)
    before = messages(server, session)
    body = {"text": "word " * 30000, "from_position": 1, "policy": "error"}
    answer = server.client.post(f"/api/bendi/sessions/{session}/messages", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["context_needed"] > 10000
    assert messages(server, session) == before


def heard(server: LiveServer, session: str, until: str) -> None:
    """Asks, and hangs up with the first event `until`."""
    asking = stream(server, f"/api/bendi/sessions/{session}/messages", {"text": "a"})
    assert any(name == until for name, _data in asking)
    asking.close()  # type: ignore[attr-defined]


def test_leaving_stops_the_answer_and_keeps_what_was_written(endless: LiveServer) -> None:
    session = begin(endless, model="endless.gguf", parameters={})
    asking = stream(endless, f"/api/bendi/sessions/{session}/messages", {"text": "a"})
    assert any(name == "delta" for name, _data in asking)
    second = endless.client.post(f"/api/bendi/sessions/{session}/messages", json={"text": "b"})
    assert second.status_code == 409
    assert endless.client.delete(f"/api/bendi/sessions/{session}").status_code == 409
    asking.close()  # type: ignore[attr-defined]
    wait = threading.Event()
    for _try in range(100):
        if session not in endless.services.talking:
            break
        wait.wait(0.05)
    question, answer = messages(endless, session)
    assert question["content"] == "a"
    assert answer["state"] == "partial" and answer["content"]


def test_who_stops_an_answer_may_ask_again_or_delete_the_session_at_once(endless: LiveServer) -> None:
    session = begin(endless, model="endless.gguf", parameters={})
    for _number in range(4):
        heard(endless, session, "delta")
    assert [message["content"] for message in messages(endless, session) if message["role"] == "user"] == ["a"] * 4
    heard(endless, session, "delta")
    assert endless.client.delete(f"/api/bendi/sessions/{session}").json() == {"deleted": [session]}


def test_done_means_that_the_session_is_free(server: LiveServer) -> None:
    session = begin(server, parameters={"max_tokens": 1})
    for _number in range(20):
        heard(server, session, "done")
    assert {message["state"] for message in messages(server, session)} == {"complete"}


def test_sessions_are_changed_searched_and_deleted(server: LiveServer) -> None:
    session = begin(server, title="Mine")
    ask(server, session, "Tell me about bandwidth")
    changed = server.client.patch(
        f"/api/bendi/sessions/{session}", json={"title": "New", "persona": "concise", "parameters": {"top_k": 5}}
    ).json()
    assert (changed["title"], changed["persona"], changed["settings"]["set"]["top_k"]) == ("New", "concise", 5)
    system = server.client.patch(f"/api/bendi/sessions/{session}", json={"system": "Be brief."}).json()
    assert system["settings"]["system"] == "Be brief."
    assert (
        "system" not in server.client.patch(f"/api/bendi/sessions/{session}", json={"system": None}).json()["settings"]
    )
    wrong = server.client.patch(f"/api/bendi/sessions/{session}", json={"parameters": {"heat": 1}})
    assert wrong.status_code == 400 and "heat" in wrong.text
    (hit,) = server.client.get("/api/bendi/sessions", params={"search": "bandwidth tell"}).json()
    assert hit["id"] == session and hit["excerpt"]
    assert server.client.delete(f"/api/bendi/sessions/{session}").json() == {"deleted": [session]}
    assert server.client.get(f"/api/bendi/sessions/{session}").status_code == 404
    assert server.client.get("/api/bendi/sessions").json() == []


def test_nobody_reaches_the_sessions_of_others(settings: Settings) -> None:
    ring = KeyRing(settings.keys_file)
    keys = [ring.add("ann"), ring.add("bob", "admin")]
    with contextlib.closing(SessionStore(settings.sessions_file)) as store:
        local = store.create("demo")
        store.append(local.id, Message("user", "of whoever sits here"))
    with LiveServer(settings) as server:
        server.client.headers["authorization"] = f"Bearer {keys[0]}"
        session = begin(server)
        ask(server, session, "secret word")
        server.client.headers["authorization"] = f"Bearer {keys[1]}"
        for other in (session, local.id, "x" * 12):
            at = f"/api/bendi/sessions/{other}"
            for method, path, body in (
                ("GET", at, None),
                ("GET", f"{at}/export", None),
                ("PATCH", at, {"title": "x"}),
                ("DELETE", at, None),
                ("POST", f"{at}/branch", {"before_position": 2}),
                ("POST", f"{at}/messages", {"text": "hi"}),
            ):
                answer = server.client.request(method, path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found"), path
        assert server.client.get("/api/bendi/sessions").json() == []
        assert server.client.get("/api/bendi/sessions", params={"search": "secret"}).json() == []


def test_machine_plan_fit_and_models(server: LiveServer) -> None:
    machine = server.client.get("/api/bendi/machine").json()
    assert machine["machine"]["memory"] and machine["advice"]["here"] is True
    plan = server.client.post("/api/bendi/plan", json={"model": "demo"}).json()
    assert plan["offers"][0]["plan"]["verdict"]
    assert plan["machine"].keys() == machine["advice"].keys() and plan["machine"]["build"] == machine["advice"]["build"]
    fit = server.client.get("/api/bendi/fit", params={"use": "chat", "max_bytes": 2**30}).json()
    assert fit["machine"] and isinstance(fit["models"], list)
    (demo,) = server.client.get("/api/bendi/models").json()
    assert (demo["name"], demo["origin"], demo["loaded"]) == ("demo", "demo", False)
    assert any(row["name"] == "qwen3:8b" for row in server.client.get("/api/bendi/models/catalogue").json())
    # A path of its own is no name of a model.
    assert server.client.delete("/api/bendi/models/catalogue").headers["allow"] == "GET, HEAD, OPTIONS"
    for query in ({"use": "magic"}, {"max_bytes": "-1"}, {"language": "../"}):
        assert server.client.get("/api/bendi/fit", params=query).status_code == 400


@pytest.mark.parametrize("name", ["/etc/passwd", "https://example.org/a.gguf", "ollama:evil.org/a/b", "~/x.gguf"])
def test_no_address_and_no_path_of_a_client_is_opened(server: LiveServer, name: str) -> None:
    for path in ("/api/bendi/plan", "/api/bendi/pull", "/api/pull"):
        answer = server.client.post(path, json={"model": name, "stream": False})
        assert answer.status_code in (400, 404), (path, answer.text)


def test_only_administrators_look_at_models_far_away_or_see_paths(settings: Settings) -> None:
    key = KeyRing(settings.keys_file).add("asker")
    with LiveServer(settings) as server:
        server.client.headers["authorization"] = f"Bearer {key}"
        assert server.client.post("/api/bendi/plan", json={"model": "hf:org/repo"}).status_code == 403
        assert server.client.post("/api/bendi/plan", json={"model": "demo"}).status_code == 200
        assert "path" not in server.client.get("/api/bendi/models").json()[0]
        assert server.client.post("/api/bendi/pull", json={"model": "demo"}).status_code == 403
        assert server.client.put("/api/bendi/personas/x", json={}).status_code == 403


def test_personas_are_listed_and_written(server: LiveServer, settings: Settings) -> None:
    names = [persona["name"] for persona in server.client.get("/api/bendi/personas").json()]
    assert "concise" in names
    body = {"system": "Translate.", "parameters": {"temperature": 0.2}}
    written = server.client.put("/api/bendi/personas/翻译", json=body).json()
    assert written["system"] == "Translate." and written["parameters"] == {"temperature": 0.2}
    assert "翻译" in settings.personas_file.read_text("utf-8")
    wrong = server.client.put("/api/bendi/personas/x", json={"parameters": {"temperature": "hot"}})
    assert wrong.status_code == 400


def test_pulling_what_is_here_ends_at_once(server: LiveServer) -> None:
    ((name, done),) = stream(server, "/api/bendi/pull", {"model": "demo"})
    assert (name, done["status"]) == ("done", "present")
