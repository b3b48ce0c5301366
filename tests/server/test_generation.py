"""From a request to an answer over real HTTP with the real engine: personas, contexts, crashes, clients that go."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import LiveServer
from plain_dialect import ENDPOINTS
from pool_engines import Garage, copies, with_context

from bendi.server.app import ALL
from bendi.server.pool import PoolLimits
from bendi.settings import Settings

Ask = Callable[..., dict[str, Any]]
USER = {"role": "user", "content": "What is a KV cache?"}


@pytest.fixture
def live(settings: Settings) -> Iterator[LiveServer]:
    with LiveServer(settings, endpoints=(*ALL, *ENDPOINTS)) as server:
        yield server


@pytest.fixture
def ask(live: LiveServer) -> Ask:
    def asked(**body: Any) -> dict[str, Any]:
        answer = live.client.post("/answer", json={"messages": [USER], **body})
        assert answer.status_code == body.pop("status", 200) or answer.status_code >= 400
        return {"status": answer.status_code, **answer.json()}

    return asked


@pytest.fixture
def slow(settings: Settings) -> Iterator[tuple[LiveServer, Garage]]:
    """A server whose engine takes 20 ms for a token."""
    garage = Garage(delay_s=0.02)
    pool = garage.pool(settings, PoolLimits(slots=2))
    with LiveServer(settings, endpoints=(*ALL, *ENDPOINTS), pool=pool) as server:
        yield server, garage


def within(seconds: float, condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def busy(server: LiveServer) -> int:
    return sum(model["busy"] for model in server.client.get("/api/bendi/ps").json()["models"])


def test_a_whole_answer(ask: Ask, live: LiveServer) -> None:
    first = ask()
    assert first["note"]["model"] == "demo" and first["note"]["load_s"] > 0
    assert first["text"] and first["finish"] == "stop"
    second = ask()
    assert second["note"]["load_s"] == 0
    assert second["usage"]["cached_tok"] > 0
    numbers = live.client.get("/metrics").text
    assert 'bendi_loads_total{model="demo",outcome="loaded"} 1' in numbers
    total = first["usage"]["completion_tok"] + second["usage"]["completion_tok"]
    assert f'bendi_completion_tokens_total{{model="demo"}} {total}' in numbers
    within(1, lambda: any(line.get("models") == ["demo"] for line in live.log))


def test_a_streamed_answer(live: LiveServer) -> None:
    with live.client.stream("POST", "/answer", json={"messages": [USER], "stream": True}) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert lines[0]["model"] == "demo"
    assert "".join(line["text"] for line in lines[1:])
    assert [line["finish"] for line in lines[1:]][-1] == "stop"


def test_several_answers_to_one_question(ask: Ask) -> None:
    again = [ask(prompt="A", messages=[], n=3, seed=4, temperature=5.0, max_tokens=20)["texts"] for _ in range(2)]
    assert again[0] == again[1]
    assert len(set(again[0])) == 3


def test_a_persona_is_a_default(ask: Ask, settings: Settings) -> None:
    def write(text: str) -> None:
        settings.personas_file.parent.mkdir(parents=True, exist_ok=True)
        settings.personas_file.write_text(text)

    plain_tok = ask()["usage"]["prompt_tok"]
    write('[short]\nsystem = "Be brief, and answer in a few words only."\nmax_tokens = 3\n')
    short = ask(model="demo@short")
    assert (short["finish"], short["usage"]["completion_tok"]) == ("length", 3)
    assert short["usage"]["prompt_tok"] > plain_tok
    assert ask(model="demo@short", max_tokens=5)["usage"]["completion_tok"] == 5
    with_system = [{"role": "system", "content": "x"}, USER]
    assert ask(model="demo@short", messages=with_system)["usage"]["prompt_tok"] < short["usage"]["prompt_tok"]
    write("[short]\nmax_tokens = 4\n")  # counts for the next request
    assert ask(model="demo@short")["usage"]["completion_tok"] == 4
    assert ask(model="demo@nobody")["status"] == 404


def conversation(turns: int) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "You know models."}]
    for number in range(turns):
        messages.append({"role": "user", "content": f"Question {number}: what is quantization, and what does it cost?"})
        messages.append({"role": "assistant", "content": "Fewer bits for each weight, and a little quality."})
    return [*messages, USER]


def test_what_does_not_fit_is_refused_with_numbers(ask: Ask) -> None:
    refused = ask(messages=conversation(40), context_tok=512, policy="error")
    assert refused["status"] == 400
    assert refused["error"]["code"] == "context_length_exceeded"
    assert refused["error"]["context_needed"] > refused["error"]["context_available"] == 512


def test_the_context_grows_when_nobody_says_otherwise(ask: Ask) -> None:
    assert ask(context_tok=512)["note"]["context_tok"] == 512
    grown = ask(messages=conversation(30))
    assert grown["note"]["policy_applied"] == "grow"
    assert grown["note"]["context_tok"] > grown["usage"]["prompt_tok"] > 512
    assert grown["note"]["load_s"] > 0
    again = ask(messages=conversation(30))
    assert (again["note"]["policy_applied"], again["note"]["load_s"]) == ("", 0)
    assert ask(prompt="word " * 10000, messages=[])["status"] == 400  # more than it was trained for
    assert ask()["note"]["load_s"] == 0  # and nothing was unloaded for it


def test_the_context_does_not_grow_under_others(slow: tuple[LiveServer, Garage]) -> None:
    server, _garage = slow
    with ThreadPoolExecutor(1) as others:
        body = {"prompt": "word " * 60, "max_tokens": 60}
        other = others.submit(server.client.post, "/answer", json=body | {"context_tok": 512})
        within(5, lambda: busy(server) == 1)
        refused = server.client.post("/answer", json={"prompt": "word " * 600})
        assert refused.status_code == 400
        assert refused.json()["error"]["context_needed"] == 601
        assert other.result().json()["finish"] == "length"
    grown = server.client.post("/answer", json={"prompt": "word " * 600, "max_tokens": 1})
    assert grown.json()["note"]["policy_applied"] == "grow"


@pytest.mark.parametrize("policy", ["slide", "compact"])
def test_older_turns_go_only_when_the_client_says_so(ask: Ask, policy: str) -> None:
    kept = ask(messages=conversation(30), context_tok=512, policy=policy)
    assert kept["note"]["policy_applied"] == policy
    assert 0 < kept["note"]["dropped"] < 60
    assert kept["usage"]["prompt_tok"] < 512
    assert kept["text"]
    hopeless = ask(messages=[{"role": "user", "content": "word " * 2000}], context_tok=512, policy=policy)
    assert hopeless["status"] == 400


@pytest.fixture
def live_with_one_thread(settings: Settings) -> Iterator[LiveServer]:
    """Two models that answer at once, with all cores each, would wait for each other most of the time."""
    with LiveServer(replace(settings, threads=1), endpoints=(*ALL, *ENDPOINTS)) as server:
        yield server


def test_a_killed_worker_takes_only_its_own_answers_along(
    live_with_one_thread: LiveServer, settings: Settings, demo_model: Path
) -> None:
    live = live_with_one_thread
    copies(settings, demo_model, "b")
    long_tok = 32768  # so long that even a busy machine kills the worker before its answer ends
    (settings.models_dirs[0] / "a.gguf").write_bytes(with_context(demo_model, long_tok))
    first_line = threading.Barrier(3)

    def read(model: str, context_tok: int) -> str:
        body = {"model": model, "messages": [USER], "stream": True, "ignore_end": True, "context_tok": context_tok}
        last = ""
        with httpx.stream("POST", f"{live.url}/answer", json=body, timeout=30, trust_env=False) as answer:
            lines = answer.iter_lines()
            next(lines)
            first_line.wait(20)
            try:
                for line in lines:
                    last = json.loads(line)["finish"] or ""
            except httpx.RemoteProtocolError:
                return "broken off"
        return last

    with ThreadPoolExecutor(2) as readers:
        a, b = readers.submit(read, "a", long_tok), readers.submit(read, "b", 2048)
        first_line.wait(20)
        os.kill(worker_pid(live, "a.gguf"), signal.SIGKILL)
        assert (a.result(20), b.result(20)) == ("broken off", "length")
    within(10, lambda: busy(live) == 0)  # the last word arrives a moment before the place is given back
    assert live.client.post("/answer", json={"model": "a", "messages": [USER]}).json()["finish"] == "stop"
    assert 'bendi_unloads_total{model="a.gguf",reason="died"} 1' in live.client.get("/metrics").text


def worker_pid(live: LiveServer, model: str) -> int:
    entries = live.services.pool._models.entries.values()
    return next(int(e.hosted.engine.info.details["pid"]) for e in entries if e.hosted and e.model.name == model)


def test_a_crash_before_the_first_word_is_status_503(slow: tuple[LiveServer, Garage]) -> None:
    server, garage = slow
    assert server.client.post("/answer", json={"prompt": "a b c", "max_tokens": 1}).status_code == 200
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(server.client.post, "/answer", json={"prompt": "a b c"})
        within(5, lambda: garage.engines[0].running == 1)
        garage.engines[0].worker.alive = False
        assert answer.result().status_code == 503
    assert server.client.post("/answer", json={"prompt": "a b c", "max_tokens": 1}).status_code == 200
    assert len(garage.engines) == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_stops_the_engine(slow: tuple[LiveServer, Garage], stream: bool) -> None:
    server, garage = slow
    assert server.client.post("/answer", json={"prompt": "a", "max_tokens": 1}).status_code == 200
    (engine,) = garage.engines
    with raw_request(server, {"prompt": "a b c", "stream": stream}):
        within(5, lambda: engine.running == 1)
        time.sleep(0.05)
    within(0.2, lambda: engine.running == 0)
    within(1, lambda: busy(server) == 0)


def test_a_client_that_goes_while_it_waits_leaves_the_queue(slow: tuple[LiveServer, Garage]) -> None:
    server, garage = slow
    with raw_request(server, {"prompt": "a b c"}), raw_request(server, {"prompt": "a b c"}):
        within(5, lambda: busy(server) == 2)
        with raw_request(server, {"prompt": "a b c"}):
            within(5, lambda: server.client.get("/api/bendi/ps").json()["waiting"] == 1)
        within(0.5, lambda: server.client.get("/api/bendi/ps").json()["waiting"] == 0)
    within(1, lambda: busy(server) == 0)
    assert garage.engines[0].most_running == 2


def raw_request(server: LiveServer, body: dict[str, Any]) -> socket.socket:
    """A request whose answer is never read; leaving it closes the connection."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    content = json.dumps(body).encode()
    head = f"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def test_unloading_in_the_middle_of_an_answer(slow: tuple[LiveServer, Garage]) -> None:
    server, garage = slow
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(server.client.post, "/answer", json={"prompt": "a b c"})
        within(5, lambda: bool(garage.engines) and garage.engines[0].running == 1)
        assert server.client.post("/api/bendi/stop", json={"model": "demo"}).json() == {"stopped": 1}
        assert answer.result().status_code == 503
    assert server.client.get("/api/bendi/ps").json() == {"models": [], "waiting": 0}


def test_no_thread_is_left(live: LiveServer, ask: Ask) -> None:
    ask(n=3)
    within(1, lambda: not [thread for thread in threading.enumerate() if thread.name == "bendi answer"])
