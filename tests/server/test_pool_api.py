"""Loading, pinning and unloading by hand: over HTTP, and with `bendi ps` and `bendi stop`."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator

import pytest
from live import LiveServer

from bendi.cli.main import main
from bendi.errors import BendiError, NotFoundError
from bendi.server.policy import Policy
from bendi.server.running_server import RunningServer, announced, ask_server, find_server, server_file
from bendi.settings import Settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bendi(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def found(server: LiveServer, settings: Settings) -> Iterator[LiveServer]:
    """A server that the verbs find."""
    with announced(settings, RunningServer(server.url, os.getpid())):
        yield server


def test_by_hand(server: LiveServer) -> None:
    client = server.client
    assert client.get("/api/bendi/ps").json() == {"models": [], "waiting": 0}
    loaded = client.post("/api/bendi/load", json={"model": "demo", "context_tok": 512, "keep_alive": "1h"})
    (model,) = loaded.json()["models"]
    assert (model["model"], model["state"], model["kind"], model["context_tok"]) == ("demo", "ready", "text", 512)
    assert model["resident_bytes"] > 1_000_000 and model["memory_bytes"] > 1_000_000
    assert 3590 < model["expires_s"] <= 3600
    (pinned,) = client.post("/api/bendi/pin", json={"model": "DEMO"}).json()["models"]
    assert (pinned["pinned"], pinned["expires_s"]) == (True, None)
    assert client.post("/api/bendi/stop", json={"all": True}).json() == {"stopped": 1}
    assert client.post("/api/bendi/stop", json={"all": True}).json() == {"stopped": 0}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("stop", {}, 400),
        ("stop", {"model": "demo", "all": True}, 400),
        ("stop", {"model": "demo"}, 404),
        ("pin", {"model": "demo"}, 404),
        ("load", {"model": "/etc/passwd"}, 404),
        ("load", {"model": "demo", "keep_alive": "soon"}, 400),
        ("load", {"model": "demo", "kind": "rerank"}, 422),
    ],
)
def test_what_cannot_be_done(server: LiveServer, path: str, body: dict[str, object], status: int) -> None:
    answer = server.client.post(f"/api/bendi/{path}", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_paths_are_for_administrators(settings: Settings) -> None:
    with LiveServer(settings, Policy(keys_required=True)) as server:
        infer, admin = server.services.keys.add("app"), server.services.keys.add("boss", "admin")
        as_admin = {"Authorization": f"Bearer {admin}"}
        as_infer = {"Authorization": f"Bearer {infer}"}
        load = {"model": "demo"}
        assert server.client.post("/api/bendi/load", json=load, headers=as_infer).status_code == 403
        assert server.client.post("/api/bendi/load", json=load, headers=as_admin).status_code == 200
        (seen,) = server.client.get("/api/bendi/ps", headers=as_infer).json()["models"]
        assert seen["path"] is None
        (seen,) = server.client.get("/api/bendi/ps", headers=as_admin).json()["models"]
        assert seen["path"].endswith("demo.gguf")
        assert server.client.get("/api/bendi/ps").status_code == 401
        with announced(settings, RunningServer(server.url, os.getpid(), admin)):
            assert ask_server(settings, "POST", "/api/bendi/stop", {"model": "demo"}) == {"stopped": 1}


def test_the_verbs(found: LiveServer, bendi: Run) -> None:
    code, out, talk = bendi("ps")
    assert (code, out) == (0, "") and "No model is loaded" in talk
    found.client.post("/api/bendi/load", json={"model": "demo"})
    code, out, _talk = bendi("ps")
    assert code == 0 and out.splitlines()[1].startswith("demo") and "in 5:00" in out
    assert json.loads(bendi("ps", "--json")[1])["models"][0]["model"] == "demo"
    code, _out, talk = bendi("stop", "absent")
    assert code == 3 and "absent" in talk
    assert bendi("stop")[0] == 2
    assert bendi("stop", "demo")[::2] == (0, "1 model unloaded\n")
    assert json.loads(bendi("stop", "--all", "--json")[1]) == {"stopped": 0}


def test_without_a_server(settings: Settings, bendi: Run) -> None:
    for words in (("ps",), ("stop", "demo"), ("stop", "--all")):
        code, _out, talk = bendi(*words)
        assert code == 3 and "bendi serve" in talk


def test_the_file_is_private_and_goes_with_the_server(settings: Settings) -> None:
    path = server_file(settings)
    server = RunningServer("http://127.0.0.1:9", os.getpid(), "secret")
    with announced(settings, server):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert find_server(settings) == server
        with pytest.raises(NotFoundError):  # nobody listens there
            ask_server(settings, "GET", "/api/bendi/ps")
        newer = RunningServer("http://127.0.0.1:8", os.getpid())
        with announced(settings, newer):
            assert find_server(settings) == newer
        assert not path.exists()
    with announced(settings, RunningServer("http://127.0.0.1:9", 2**22 + 1)), pytest.raises(NotFoundError):
        find_server(settings)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"url": 1, "pid": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_no_server(settings: Settings, content: bytes) -> None:
    path = server_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(NotFoundError):
        find_server(settings)


def test_a_server_that_says_no(server: LiveServer, settings: Settings) -> None:
    with announced(settings, RunningServer(server.url, os.getpid())), pytest.raises(BendiError) as caught:
        ask_server(settings, "POST", "/api/bendi/stop", {})
    assert "which model" in str(caught.value)
