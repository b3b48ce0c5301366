"""Sessions on real SQLite files: what is stored comes back, what is deleted is gone from the bytes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bendi.chat import database as database_module
from bendi.chat.journal import Change
from bendi.chat.sessions import SessionStore
from bendi.errors import DataError, NotFoundError, UsageError
from bendi.messages import Message, ToolCall


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "bendi.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    with contextlib.closing(SessionStore(path)) as store:
        yield store


def test_what_is_stored_comes_back(path: Path) -> None:
    call = ToolCall("call_1", "weather", '{"city": "北京"}')
    with contextlib.closing(SessionStore(path)) as store:
        session = store.create("demo", persona="翻译", settings={"set": {"temperature": 0.5}})
        store.append(session.id, Message("user", "什么是量化?\nsecond line"))
        store.append(session.id, Message("assistant", "…", "thinking", (call,)), details={"usage": {"prompt_tok": 3}})
        store.append(session.id, Message("tool", "sunny", tool_call_id="call_1"))
    with contextlib.closing(SessionStore(path)) as store:
        found = store.get(session.id)
        assert (found.title, found.model, found.persona) == ("什么是量化?", "demo", "翻译")
        assert found.settings == {"set": {"temperature": 0.5}}
        messages = store.messages(session.id)
        assert [stored.message for stored in messages] == [
            Message("user", "什么是量化?\nsecond line"),
            Message("assistant", "…", "thinking", (call,)),
            Message("tool", "sunny", tool_call_id="call_1"),
        ]
        assert messages[1].details == {"usage": {"prompt_tok": 3}}
        assert found.messages == 3
        assert not store.notices


def test_a_session_without_a_message_leaves_nothing(path: Path) -> None:
    with contextlib.closing(SessionStore(path)) as store:
        session = store.create("demo", settings={"system": "x"})
        assert store.change(session.id, persona="p").persona == "p" == store.get(session.id).persona
        assert store.messages(session.id) == [] == store.recent()
        other = store.create("demo")
        store.append(other.id, Message("user", "hi"))
        assert [found.id for found in store.recent()] == [other.id]
    with contextlib.closing(SessionStore(path)) as store, pytest.raises(NotFoundError):
        store.get(session.id)


def test_files_are_private(store: SessionStore, path: Path) -> None:
    store.append(store.create("demo").id, Message("user", "hi"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_ids_are_found_by_prefix(store: SessionStore) -> None:
    sessions = [store.create("demo") for _ in range(30)]
    for session in sessions:
        store.append(session.id, Message("user", "hi"))
    assert len({session.id for session in sessions}) == 30
    assert store.find(sessions[3].id[:8]).id == sessions[3].id
    assert store.find(sessions[3].id.upper()).id == sessions[3].id
    for nonsense in ("", "a", "%%%", "___", "zzzzzzzzzzzzz"):
        with pytest.raises(NotFoundError):
            store.find(nonsense)
    with pytest.raises(NotFoundError):
        store.get(sessions[3].id[:8])


def test_what_was_only_begun_is_not_kept_for_ever(store: SessionStore) -> None:
    old, of_ann = store.create("demo"), store.create("demo", owner="ann")
    begun = [store.create("demo") for _number in range(64)]
    with pytest.raises(NotFoundError):
        store.get(old.id)
    assert store.get(of_ann.id) == of_ann and all(store.get(session.id) == session for session in begun)
    store.append(begun[0].id, Message("user", "hi"))
    assert store.get(begun[0].id).title == "hi"


def test_an_ambiguous_prefix_names_the_candidates(store: SessionStore) -> None:
    rows = [{"id": f"samestart{end}", "title": "", "model": "", "persona": "", "settings": "{}"} for end in "ab"]
    times = {"created_s": 1.0, "updated_s": 1.0}
    store._database.write(lambda _connection: Change(rows=tuple(("sessions", row | times) for row in rows)))
    with pytest.raises(UsageError, match="samestarta, samestartb"):
        store.find("same")
    assert store.find("samestartb").id == "samestartb"


def test_recent_is_in_order_of_use(store: SessionStore) -> None:
    first, second = store.create("demo"), store.create("demo")
    for session in (first, second):
        store.append(session.id, Message("user", "hi"))
    assert [session.id for session in store.recent()] == [second.id, first.id]
    store.append(first.id, Message("user", "again"))
    assert [session.id for session in store.recent(1)] == [first.id]


def test_recent_is_in_order_of_use_also_when_the_clock_was_set(store: SessionStore) -> None:
    ahead, after = store.create("demo"), store.create("demo")
    store.append(ahead.id, Message("user", "hi"))
    row = {**vars(store.get(ahead.id)), "settings": "{}", "updated_s": 9e9}
    row.pop("messages")
    store._database.write(lambda _connection: Change(rows=(("sessions", row),)))
    store.append(after.id, Message("user", "hi"))
    assert [session.id for session in store.recent()] == [after.id, ahead.id]


def test_superseded_messages_stay_but_are_not_in_force(store: SessionStore) -> None:
    session = store.create("demo")
    kept = store.append(session.id, Message("user", "one"))
    gone = store.append(session.id, Message("assistant", "two"))
    assert store.supersede(session.id, gone.position) == 1
    new = store.append(session.id, Message("assistant", "three"))
    assert [stored.position for stored in store.messages(session.id)] == [kept.position, new.position]
    assert [stored.message.content for stored in store.messages(session.id, superseded=True)] == ["one", "two", "three"]
    assert store.get(session.id).messages == 2


def test_a_growing_answer_is_rewritten_in_place(store: SessionStore) -> None:
    session = store.create("demo")
    growing = store.append(session.id, Message("assistant", "hal"), state="partial")
    store.rewrite(growing, Message("assistant", "half done"), state="complete", details={"finish": "stop"})
    (stored,) = store.messages(session.id)
    assert (stored.message.content, stored.state, stored.details) == ("half done", "complete", {"finish": "stop"})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("量化", True), ("什么是量化", True), ("QUANT", True), ("quantization bits", True), ("100%", True), ('"', True),
        ("quantization missing", False), ("99%", False), ("AND", False), ("a_b", False), ("x", False), (" ", False),
        ("\0", False), ("quant\0", True),
    ],
)  # fmt: skip
def test_search(store: SessionStore, query: str, found: bool) -> None:
    session = store.create("demo")
    store.append(session.id, Message("user", '什么是量化? Quantization to 4 bits, "100%" quick'))
    other = store.create("demo")
    store.append(other.id, Message("user", "unrelated 文字"))
    hits = store.search(query)
    assert [hit.session.id for hit in hits] == ([session.id] if found else [])
    if hits and query.strip('"'):
        assert query.strip("\0").split()[0].lower() in hits[0].excerpt.lower()


def test_search_finds_titles_and_not_what_was_taken_back(store: SessionStore) -> None:
    session = store.create("demo")
    message = store.append(session.id, Message("user", "zebra crossing"))
    store.change(session.id, title="holiday plans")
    store.supersede(session.id, message.position)
    assert not store.search("zebra")
    assert [hit.session.id for hit in store.search("holiday")] == [session.id]


def test_a_deleted_session_is_in_no_file_any_more(path: Path) -> None:
    secret, kept = "the-secret-粉红色的大象-ptarmigan", "this one stays"
    with contextlib.closing(SessionStore(path)) as store:
        session, other = store.create("demo"), store.create("demo")
        for number in range(40):
            store.append(session.id, Message("user", f"{secret} {number} " + "pad " * 200, f"{secret} thought"))
            store.append(other.id, Message("user", f"{kept} {number}"))
        growing = store.append(session.id, Message("assistant", secret))
        store.rewrite(growing, Message("assistant", "short"), state="complete")
        assert store.delete([session.id])
        _assert_absent(path.parent, secret)
        assert not store.search("ptarmigan")
        with pytest.raises(NotFoundError):
            store.get(session.id)
        with pytest.raises(NotFoundError):
            store.append(session.id, Message("user", "too late"))
    _assert_absent(path.parent, secret)
    with contextlib.closing(SessionStore(path)) as store:
        assert len(store.messages(other.id)) == 40
        assert len(store.search("this one stays")) == 40


def _assert_absent(folder: Path, text: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for piece in (text, "ptarmigan", "粉红色"):
                assert piece.encode() not in content, f"{piece} in {file.name}"


def test_deletion_that_was_interrupted_is_finished_at_the_next_start(path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from bendi.chat.sessions import SessionStore\n"
        "from bendi.chat.journal import Change; from bendi.messages import Message\n"
        "store = SessionStore(Path(sys.argv[1])); session = store.create('demo')\n"
        "store.append(session.id, Message('user', 'ptarmigan ' * 500))\n"
        "store._database.write(lambda _c: Change(delete=(session.id,)))\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    with contextlib.closing(SessionStore(path)) as store:
        assert store.recent() == []
        _assert_absent(path.parent, "ptarmigan")


def test_deleting_while_another_process_reads_is_finished_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_LOCK_TIMEOUT_S", 0.1)
    with contextlib.closing(SessionStore(path)) as store:
        session = store.create("demo")
        store.append(session.id, Message("user", "ptarmigan"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
            assert store.delete([session.id]) is False
        assert store.recent() == []
    with contextlib.closing(SessionStore(path)):
        _assert_absent(path.parent, "ptarmigan")


def test_two_stores_and_many_threads_write_at_once(path: Path) -> None:
    with contextlib.closing(SessionStore(path)) as one, contextlib.closing(SessionStore(path)) as two:
        session = one.create("demo")
        one.append(session.id, Message("user", "first"))

        def write(store: SessionStore, name: str) -> None:
            for number in range(10):
                store.append(session.id, Message("user", f"{name} {number}"))

        threads = [
            threading.Thread(target=write, args=(store, f"t{i}")) for i, store in enumerate((one, two, one, two))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        messages = one.messages(session.id)
        assert [stored.position for stored in messages] == list(range(1, 42))
        for i in range(4):
            mine = [m.message.content for m in messages if m.message.content.startswith(f"t{i} ")]
            assert mine == [f"t{i} {number}" for number in range(10)]


def test_undecodable_bytes_of_a_command_line_are_stored(store: SessionStore) -> None:
    session = store.create("demo")
    store.append(session.id, Message("user", os.fsdecode(b"caf\xe9 \xff")))
    assert "caf" in store.messages(session.id)[0].message.content


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError) as caught:
        SessionStore(tmp_path / "file" / "bendi.sqlite3")
    assert "BENDI_STATE" in caught.value.hint


_texts = st.text(st.characters(codec="utf-8"), max_size=200)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), _texts, _texts), max_size=6))
def test_any_text_survives(
    scratch: Callable[[], contextlib.AbstractContextManager[Path]], turns: list[tuple[str, str, str]]
) -> None:
    messages = [Message("user" if role == "user" else "assistant", text, thought) for role, text, thought in turns]
    with scratch() as folder:
        path = folder / "bendi.sqlite3"
        with contextlib.closing(SessionStore(path)) as store:
            session = store.create("demo")
            store.append(session.id, Message("user", "first"))
            for message in messages:
                store.append(session.id, message)
        path.unlink()  # what follows is read from the copies
        with contextlib.closing(SessionStore(path)) as store:
            assert [stored.message for stored in store.messages(session.id)][1:] == messages
            assert len(store.notices) == 1
