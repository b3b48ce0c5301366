"""What a model holds of conversations survives its unloading, and only of those that are kept anyway."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from live import LiveServer

from bendi.chat.kept_states import KeptStates
from bendi.chat.sessions import SessionStore
from bendi.engines.kv_state import saved_states, state_paths
from bendi.settings import Settings

LONG = "A model has layers, and a layer has heads. " * 60
"""Some 700 tokens: more than is computed again before anybody notices."""


def begin(server: LiveServer) -> str:
    body = {"model": "demo", "parameters": {"max_tokens": 12, "temperature": 0}}
    return str(server.client.post("/api/bendi/sessions", json=body).json()["id"])


def ask(server: LiveServer, session: str, text: str) -> dict[str, Any]:
    """What the last event of the answer says."""
    answer = server.client.post(f"/api/bendi/sessions/{session}/messages", json={"text": text})
    assert answer.status_code == 200, answer.text
    last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    found: dict[str, Any] = json.loads(last.removeprefix("data: "))
    assert "usage" in found, found
    return found


def chat(server: LiveServer, text: str) -> dict[str, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
    answer: dict[str, Any] = server.client.post("/v1/chat/completions", json=body).json()
    return answer


def kept(settings: Settings) -> list[str]:
    return [state.name for state in saved_states(settings.kept_states_dir)]


def forget_through_the_server(server: LiveServer, session: str) -> None:
    assert server.client.delete(f"/api/bendi/sessions/{session}").status_code == 200


def forget_beside_the_server(server: LiveServer, session: str) -> None:
    """As `bendi session rm` does it."""
    settings = server.services.settings
    with closing(SessionStore(settings.sessions_file)) as store:
        store.delete([session])
    KeptStates(settings.kept_states_dir, settings.kept_states_bytes).forget([session])


def test_a_session_goes_on_at_once_after_a_restart(settings: Settings) -> None:
    with LiveServer(settings) as server:
        session = begin(server)
        first = ask(server, session, LONG)
        used_tok = first["context"]["used_tok"]
        assert used_tok > 512
    assert len(kept(settings)) == 1
    with LiveServer(settings) as server:
        again = ask(server, session, "And in short?")
    assert again["usage"]["cached_tok"] >= used_tok - 2
    with LiveServer(replace(settings, kept_states_bytes=0)) as server:
        assert ask(server, session, "Say it again.")["usage"]["cached_tok"] == 0


def test_unloading_for_idling_keeps_it_too(settings: Settings) -> None:
    with LiveServer(replace(settings, serve_keep_alive_s=0.0)) as server:
        session = begin(server)
        ask(server, session, LONG)
        for _try in range(200):
            if not server.client.get("/api/bendi/ps").json()["models"]:
                break
        assert ask(server, session, "And in short?")["usage"]["cached_tok"] > 512


def test_loading_and_counting_beforehand_make_no_difference(settings: Settings) -> None:
    """As `bendi serve MODEL`, the page and clients that count do: nothing of a program is in the model then."""
    with LiveServer(settings) as server:
        assert server.client.post("/api/bendi/load", json={"model": "demo"}).status_code == 200
        assert server.client.post("/api/generate", json={"model": "demo"}).status_code == 200
        assert server.client.post("/tokenize", json={"model": "demo", "content": "rain"}).status_code == 200
        counted = {"model": "demo", "messages": [{"role": "user", "content": "rain"}]}
        assert server.client.post("/v1/messages/count_tokens", json=counted).status_code == 200
        ask(server, begin(server), LONG)
    assert len(kept(settings)) == 1


@pytest.mark.parametrize(("allowed", "states"), [(False, 0), (True, 2)])
def test_prompts_of_programs_are_kept_only_where_that_is_allowed(
    settings: Settings, allowed: bool, states: int
) -> None:
    settings = replace(settings, serve_keep_prompts=allowed)
    with LiveServer(settings) as server:
        ask(server, begin(server), LONG)
        chat(server, "量化模型需要更少的内存。" * 120)
    assert len(kept(settings)) == states
    with LiveServer(settings) as server:
        usage = chat(server, "量化模型需要更少的内存。" * 120)["usage"]
        assert (usage["prompt_tokens_details"]["cached_tokens"] > 512) == allowed


@pytest.mark.parametrize("forget", [forget_through_the_server, forget_beside_the_server])
def test_nothing_of_a_deleted_session_is_kept(settings: Settings, forget: Callable[[LiveServer, str], None]) -> None:
    with LiveServer(settings) as server:
        session = begin(server)
        ask(server, session, LONG)
    assert kept(settings)
    with LiveServer(settings) as server:
        ask(server, session, "And in short?")
        forget(server, session)
        assert kept(settings) == []
    assert kept(settings) == [], "the model still held it when it was unloaded"


def test_a_spoilt_state_costs_time_and_nothing_else(settings: Settings) -> None:
    with LiveServer(settings) as server:
        session = begin(server)
        ask(server, session, LONG)
    (name,) = kept(settings)
    state, _facts = state_paths(settings.kept_states_dir, name)
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with LiveServer(settings) as server:
        assert ask(server, session, "And in short?")["usage"]["cached_tok"] == 0
