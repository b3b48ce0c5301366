"""Images through the server: a model with its projector beside it sees them, by itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from live import LiveServer

from bendi.chat.sessions import SessionStore
from bendi.messages import Message
from bendi.server.keys import KeyRing
from bendi.settings import Settings, load_settings
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


def data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def converse(server: LiveServer, session: str, **question: Any) -> tuple[int, list[tuple[str, Any]]]:
    """The status, and the events of the answer."""
    response = server.client.post(f"/api/bendi/sessions/{session}/messages", json=question)
    if response.status_code != 200:
        return response.status_code, [("error", response.json())]
    frames = [
        dict(line.split(": ", 1) for line in frame.splitlines()) for frame in response.text.split("\n\n") if frame
    ]
    return 200, [(frame["event"], json.loads(frame["data"])) for frame in frames if "data" in frame]


def begun(server: LiveServer) -> str:
    body = {"model": "seeing", "parameters": {"max_tokens": 4, "temperature": 0}}
    return str(server.client.post("/api/bendi/sessions", json=body).json()["id"])


def messages(server: LiveServer, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get(f"/api/bendi/sessions/{session}").json()["messages"]
    return found


def prompt_tok(events: list[tuple[str, Any]]) -> int:
    (done,) = [data for name, data in events if name == "done"]
    return int(done["usage"]["prompt_tok"])


def test_a_conversation_shows_images_and_goes_on_with_them_after_a_restart(folder: Path, tmp_path: Path) -> None:
    write_projector(folder / "mmproj-seeing.gguf", DEMO_LENGTH, **{"general.name": "bendi demo"})
    red = png(255, 0, 0)
    with live(folder, tmp_path) as server:
        blind, session = begun(server), begun(server)
        status, plain = converse(server, blind, text="What is this?")
        assert status == 200
        status, seen = converse(server, session, text="What is this?", images=[data_uri(red)])
        assert status == 200, seen
        assert prompt_tok(seen) >= prompt_tok(plain) + IMAGE_TOK
    with live(folder, tmp_path) as server:
        (image,) = messages(server, session)[0]["images"]
        shown = server.client.get(f"/api/bendi/sessions/{session}/images/{image['name']}")
        assert (shown.content, shown.headers["content-type"]) == (red, "image/png")
        assert data_uri(red) in server.client.get(f"/api/bendi/sessions/{session}/export").text
        _status, plain_again = converse(server, blind, text="And now?")
        status, seen_again = converse(server, session, text="And now?")
        assert status == 200, seen_again
        assert prompt_tok(seen_again) >= prompt_tok(plain_again) + IMAGE_TOK - 4
        assert server.client.delete(f"/api/bendi/sessions/{session}").status_code == 200
        assert server.client.get(f"/api/bendi/sessions/{session}/images/{image['name']}").status_code == 404
    assert red not in [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]


def test_a_model_that_sees_nothing_says_so_before_anything_is_stored(folder: Path, tmp_path: Path) -> None:
    with live(folder, tmp_path) as server:
        session = begun(server)
        assert converse(server, session, text="hi")[0] == 200
        status, said = converse(server, session, text="What is this?", images=[data_uri(png(255, 0, 0))])
        assert len(messages(server, session)) == 2
    assert status == 400 and "cannot see images" in said[0][1]["error"]["message"]


@pytest.mark.parametrize(
    ("images", "status"),
    [
        (["http://127.0.0.1/a.png"], 400), (["file:///etc/passwd"], 400), (["data:image/png;base64,!"], 400),
        (["data:text/html;base64,PGI+"], 400), (["0" * 64], 400), ([""], 400),
        ([data_uri(png(255, 0, 0))] * 17, 400),
    ],
)  # fmt: skip
def test_only_images_are_taken_and_nothing_is_fetched(server: LiveServer, images: list[str], status: int) -> None:
    body = {"model": "demo", "parameters": {"max_tokens": 2}}
    session = server.client.post("/api/bendi/sessions", json=body).json()["id"]
    found, said = converse(server, session, text="What is this?", images=images)
    assert found == status, said


def test_an_image_is_shown_to_its_owner_only(server: LiveServer, settings: Settings) -> None:
    with closing(SessionStore(settings.sessions_file)) as store:
        session = store.create("demo", owner="ann")
        stored = store.append(session.id, Message("user", "mine", images=(png(1, 2, 3),)))
    at = f"/api/bendi/sessions/{session.id}/images/{stored.images[0]}"
    assert server.client.get(at).status_code == 404
    key = KeyRing(settings.keys_file).add("ann")
    answer = server.client.get(at, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200 and answer.content == png(1, 2, 3)
    assert answer.headers["x-content-type-options"] == "nosniff"
    other = KeyRing(settings.keys_file).add("bob")
    assert server.client.get(at, headers={"authorization": f"Bearer {other}"}).status_code == 404
