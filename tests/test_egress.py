"""Nothing leaves the machine unless the user pulls: every connection that bendi's processes try is seen and counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Runs a command of bendi with Python's own audit events: name look-ups and connections cannot happen unseen.
WATCHED = """
import sys
def watch(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        print("LOOKUP", args[0], file=sys.stderr)
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        print("CONNECT", args[1], file=sys.stderr)
sys.addaudithook(watch)
from bendi.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
COMMANDS = [
    ["demo"],
    ["run", "demo", "What is quantization?"],
    ["list"],
    ["show", "demo"],
    ["verify"],
    ["session", "list"],
    ["persona", "list"],
    ["doctor"],
    ["run", "no-such-model", "hi"],
]


def watched(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(("LOOKUP", "CONNECT"))]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_verb_but_pull_looks_anywhere(command: list[str]) -> None:
    assert watched(*command) == []


def test_the_watch_sees_a_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with nothing listening there, a pull is seen to try."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert any("127.0.0.1" in line for line in watched("pull", "--retries", "1", "hf:org/repo"))


def test_offline_setting_forbids_even_a_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BENDI_OFFLINE", "1")
    assert watched("pull", "hf:org/repo") == []


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, to take the network away")
def test_works_where_there_is_no_network_at_all() -> None:
    tried = subprocess.run(["unshare", "-rn", "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("this system lets no user make a network namespace")
    question = ["run", "demo", "What is quantization?", "--no-save", "--temperature", "0"]
    command = ["unshare", "-rn", sys.executable, "-m", "bendi", *question]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "weights" in done.stdout


def test_worker_library_cannot_connect(tmp_path: Path) -> None:
    """The engine itself is native code, which no audit hook sees: the kernel refuses it every TCP connection."""
    if sys.platform != "linux":
        pytest.skip("Landlock is Linux's")
    code = f"""
import socket
from bendi.engines import sandbox
if "no tcp" not in sandbox.confine([], [{os.fspath(tmp_path)!r}], allow_tcp=False): print("none")
else:
    try: socket.create_connection(("127.0.0.1", 9), 1)
    except PermissionError: print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "none":
        pytest.skip("this kernel has no Landlock for TCP")
    assert done.stdout.strip() == "refused"
