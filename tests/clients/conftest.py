"""One real `bendi serve` for all clients: a process of its own, on loopback, with models whose answers are known.

Runs in the environment of the clients (`scripts/test-clients`), which has no bendi in it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import scripted_model

ROOT = Path(__file__).resolve().parent.parent.parent
# Calls a tool with the number 3 wherever a number is wanted, and closes every text that it begins.
OBEYS = {
    "\n": scripted_model.CALL,
    scripted_model.CALL: "\n",
    "{": '"',
    '"': '"',
    ":": "3",
    "3": "}",
    "}": "\n",
    scripted_model.CALL_END: scripted_model.END,
}
BENDI = ROOT / ".venv" / "bin" / "bendi"
_START_S = 30.0
_END_S = 20.0


@dataclass(frozen=True)
class Server:
    """`url`: without a slash at the end. `models`: the folder in which it looks for models."""

    url: str
    models: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models: `demo` (knows how models are run locally), `tools` (calls the tool that it is given), `obedient`
    (see OBEYS), `endless`."""
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    models.mkdir()
    scripted_model.write(models / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    scripted_model.write(models / "obedient.gguf", OBEYS, scripted_model.TOOL_TEMPLATE)
    scripted_model.write(models / "endless.gguf", scripted_model.NEVER_ENDS, scripted_model.PLAIN_TEMPLATE)
    with serving(home, models) as url:
        yield Server(url, models)


@contextmanager
def serving(home: Path, models: Path, *options: str, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """`bendi serve` on a free port, with `home` for everything that it keeps. Yields its URL; ended afterwards.
    `settings`: as environment variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BENDI), "serve", "--port", str(port), *options],
            env=_environment(home) | {"BENDI_MODELS": str(models), **(settings or {})},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, f"{url}/health", log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def new_key(home: Path, name: str = "tests", scope: str = "infer") -> str:
    """A key to the server that is run in `home`."""
    command = [str(BENDI), "key", "add", name, "--scope", scope]
    done = subprocess.run(command, env=_environment(home), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "BENDI_LANG": "en"}


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"bendi serve did not start:\n{log.read_text('utf-8', 'replace')}")
