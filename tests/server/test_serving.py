"""`bendi serve` as people run it: a real process that starts, refuses to start, drains, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from serve_process import Process, alive, children, linux_only

from bendi.cli.main import main
from bendi.errors import ConfigError, UsageError
from bendi.server.keys import KeyRing
from bendi.server.listening import Place, check_place, open_sockets
from bendi.server.policy import is_loopback, policy_for
from bendi.server.serving import HeadWaits
from bendi.settings import load_settings

ASKED = {"model": "demo", "messages": [{"role": "user", "content": "What is a KV cache?"}], "stream": True}
ENDLESS = {**ASKED, "model": "endless", "messages": [{"role": "user", "content": "a"}]}


# Starting, and refusing to


def test_it_starts_says_where_and_ends(start: Callable[..., Process]) -> None:
    process = start("demo")
    url = process.url
    assert httpx.get(f"{url}/ready", trust_env=False).json() == {"status": "ready"}
    loaded = httpx.get(f"{url}/metrics", trust_env=False).text
    assert 'bendi_model_memory_bytes{model="demo",kind="text"}' in loaded
    process.signal(signal.SIGTERM)
    assert process.end() == 0
    shown = process.output()
    assert f"{url}/v1" in shown and "Ollama" in shown and "Anthropic" in shown and "browser" in shown
    assert [event["event"] for event in process.events if event["event"] != "request"] == [
        "loading", "ready", "draining", "ended",
    ]  # fmt: skip
    assert not process.said


def test_a_model_that_is_not_there_is_an_error_of_the_start(start: Callable[..., Process]) -> None:
    process = start("no-such-model")
    assert process.end() == 3
    assert "no-such-model" in process.said and "Traceback" not in process.said


@pytest.mark.parametrize("keyed", [False, True])
def test_other_verbs_find_it(start: Callable[..., Process], keyed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if keyed:
        KeyRing(load_settings().keys_file).add("me")
    assert main(["ps"]) == 3
    process = start("demo", *(["--host", "0.0.0.0", "--allow-plain-http"] if keyed else []))
    assert process.url
    capsys.readouterr()
    assert main(["ps", "--json"]) == 0
    assert '"demo"' in capsys.readouterr().out
    assert main(["stop", "--all"]) == 0
    process.signal(signal.SIGTERM)
    assert process.end() == 0
    assert main(["ps"]) == 3


def test_no_page(start: Callable[..., Process]) -> None:
    process = start("--no-page")
    assert httpx.get(process.url, trust_env=False).status_code == 404
    assert httpx.get(f"{process.url}/v1/models", trust_env=False).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "[::]"])
def test_other_addresses_need_a_key_and_tls(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--host", host]) == 2
    assert "bendi key add" in capsys.readouterr().err
    KeyRing(load_settings().keys_file).add("me")
    assert main(["serve", "--port", "0", "--host", host]) == 2
    assert "--allow-plain-http" in capsys.readouterr().err


def test_a_damaged_key_file_is_no_reason_to_open_up(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys.json")
    ring.add("me")
    ring.path.write_bytes(b"{")
    check_place(Place("0.0.0.0", 0, plain_allowed=True), ring)  # starts, and accepts nobody
    assert ring.caller("bendi-x") is None


def test_with_a_key_and_leave_it_listens_for_others(start: Callable[..., Process]) -> None:
    key = KeyRing(load_settings().keys_file).add("me")
    process = start("--host", "0.0.0.0", "--allow-plain-http")
    url = f"http://127.0.0.1:{process.url.rpartition(':')[2]}"
    assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401
    assert httpx.get(f"{url}/v1/models", headers={"x-api-key": key}, trust_env=False).status_code == 200


def test_half_of_tls_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--port", "0", "--tls-cert", str(tmp_path / "c.pem")]) == 2
    assert main(["serve", "--port", "0", "--tls-cert", str(tmp_path / "c"), "--tls-key", str(tmp_path / "k")]) == 2
    assert "TLS cannot be used" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
def test_tls(start: Callable[..., Process], tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    process = start("--tls-cert", str(cert), "--tls-key", str(key))
    assert process.url.startswith("https://")
    url = f"https://localhost:{process.url.rpartition(':')[2]}"
    trusted = ssl.create_default_context(cafile=str(cert))
    assert httpx.get(f"{url}/health", verify=trusted, trust_env=False).status_code == 200


def test_a_port_in_use_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert str(port) in said and f"bendi serve --port {port + 1}" in said and "defect" not in said


@pytest.mark.parametrize(
    ("host", "port"), [("203.0.113.7", 0), ("no such host", 0), ("127.0.0.1", 70000), ("fe80::1%none", 0), ("", 0)]
)
def test_addresses_that_cannot_be_had_are_explained(host: str, port: int) -> None:
    with pytest.raises(ConfigError) as caught:
        for listener in open_sockets(Place(host, port)):
            listener.close()
    assert caught.value.hint


@pytest.mark.parametrize("arguments", [["--port", "70000"], ["--port", "-1"], ["--keep-alive", "soon"]])
def test_options_that_make_no_sense(arguments: list[str]) -> None:
    assert main(["serve", *arguments]) == 2


def test_both_versions_of_ip_on_one_port_small_pieces_at_once() -> None:
    listeners = open_sockets(Place("localhost", 0))
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        assert listeners[0].getsockname()[0] == "127.0.0.1"
        if len(listeners) > 1:
            assert listeners[1].getsockname()[0] == "::1"
        assert all(listener.proto == socket.IPPROTO_TCP for listener in listeners)
    finally:
        for listener in listeners:
            listener.close()


def test_what_only_this_machine_can_reach() -> None:
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost", "LOCALHOST"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "::ffff:10.0.0.1"):
        assert not is_loopback(host)


def test_policies_follow_the_address() -> None:
    settings = load_settings({"BENDI_SERVE_NAMES": "Box, b", "BENDI_SERVE_ORIGINS": "https://Chat.example/"})
    inside, outside = policy_for(settings, "127.0.0.1"), policy_for(settings, "0.0.0.0")
    assert (inside.keys_required, inside.any_address) == (False, False)
    assert (outside.keys_required, outside.any_address) == (True, True)
    assert {"box", "b", "localhost"} <= inside.hosts
    assert inside.origins == {"https://chat.example"}


def test_a_key_is_asked_for_before_a_place_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check_place(Place("10.0.0.1", 0, plain_allowed=True), KeyRing(tmp_path / "keys.json"))


# Ending


def test_draining_lets_an_answer_finish(start: Callable[..., Process]) -> None:
    process = start("demo")
    with httpx.stream("POST", f"{process.url}/v1/chat/completions", json=ASKED, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.signal(signal.SIGTERM)
        process.wait_for("draining")
        assert "data: [DONE]" in list(lines)
    assert process.end() == 0


def test_the_head_of_a_stream_comes_with_its_first_words(start: Callable[..., Process]) -> None:
    process = start("demo")
    host, port = process.url.removeprefix("http://").split(":")
    body = json.dumps(ASKED).encode()
    for _number in range(3):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
            first = connection.recv(65536)
            assert first.startswith(b"HTTP/1.1 200 ") and b'"role":"assistant"' in first
            while piece := connection.recv(65536):
                first += piece
            assert first.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_head_that_nothing_follows_is_sent_by_itself() -> None:
    class Sent(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[bytes | str] = []

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.pieces.append(bytes(data))

        def close(self) -> None:
            self.pieces.append("closed")

    async def pieces() -> list[bytes | str]:
        transport = Sent()
        waits = HeadWaits(transport)
        waits.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert transport.pieces == []
        await asyncio.sleep(0)
        waits.write(b"HTTP/1.1 200 OK\r\n\r\n")
        waits.write(b"a")
        waits.write(b"b")
        await asyncio.sleep(0)
        waits.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        waits.close()
        await asyncio.sleep(0)
        return transport.pieces

    assert asyncio.run(pieces()) == [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\na",
        b"b",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        "closed",
    ]


def test_draining_takes_no_new_connections(endless: None, start: Callable[..., Process]) -> None:
    process = start("endless")
    url = process.url
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=ENDLESS, trust_env=False, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.signal(signal.SIGINT)
        process.wait_for("draining")
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", trust_env=False)
        process.signal(signal.SIGINT)
    assert process.end(10) == 130


@linux_only
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_server(endless: None, start: Callable[..., Process], first: signal.Signals) -> None:
    process = start("endless")
    url = process.url
    workers = children(process.pid)
    assert workers
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=ENDLESS, trust_env=False, timeout=30) as answer:
        next(answer.iter_lines())
        process.signal(first)
        if first != signal.SIGKILL:
            process.wait_for("draining")
            process.signal(first)
        process.end(15)
    end_s = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not [pid for pid in workers if alive(pid)]


def test_a_signal_while_models_are_loaded_ends_it(start: Callable[..., Process]) -> None:
    process = start("demo")
    process.wait_for("loading")
    process.signal(signal.SIGTERM)
    assert process.end() == 0


def test_a_drain_that_takes_too_long_is_cut_off(
    endless: None, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENDI_SERVE_DRAIN", "0")
    process = start("endless")
    with httpx.stream(
        "POST", f"{process.url}/v1/chat/completions", json=ENDLESS, trust_env=False, timeout=30
    ) as answer:
        next(answer.iter_lines())
        process.signal(signal.SIGTERM)
        assert process.end(15) == 0
    assert not process.said


def test_settings_of_the_server_come_from_the_environment(
    start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENDI_SERVE_BODY", "1KiB")
    process = start("--name", "bendi.example", "--origin", "https://chat.example")
    answer = httpx.post(f"{process.url}/v1/chat/completions", content=b" " * 2000, trust_env=False)
    assert answer.status_code == 413
    there = {"Host": "bendi.example", "Origin": "https://chat.example"}
    answer = httpx.get(f"{process.url}/v1/models", headers=there, trust_env=False)
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"


def test_many_connections_are_allowed(start: Callable[..., Process]) -> None:
    if sys.platform != "linux":
        pytest.skip("looks into /proc")
    process = start()
    assert process.url
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft == hard or int(soft) >= 65536 or os.name == "nt"
