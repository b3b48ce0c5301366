"""Sessions that are taken up again begin at once: the built-in model, in processes of their own, as users run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_terminal import Terminal

from bendi.settings import load_settings

LONG = "Here is a list of what I have at home. " + " ".join(f"Item {number}: a box of tea." for number in range(90))
Ask = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def ask() -> Ask:
    def run(question: str, *flags: str) -> tuple[dict[str, Any], str]:
        command = [sys.executable, "-m", "bendi", "run", "demo", question, "--json", "--temperature", "0"]
        done = subprocess.run(
            [*command, "--max-tokens", "12", *flags],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


def _kept() -> list[Path]:
    return sorted(load_settings().kept_states_dir.glob("*.kv"))


@pytest.fixture
def session(ask: Ask) -> str:
    """A session of some 900 tokens whose state is kept."""
    begun, _err = ask(LONG)
    assert _kept() == [], "most questions are never followed by another"
    ask("What is that?", "--session", begun["session"])
    assert [path.stem for path in _kept()] == [begun["session"]]
    return str(begun["session"])


def test_it_goes_on_at_once_and_says_the_same(
    ask: Ask, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        copy = shutil.copytree(load_settings().state_dir, tmp_path / "copy")
        without.setenv("BENDI_STATE", str(copy))
        without.setenv("BENDI_KEPT_STATES", "0")
        computed, _err = ask("And then?", "--session", session)
    assert computed["usage"]["cached_tok"] == 0
    resumed, err = ask("And then?", "--session", session)
    assert err == ""
    assert resumed["usage"]["cached_tok"] > 800
    assert resumed["text"] == computed["text"]
    assert resumed["usage"]["prompt_tok"] == computed["usage"]["prompt_tok"]


@pytest.mark.parametrize(("ending", "offset"), [(".kv", 5000), (".json", 10)])
def test_a_damaged_state_is_computed_again_with_a_note(ask: Ask, session: str, ending: str, offset: int) -> None:
    path = _kept()[0].with_suffix(ending)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    resumed, err = ask("And then?", "--session", session)
    assert resumed["usage"]["cached_tok"] == 0 and resumed["text"]
    assert "cannot be used" in err and "Nothing is lost" in err
    resumed, err = ask("And then?", "--session", session)
    assert err == "" and resumed["usage"]["cached_tok"] > 800, "a good one has replaced it"


def test_a_state_of_another_setting_is_computed_again(ask: Ask, session: str) -> None:
    resumed, err = ask("And then?", "--session", session, "--kv", "q8_0")
    assert resumed["usage"]["cached_tok"] == 0
    assert "another KV type" in err


def test_it_is_deleted_with_its_session(session: str) -> None:
    command = [sys.executable, "-m", "bendi", "session", "rm", session, "--yes"]
    assert subprocess.run(command, timeout=60, capture_output=True).returncode == 0
    assert list(load_settings().kept_states_dir.iterdir()) == []


def test_the_oldest_make_room(ask: Ask, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one_bytes = _kept()[0].stat().st_size
    monkeypatch.setenv("BENDI_KEPT_STATES", str(one_bytes * 3 // 2))
    other, _err = ask(LONG + " Well?")
    ask("What is that?", "--session", other["session"])
    assert [path.stem for path in _kept()] == [other["session"]]


def test_nothing_is_kept_of_what_nobody_is_to_keep(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(LONG, "--no-save")
    assert not load_settings().kept_states_dir.exists()
    monkeypatch.setenv("BENDI_KEPT_STATES", "0")
    begun, _err = ask(LONG)
    ask("What is that?", "--session", begun["session"])
    assert not load_settings().kept_states_dir.exists()


def test_a_chat_keeps_its_state_when_the_user_leaves(ask: Ask, tmp_path: Path) -> None:
    arguments = ["run", "demo", "--max-tokens", "12", "--temperature", "0"]
    with Terminal(arguments, os.environ, tmp_path) as chat:
        chat.wait_for(r"\n>")
        chat.type(LONG + "\r")
        chat.wait_for(r"TTFT[^\n]*\n>")
        chat.type("/quit\r")
        assert chat.wait_for_end() == 0
    (path,) = _kept()
    resumed, err = ask("And then?", "--session", path.stem)
    assert err == "" and resumed["usage"]["cached_tok"] > 700
