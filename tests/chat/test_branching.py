"""Sessions that begin as others did, and whose they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bendi.chat.branching import branch
from bendi.chat.schema import MIGRATIONS, migrate
from bendi.chat.sessions import SessionStore
from bendi.messages import Message


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with closing(SessionStore(tmp_path / "bendi.sqlite3")) as opened:
        yield opened


def test_a_branch_has_what_came_before_and_nothing_else(store: SessionStore) -> None:
    session = store.create("demo", persona="concise", settings={"set": {"top_k": 3}}, owner="ann")
    for text in ("one", "two", "three"):
        question = store.append(session.id, Message("user", text))
        store.append(session.id, Message("assistant", text.upper()))
    new = branch(store, store.get(session.id), question.position)
    assert [stored.message.content for stored in store.messages(new.id)] == ["one", "ONE", "two", "TWO"]
    assert (new.owner, new.persona, new.settings, new.title) == ("ann", "concise", {"set": {"top_k": 3}}, "one")
    assert len(store.messages(session.id)) == 6


def test_a_summary_still_stands_for_the_same_messages(store: SessionStore) -> None:
    session = store.create("demo")
    first = store.append(session.id, Message("user", "taken back"))
    store.supersede(session.id, first.position)
    for text in ("one", "two"):
        store.append(session.id, Message("user", text))
        last = store.append(session.id, Message("assistant", text.upper()))
    covered = last.position - 2
    store.append(session.id, Message("system", "summary"), kind="summary", details={"covers_to": covered})
    end = store.append(session.id, Message("user", "three"))
    new = store.messages(branch(store, store.get(session.id), end.position).id)
    (summary,) = [stored for stored in new if stored.kind == "summary"]
    stands_for = [m.message.content for m in new if m.position <= summary.details["covers_to"] and m.kind == "turn"]
    assert stands_for == ["one", "ONE"]


def test_everybody_has_their_own(store: SessionStore) -> None:
    for owner in ("", "ann"):
        store.append(store.create("demo", owner=owner).id, Message("user", f"bandwidth of {owner or 'nobody'}"))
    assert [session.owner for session in store.recent(owner="ann")] == ["ann"]
    assert [hit.session.owner for hit in store.search("bandwidth", owner="")] == [""]
    assert len(store.recent()) == len(store.search("bandwidth")) == 2
    assert store.recent_prompts() == ["bandwidth of nobody"]


def test_sessions_of_the_first_format_belong_to_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:1])
        connection.execute("INSERT INTO sessions VALUES ('abcdefghijkm', 't', 'demo', '', '{}', 1.0, 1.0)")
        migrate(connection)
        assert connection.execute("SELECT owner FROM sessions").fetchall() == [("",)]
