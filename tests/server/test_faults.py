"""Things that go wrong while several clients stream: nothing that was confirmed is lost, nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import LiveServer
from load import QUESTIONS, Load, asked, hear, pieces
from mischief import Mischief
from serve_process import Process, children, linux_only

from bendi.chat.sessions import SessionStore
from bendi.server.policy import Policy
from bendi.settings import Settings
from bendi.units import MIB
from small_disk import fill, mounted

Start = Callable[..., Process]
DAY_S = 24 * 3600.0


def until(true: Callable[[], object]) -> None:
    for _attempt in range(2000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def respond(client: httpx.Client, text: str, **fields: Any) -> dict[str, Any]:
    """A stored answer of /v1/responses."""
    body = {"model": "demo", "input": text, "temperature": 0, "max_output_tokens": 16} | fields
    answer = client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def said(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def begin_session(client: httpx.Client) -> str:
    body = {"model": "demo", "parameters": {"max_tokens": 16, "temperature": 0}}
    return str(client.post("/api/bendi/sessions", json=body).json()["id"])


def talk(client: httpx.Client, session: str, text: str) -> dict[str, Any]:
    """The message that answers, once the server has confirmed that it is stored."""
    event = ""
    with client.stream("POST", f"/api/bendi/sessions/{session}/messages", json={"text": text}) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            event = line.removeprefix("event: ") if line.startswith("event: ") else event
            if line.startswith("data: ") and event == "done":
                return dict(json.loads(line.removeprefix("data: "))["message"])
    raise httpx.RemoteProtocolError(f"ended with {event}")


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, trust_env=False)


# A worker is killed


@linux_only
def test_a_worker_that_is_killed_takes_only_its_own_answers_with_it(endless: None, start: Start) -> None:
    process = start("endless")
    url = process.url
    (victim,) = children(process.pid)
    begun = threading.Barrier(3, timeout=30)

    def hear_the_end() -> dict[str, Any]:
        """The last event of an answer that would go on for ever."""
        last: dict[str, Any] = {}
        with client_of(url) as client, client.stream("POST", "/v1/chat/completions", json=asked("endless", "a")) as got:
            for number, piece in enumerate(pieces(got)):
                last = piece
                if number == 1:
                    begun.wait()
        return last

    with Load(url) as load, ThreadPoolExecutor(2) as listeners:
        ends = [listeners.submit(hear_the_end) for _number in range(2)]
        begun.wait()
        os.kill(victim, signal.SIGKILL)
        for end in ends:
            error = end.result()["error"]
            assert error["code"] == "engine_failed" and "again" in error["message"], error
        load.more()
        with client_of(url) as client:
            assert hear(client, asked("endless", "a", max_tokens=5)).text == "aaaaa"
        load.more()
    assert not [event for event in process.events if event["event"] == "defect"]


# The server is killed


@dataclass
class Confirmed:
    """What a server told its clients to be stored. `asked`: questions of sessions, confirmed or not."""

    responses: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)

    def respond(self, url: str, stream: bool) -> None:
        previous: str | None = None
        with client_of(url) as client:
            for number in count(1):
                if stream:
                    response = self._streamed(client, previous)
                else:
                    response = respond(client, "What is MoE?", previous_response_id=previous)
                self.responses[response["id"]] = response
                # Chains grow, but stay within the context.
                previous = response["id"] if number % 5 else None

    def _streamed(self, client: httpx.Client, previous: str | None) -> dict[str, Any]:
        body = {"model": "demo", "input": "What is MoE?", "max_output_tokens": 16, "stream": True}
        with client.stream("POST", "/v1/responses", json=body | {"previous_response_id": previous}) as answer:
            for event in pieces(answer):
                if event["type"] in ("response.completed", "response.incomplete"):
                    return dict(event["response"])
        raise httpx.RemoteProtocolError("no end")

    def talk(self, url: str) -> None:
        with client_of(url) as client:
            while True:
                session = begin_session(client)
                self.sessions[session], self.asked[session] = [], []
                for number in range(4):
                    question = f"What is quantization? {number}"
                    self.asked[session].append(question)
                    message = talk(client, session, question)
                    self.sessions[session].append((question, message["content"]))


def test_a_server_that_is_killed_keeps_what_it_has_confirmed(start: Start, settings: Settings) -> None:
    process = start("demo")
    url, confirmed = process.url, Confirmed()
    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(confirmed.respond, url, stream) for stream in (False, True)]
        running += [clients.submit(confirmed.talk, url) for _number in range(2)]
        until(lambda: len(confirmed.responses) >= 12 and sum(map(len, confirmed.sessions.values())) >= 12)
        process.signal(signal.SIGKILL)
        ends = [client.exception(30) for client in running]
    assert all(isinstance(end, httpx.TransportError) for end in ends), ends
    assert process.end() == -signal.SIGKILL
    again = start("demo")
    with client_of(again.url) as client:
        for name, response in confirmed.responses.items():
            assert client.get(f"/v1/responses/{name}").json() == response
        last = [*confirmed.responses][-1]
        assert said(respond(client, "And in short?", previous_response_id=last))
        for session, turns in confirmed.sessions.items():
            if turns:
                check_session(client, session, turns, confirmed.asked[session])
        assert talk(client, next(iter(confirmed.sessions)), "And in short?")["content"]
    with closing(SessionStore(settings.sessions_file)) as store:
        assert store.notices == []


def check_session(client: httpx.Client, session: str, turns: list[tuple[str, str]], asked: list[str]) -> None:
    """What was confirmed is there, word for word; of what was going on, perhaps a question and a part of an answer."""
    kept = client.get(f"/api/bendi/sessions/{session}").json()["messages"]
    assert [message["position"] for message in kept] == list(range(1, len(kept) + 1))
    sure, rest = kept[: 2 * len(turns)], kept[2 * len(turns) :]
    assert [message["content"] for message in sure] == [text for turn in turns for text in turn]
    assert all(message["state"] == "complete" for message in sure)
    assert [message["content"] for message in rest[:1]] == (asked[len(turns) :] if rest else [])
    assert len(rest) <= 2


# Clients go away


HEARD_TOK = 300
AFTER_TOK = 1000
"""What this model writes in 200 ms, at some 5,000 tokens per second."""


def test_the_worker_stops_when_its_client_goes_away(endless: None, settings: Settings) -> None:
    # One thread: spinning ones would keep a machine of two cores from noticing anything.
    with LiveServer(replace(settings, serve_slots=1, threads=1)) as server:
        long = {"model": "endless", "options": {"num_ctx": 8192}, "keep_alive": -1}
        assert server.client.post("/api/generate", json=long).status_code == 200
        for _turn in range(5):
            heard_tok = leave_after(server, HEARD_TOK)
            # What the next request finds in the worker's cache is what was computed of the last one.
            prompt = {"model": "endless", "prompt": "a" * (heard_tok + AFTER_TOK), "max_tokens": 1}
            usage = server.client.post("/v1/completions", json=prompt).json()["usage"]
            computed_tok = usage["prompt_tokens_details"]["cached_tokens"]
            assert heard_tok - 2 <= computed_tok < heard_tok + AFTER_TOK - 2, (heard_tok, computed_tok)
        until(lambda: unused(server, "endless"))


def unused(server: LiveServer, name: str) -> bool:
    """Nobody has a slot of the model, or waits for one."""
    models = server.client.get("/api/bendi/ps").json()["models"]
    return not any(model["busy"] or model["waiting"] for model in models if model["model"] == name)


def leave_after(server: LiveServer, tokens: int) -> int:
    """Reads so many tokens of an answer that never ends, and closes the connection. Returns how many it were."""
    heard = 0
    with server.client.stream("POST", "/v1/chat/completions", json=asked("endless", "a")) as answer:
        for piece in pieces(answer):
            heard += len(piece["choices"][0]["delta"].get("content") or "")
            if heard >= tokens:
                return heard
    raise AssertionError("it ended")


def test_many_clients_that_leave_at_any_time_leave_nothing_behind(endless: None, settings: Settings) -> None:
    with LiveServer(replace(settings, serve_slots=2, threads=1)) as server, Load(server.url) as load:

        def come_and_go(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as client:
                for turn in range(10):
                    after = (number + turn) % 4
                    if after == 0:  # before there is an answer: perhaps it is still waiting for its turn
                        with pytest.raises(httpx.TimeoutException):
                            client.post("/v1/chat/completions", json=asked("endless", "a", stream=False), timeout=0.05)
                        continue
                    with client.stream("POST", "/v1/chat/completions", json=asked("endless", "a")) as answer:
                        list(islice(pieces(answer), after))

        with ThreadPoolExecutor(6) as clients:
            list(clients.map(come_and_go, range(6)))
        load.more()
        until(lambda: unused(server, "endless"))
    assert not [thread for thread in threading.enumerate() if thread.name == "bendi answer"]
    assert not [line for line in server.log if line["event"] == "defect"]


# The disk is full


@pytest.fixture
def small_state(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Everything that is stored is on a file system of 3 MiB."""
    with mounted(tmp_path / "state", "3m") as folder:
        yield replace(settings, state_dir=folder)


def test_answers_still_come_when_the_disk_is_full(small_state: Settings) -> None:
    with LiveServer(small_state) as server:
        client = server.client
        first = respond(client, "What is MoE?")
        session = begin_session(client)
        stored = talk(client, session, "What is quantization?")
        with Load(server.url) as load:
            ballast = fill(small_state.state_dir)
            unkept = until_it_cannot_be_kept(client)
            assert said(unkept) == said(first) and unkept["store"] is False
            assert "full" in unkept["bendi"]["store_error"]
            assert client.get(f"/v1/responses/{unkept['id']}").status_code == 404
            refused = until_it_is_refused(client)
            assert refused.status_code == 507 and refused.json()["error"]["code"] == "storage"
            assert "free space" in refused.json()["error"]["message"]
            load.more()
            check_what_was_stored(client, first, session, stored)
            ballast.unlink()
            later = respond(client, "What is MoE?", previous_response_id=first["id"])
            assert later["store"] is True and client.get(f"/v1/responses/{later['id']}").json() == later
            assert talk(client, session, "And in short?")["content"]
            load.more()
        check_what_was_stored(client, first, session, stored)
        assert not [line for line in server.log if line["event"] == "defect"]
    with LiveServer(small_state) as server:
        check_what_was_stored(server.client, first, session, stored)


def until_it_cannot_be_kept(client: httpx.Client) -> dict[str, Any]:
    """An answer that could not be stored: files that exist may have a little room left inside."""
    for _attempt in range(200):
        response = respond(client, "What is MoE?")
        if "store_error" in response["bendi"]:
            return response
        assert client.get(f"/v1/responses/{response['id']}").json() == response
    raise AssertionError("the disk is not full")


def until_it_is_refused(client: httpx.Client) -> httpx.Response:
    """The answer to a question that could not be stored, which is then not computed either."""
    for _attempt in range(200):
        address = f"/api/bendi/sessions/{begin_session(client)}/messages"
        answer = client.post(address, json={"text": "What is MoE?"})
        if answer.status_code != 200:
            return answer
        assert "event: done" in answer.text or '"code":"storage"' in answer.text
    raise AssertionError("the disk is not full")


def check_what_was_stored(client: httpx.Client, first: dict[str, Any], session: str, stored: dict[str, Any]) -> None:
    assert client.get(f"/v1/responses/{first['id']}").json() == first
    kept = client.get(f"/api/bendi/sessions/{session}").json()["messages"]
    assert kept[1] == stored


# Ten thousand malformed requests


@linux_only
def test_ten_thousand_malformed_requests(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_OFFLINE", "1")
    process = start("demo")
    port = int(process.url.rpartition(":")[2])
    with closing(Mischief(port, seed=20261128)) as mischief, Load(process.url, QUESTIONS[:1], pause_s=0.1) as load:
        for _warming in range(2000):
            mischief.send()
        before_bytes = resident_bytes(process.pid)
        for _request in range(8000):
            mischief.send()
        load.more()
        assert resident_bytes(process.pid) - before_bytes < 24 * MIB
    assert sum(mischief.statuses.values()) == 10_000
    assert not [status for status in mischief.statuses if status >= 500], mischief.statuses
    assert {400, 404, 413, 415, 422} & set(mischief.statuses) and mischief.statuses[400] > 1000, mischief.statuses
    assert not [event for event in process.events if event["event"] == "defect"]
    assert httpx.get(f"{process.url}/health", trust_env=False).json() == {"status": "ok"}


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The clock is set


def test_a_clock_that_jumps_during_answers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    away_s, right = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: right() + away_s[0])
    policy = Policy(keys_required=True, per_minute=3)
    with LiveServer(replace(settings, serve_keep_alive_s=3600.0)) as server:
        client = server.client
        first = respond(client, "What is MoE?")
        session = begin_session(client)
        stored = talk(client, session, "What is quantization?")
        with Load(server.url) as load:
            for days in (0.5, 40.0, 4000.0, -1.0, -4000.0, 0.0):
                away_s[0] = days * DAY_S
                load.more()
                later = respond(client, "And in short?", previous_response_id=first["id"])
                assert later["completed_at"] is None or later["completed_at"] >= later["created_at"]
                assert client.get(f"/v1/responses/{later['id']}").json() == later
                expires_s = [model["expires_s"] for model in client.get("/api/bendi/ps").json()["models"]]
                assert all(0 < left_s <= 3600 for left_s in expires_s if left_s is not None), expires_s
                assert client.get("/api/ps").status_code == 200
            away_s[0] = -300 * DAY_S
            newer = begin_session(client)
            talk(client, newer, "What is quantization?")
            listed = client.get("/api/bendi/sessions").json()
            assert [row["id"] for row in listed] == [newer, session]
            away_s[0] = 0.0
            load.more()
        check_what_was_stored(client, first, session, stored)
        loads = [line for line in client.get("/metrics").text.splitlines() if line.startswith("bendi_loads_total")]
        assert loads == ['bendi_loads_total{model="demo",outcome="loaded"} 1']
    with LiveServer(settings, policy) as server:
        server.client.headers["x-api-key"] = server.services.keys.add("ann")
        statuses = []
        for days in (0.0, 0.0, 0.0, 40.0, -40.0, 4000.0):
            away_s[0] = days * DAY_S
            statuses.append(server.client.get("/v1/models").status_code)
        assert statuses == [200, 200, 200, 429, 429, 429]
