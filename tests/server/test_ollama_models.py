"""What Ollama's clients ask about models: listing, showing, pulling from a test registry, naming, deleting."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from live import LiveServer

from bendi.server.keys import KeyRing
from bendi.server.ollama_models import parameter_size
from bendi.settings import Settings


@pytest.fixture
def stocked(settings: Settings, demo_model: Path) -> Settings:
    """Settings with a model in the folder of models."""
    folder = settings.models_dirs[0]
    folder.mkdir(parents=True)
    shutil.copy(demo_model, folder / "mine.gguf")
    return settings


def test_tags_ps_and_show(stocked: Settings, server: LiveServer) -> None:
    listed = {model["name"]: model for model in server.client.get("/api/tags").json()["models"]}
    assert set(listed) == {"demo", "mine.gguf"}
    mine = listed["mine.gguf"]
    assert mine["size"] == (stocked.models_dirs[0] / "mine.gguf").stat().st_size
    assert datetime.fromisoformat(mine["modified_at"]).tzinfo
    assert mine["details"]["format"] == "gguf" and mine["details"]["family"] and mine["details"]["parameter_size"]
    shown = server.client.post("/api/show", json={"name": "mine.gguf"}).json()
    assert shown["capabilities"] == ["completion"]
    assert shown["details"] == mine["details"]
    assert len(shown["template_sha256"]) == 64 and shown["template"]
    info = shown["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] > 0
    assert info["tokenizer.ggml.tokens"] is None
    assert server.client.get("/api/ps").json() == {"models": []}
    server.client.post("/api/generate", json={"model": "demo", "keep_alive": -1})
    (running,) = server.client.get("/api/ps").json()["models"]
    assert running["name"] == running["model"] == "demo"
    assert running["size"] > 0 and running["size_vram"] == 0 and running["context_length"] > 0
    assert datetime.fromisoformat(running["expires_at"]).year == 9999
    assert str(stocked.models_dirs[0]) not in server.client.get("/api/tags").text


def test_show_of_a_model_that_is_not_here(server: LiveServer) -> None:
    answer = server.client.post("/api/show", json={"model": "nothing-like-it"})
    assert answer.status_code == 404 and "nothing-like-it" in answer.json()["error"]
    assert server.client.post("/api/show", json={}).status_code == 400


def test_a_copy_is_another_name_and_no_bytes(stocked: Settings, server: LiveServer) -> None:
    for source, alias in (("mine.gguf", "work"), ("demo", "small:mine")):
        answer = server.client.post("/api/copy", json={"source": source, "destination": alias})
        assert answer.status_code == 200, answer.text
    names = [model["name"] for model in server.client.get("/api/tags").json()["models"]]
    assert sorted(names) == ["demo", "mine.gguf", "small:mine", "work"]
    body = {"model": "work:latest", "prompt": "Hello", "options": {"num_predict": 2}, "stream": False}
    assert server.client.post("/api/generate", json=body).json()["done"]
    assert [path.name for path in stocked.models_dirs[0].iterdir()] == ["mine.gguf"]
    assert server.client.request("DELETE", "/api/delete", json={"model": "work"}).status_code == 200
    assert server.client.post("/api/show", json={"model": "work"}).status_code == 404
    assert (stocked.models_dirs[0] / "mine.gguf").exists()
    for wrong in ("demo", "hf:a/b", "/tmp/x.gguf", "../x"):
        answer = server.client.post("/api/copy", json={"source": "mine.gguf", "destination": wrong})
        assert answer.status_code == 400, wrong


def test_comments_in_the_file_of_aliases_stay(stocked: Settings, server: LiveServer) -> None:
    aliases = server.services.store.aliases_file
    aliases.parent.mkdir(parents=True, exist_ok=True)
    aliases.write_text('# mine\nold = "hf:org/repo:Q4_K_M"  # kept\n', "utf-8")
    server.client.post("/api/copy", json={"source": "demo", "destination": "new"})
    assert aliases.read_text("utf-8") == '# mine\nold = "hf:org/repo:Q4_K_M"  # kept\nnew = "demo"\n'
    aliases.write_text("old = 1\n", "utf-8")
    answer = server.client.post("/api/copy", json={"source": "demo", "destination": "newer"})
    assert answer.status_code == 400
    assert aliases.read_text("utf-8") == "old = 1\n"


def test_only_what_bendi_brought_is_deleted(stocked: Settings, server: LiveServer) -> None:
    for name in ("mine.gguf", "demo"):
        answer = server.client.request("DELETE", "/api/delete", json={"model": name})
        assert answer.status_code == 409, answer.text
        assert str(stocked.models_dirs[0]) not in answer.text
    elsewhere = server.client.request("DELETE", "/api/delete", json={"model": "/etc/passwd"})
    assert elsewhere.status_code == 404
    assert (stocked.models_dirs[0] / "mine.gguf").exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/create"), ("POST", "/api/push"), ("POST", "/api/blobs/sha256:0"), ("HEAD", "/api/blobs/sha256:0")],
)
def test_making_models_is_not_offered(server: LiveServer, method: str, path: str) -> None:
    assert server.client.request(method, path).status_code == 501


def test_version(server: LiveServer) -> None:
    version = server.client.get("/api/version").json()["version"]
    assert version.split("+")[0].count(".") == 2
    assert server.client.head("/api/version").status_code == 200


@pytest.mark.parametrize(
    ("count", "text"), [(8_190_735_360, "8.2B"), (751_632_384, "751.63M"), (292_000, "292K"), (7, "7"), (10**9, "1B")]
)
def test_parameter_sizes(count: int, text: str) -> None:
    assert parameter_size(count) == text


def test_a_key_for_asking_cannot_pull_copy_or_delete(settings: Settings) -> None:
    key = KeyRing(settings.keys_file).add("asker")
    with LiveServer(settings) as server:
        server.client.headers["authorization"] = f"Bearer {key}"
        assert server.client.get("/api/tags").status_code == 200
        for method, path in (("POST", "/api/pull"), ("POST", "/api/copy"), ("DELETE", "/api/delete")):
            assert server.client.request(method, path, json={"model": "demo"}).status_code == 403
