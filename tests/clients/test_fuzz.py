"""The OpenAPI document of `bendi serve`, fuzzed by schemathesis: whatever is sent, no answer is a 5xx, and each is one
that the document describes, by status, media type, headers and body.

What is asked is the same each time. For more of it:
BENDI_FUZZ_EXAMPLES=200 scripts/test-clients tests/clients/test_fuzz.py; for something else: BENDI_FUZZ_SEED=2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import HubServer, ModelScopeServer, OllamaRegistryServer
from tiny import gguf

import scripted_model
from conftest import BENDI, ROOT, new_key, serving

FUZZ = Path(__file__).with_name("fuzz")
EXAMPLES = int(os.environ.get("BENDI_FUZZ_EXAMPLES", "0"))
"""Random requests to each operation; 0 for an ordinary run, which is short."""
ORDINARY = EXAMPLES or 8
SEED = int(os.environ.get("BENDI_FUZZ_SEED", "1"))
NEVER_DONE = {
    "POST /api/create", "POST /api/push", "GET /api/blobs/{digest}", "POST /api/blobs/{digest}",
    "POST /v1/responses/{id}/cancel",
}  # fmt: skip
"""Operations that only refuse."""
PYTHON = str(BENDI.with_name("python"))
WRITE_RANKER = """
import dataclasses, pathlib, sys, bert_models
shape = dataclasses.replace(bert_models.SMALL, ranks=True)
bert_models.write_random_bert(pathlib.Path(sys.argv[1]), shape)
"""
SHOW_IMAGE = """
import eyes
from bendi.chat.sessions import SessionStore
from bendi.messages import Message
from bendi.settings import load_settings
store = SessionStore(load_settings().sessions_file)
stored = store.append(store.create("demo").id, Message("user", "What is this?", images=(eyes.png(255, 0, 0),)))
store.close()
print(f"{stored.session_id}/{stored.images[0]}")
"""
"""Both run where bendi is. An image cannot be shown over HTTP: no model here sees."""
IMAGE_FILE = "image-shown"
pytestmark = pytest.mark.timeout(max(600, 30 * EXAMPLES))


@contextmanager
def sources() -> Iterator[dict[str, str]]:
    """Settings with which models come from this machine: two small ones, and no others."""
    with HubServer() as hub, ModelScopeServer() as scope, OllamaRegistryServer() as registry:
        for number, name in enumerate(("One", "Other")):
            hub.repos[f"org/{name}-GGUF"] = {f"{name}-Q4_K_M.gguf": gguf(20_000, number)}
        yield {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": scope.url, "BENDI_OLLAMA_REGISTRY": registry.url}


@contextmanager
def fuzzed_server(home: Path, *keys: str) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server of its own, and keys of these scopes."""
    models = home / "models"
    models.mkdir()
    scripted_model.write(models / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    subprocess.run([PYTHON, "-c", WRITE_RANKER, str(models / "ranks.gguf")], cwd=ROOT / "tests", check=True)
    bendi_home = {"PATH": os.environ["PATH"], "HOME": str(home)}
    shown = subprocess.run(
        [PYTHON, "-c", SHOW_IMAGE], cwd=ROOT / "tests", env=bendi_home, check=True, capture_output=True, text=True
    )
    (home / IMAGE_FILE).write_text(shown.stdout.strip())
    (models / "broken.gguf").write_bytes(b"GGUF" + bytes(range(256)))
    with sources() as settings:
        made = [new_key(home, f"for-{scope}", scope) for scope in keys]
        with serving(home, models, settings=settings) as url:
            yield url, made


def fuzz(url: str, folder: Path, examples: int, *options: str, key: str = "") -> dict[str, set[int]]:
    """Asks everything; returns which statuses each operation had. Fails with what schemathesis says."""
    report, config = folder / "asked.json", folder / "schemathesis.toml"
    parts = ["schemathesis.toml"] if EXAMPLES else ["schemathesis.toml", "ordinary.toml"]
    config.write_text("".join((FUZZ / part).read_text() for part in parts))
    authorization = ["--header", f"Authorization: Bearer {key}"] if key else []
    command = [
        sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(config),
        "run", str(folder / "openapi.json"), "--url", url, "--seed", str(SEED), "--max-examples", str(examples),
        *authorization, *options,
    ]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "SCHEMATHESIS_HOOKS": str(FUZZ / "hooks.py"),
        "BENDI_FUZZ_REPORT": str(report), "BENDI_FUZZ_IMAGE": (folder / IMAGE_FILE).read_text(),
    }  # fmt: skip
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, errors="replace")
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    return {name: {int(status) for status in counts} for name, counts in json.loads(report.read_text()).items()}


def described(url: str, folder: Path, key: str = "") -> dict[str, dict[str, Any]]:
    """The operations of the document by name; the document is kept in `folder`."""
    request = urllib.request.Request(f"{url}/openapi.json", headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request) as answer:
        raw = answer.read()
    (folder / "openapi.json").write_bytes(raw)
    paths = json.loads(raw)["paths"]
    return {f"{method.upper()} {path}": said for path, item in paths.items() for method, said in item.items()}


def check_log(home: Path) -> None:
    """Nothing went wrong that no client was told."""
    for line in (home / "serve.log").read_text("utf-8", "replace").splitlines():
        assert '"defect"' not in line and "Traceback" not in line, line


def test_without_keys(tmp_path: Path) -> None:
    with fuzzed_server(tmp_path) as (url, _keys):
        operations = described(url, tmp_path)
        asked = fuzz(url, tmp_path, ORDINARY, "--exclude-checks", "ignored_auth")
        assert asked.keys() == operations.keys()
        undone = {name for name, statuses in asked.items() if not statuses & {200, 201}}
        assert undone == NEVER_DONE, "every operation was really done, too"
    check_log(tmp_path)


def test_with_keys(tmp_path: Path) -> None:
    with fuzzed_server(tmp_path, "admin", "infer") as (url, (admin, infer)):
        operations = described(url, tmp_path, admin)
        # Corner cases of fields are the same with a key and without.
        fewer, phase = max(ORDINARY // 4, 1), ("--phases", "fuzzing")
        assert fuzz(url, tmp_path, fewer, *phase, key=admin).keys() == operations.keys()
        asked = fuzz(url, tmp_path, fewer, *phase, key=infer)
        for name, said in operations.items():
            assert said.get("x-scope") != "admin" or asked[name] <= {401, 403, 405}, name
        asked = fuzz(url, tmp_path, fewer, *phase)
        for name, said in operations.items():
            assert not said["security"] or asked[name] == {401}, name
    check_log(tmp_path)
