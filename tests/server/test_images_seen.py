"""Images through the server: a model with its projector beside it sees them, by itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import LiveServer

from bendi.settings import load_settings
from eyes import IMAGE_TOK, png, write_projector

DEMO_LENGTH = 256


def live(folder: Path, home: Path) -> LiveServer:
    folders = {f"BENDI_{name}": str(home / name) for name in ("STATE", "CACHE", "CONFIG")}
    return LiveServer(load_settings({"BENDI_MODELS": str(folder), "BENDI_ENGINE": "wheel", **folders}))


@pytest.fixture
def folder(demo_model: Path, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "models"
    path.mkdir()
    (path / "seeing.gguf").write_bytes(demo_model.read_bytes())
    yield path


def ask(server: LiveServer, *images: bytes) -> tuple[int, dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}]
    for image in images:
        url = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    body = {"model": "seeing", "messages": [{"role": "user", "content": parts}], "max_tokens": 4, "temperature": 0}
    response = server.client.post("/v1/chat/completions", json=body)
    return response.status_code, response.json()


def test_a_model_with_its_projector_beside_it_sees(folder: Path, tmp_path: Path) -> None:
    write_projector(folder / "mmproj-seeing.gguf", DEMO_LENGTH, **{"general.name": "bendi demo"})
    with live(folder, tmp_path) as server:
        plain, seen = ask(server), ask(server, png(255, 0, 0))
    assert plain[0] == seen[0] == 200, seen[1]
    counts = [answer["usage"]["prompt_tokens"] for _status, answer in (plain, seen)]
    assert counts[1] >= counts[0] + IMAGE_TOK


def test_a_projector_that_does_not_fit_is_left_out(folder: Path, tmp_path: Path) -> None:
    write_projector(folder / "mmproj-seeing.gguf", 2 * DEMO_LENGTH, **{"general.name": "bendi demo"})
    with live(folder, tmp_path) as server:
        assert ask(server)[0] == 200
        status, answer = ask(server, png(255, 0, 0))
    assert status == 400 and "images" in answer["error"]["message"]
