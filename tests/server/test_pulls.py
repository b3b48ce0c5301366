"""Downloads over HTTP: progress in both dialects, shared by those who ask, resumed, stopped when nobody watches."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from live import LiveServer
from servers import Fault, FileServer, HubServer
from tiny import gguf

from bendi.settings import Settings

REPO = "org/Tiny-GGUF"
NAME = f"hf:{REPO}:Q4_K_M"


@pytest.fixture
def cdn() -> Iterator[FileServer]:
    with FileServer(host="localhost") as files:
        yield files


@pytest.fixture
def pulling(settings: Settings, cdn: FileServer) -> Iterator[LiveServer]:
    with HubServer(cdn) as hub:
        hub.repos[REPO] = {"Tiny-Q4_K_M.gguf": gguf(300_000, 1)}
        with LiveServer(replace(settings, hf_endpoint=hub.url)) as server:
            yield server


def lines(server: LiveServer, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with server.client.stream("POST", "/api/pull", json=body) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            yield json.loads(line)


def files(server: LiveServer) -> list[str]:
    return sorted(path.name for path in server.services.store.root.rglob("*Q4_K_M*") if not path.name.startswith("."))


def until(true: Any) -> None:
    end_s = time.monotonic() + 10
    while not true() and time.monotonic() < end_s:
        time.sleep(0.02)
    assert true()


def test_a_model_is_pulled_listed_asked_and_deleted(pulling: LiveServer) -> None:
    said = list(lines(pulling, {"model": NAME}))
    assert said[0] == {"status": "pulling manifest"} and said[-1] == {"status": "success"}
    steps = [line for line in said if "total" in line]
    assert steps and all(line["completed"] <= line["total"] and line["digest"] for line in steps)
    (model,) = [model for model in pulling.client.get("/api/tags").json()["models"] if model["name"] == NAME]
    assert len(model["digest"]) == 64
    assert pulling.client.post("/api/show", json={"model": NAME}).json()["details"]["family"] == "llama"
    # Its weights are no weights. Trying again would not help, so it is no 503.
    refused = pulling.client.post("/api/embed", json={"model": NAME, "input": "rain"})
    assert refused.status_code == 422 and "model loading error" in refused.json()["error"]
    assert pulling.client.request("DELETE", "/api/delete", json={"model": NAME}).status_code == 200
    assert files(pulling) == []
    assert pulling.client.post("/api/pull", json={"model": NAME, "stream": False}).json() == {"status": "success"}
    assert pulling.client.delete(f"/api/bendi/models/{NAME}").json()["freed_bytes"] > 300_000


def test_events_of_the_native_way(pulling: LiveServer) -> None:
    with pulling.client.stream("POST", "/api/bendi/pull", json={"model": NAME}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        names = [line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: ")]
    assert "progress" in names and names[-1] == "done"


def test_what_does_not_exist_is_said(pulling: LiveServer) -> None:
    answer = pulling.client.post("/api/pull", json={"model": "hf:org/nothing", "stream": False})
    assert answer.status_code == 404 and answer.json()["error"]
    assert list(lines(pulling, {"model": "hf:org/nothing"}))[-1]["error"]


def test_it_stops_when_nobody_watches_and_goes_on_where_it_stopped(pulling: LiveServer, cdn: FileServer) -> None:
    cdn.faults.append(Fault(times=-1, slow_s=0.01))
    watching = lines(pulling, {"model": NAME})
    for line in watching:
        if line.get("completed", 0) > 0:
            break
    watching.close()  # type: ignore[attr-defined]
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "bendi-pull"])
    assert any(name.endswith(".part") for name in files(pulling))
    body = {"model": NAME, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    for path in ("/v1/chat/completions", "/api/chat", "/v1/messages"):
        early = pulling.client.post(path, json=body)
        assert early.status_code == 409 and "not complete" in early.text, path
    cdn.faults.clear()
    said = list(lines(pulling, {"model": NAME}))
    assert said[-1] == {"status": "success"}
    assert next(line["completed"] for line in said if "completed" in line) > 0


def test_two_clients_share_one_download(pulling: LiveServer, cdn: FileServer) -> None:
    cdn.faults.append(Fault(times=-1, slow_s=0.003))
    ends: list[dict[str, Any]] = []

    def watch() -> None:
        ends.append(list(lines(pulling, {"model": NAME}))[-1])

    threads = [threading.Thread(target=watch) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [{"status": "success"}] * 2


def test_offline_means_offline(settings: Settings) -> None:
    with LiveServer(replace(settings, offline=True)) as server:
        answer = server.client.post("/api/pull", json={"model": NAME, "stream": False})
        assert answer.status_code == 403 and "offline" in answer.json()["error"].lower()


def test_a_source_that_cannot_be_used_is_no_fault_of_ours(pulling: LiveServer, cdn: FileServer) -> None:
    cdn.faults.append(Fault(times=-1, status=403))
    answer = pulling.client.post("/api/pull", json={"model": NAME, "stream": False})
    assert answer.status_code == 502 and answer.json()["error"]
