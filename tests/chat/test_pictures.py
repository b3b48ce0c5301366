"""Images of conversations: on disk before their message, the same after years, gone with their session."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bendi.chat.branching import branch
from bendi.chat.context import Dialogue
from bendi.chat.export import session_markdown, session_record
from bendi.chat.memory import MemorySessions
from bendi.chat.pictures import Pictures
from bendi.chat.sessions import SessionStore, StoredMessage
from bendi.errors import DataError, NotFoundError
from bendi.formats.images import media_type
from bendi.messages import Message
from eyes import png

RED, BLUE = png(255, 0, 0), png(0, 0, 255)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bendi.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    with closing(SessionStore(path)) as opened:
        yield opened


def files(path: Path) -> list[Path]:
    return sorted(file for file in path.with_name("bendi-images").rglob("*") if file.is_file())


def asked(store: SessionStore, *images: bytes, session_id: str = "") -> StoredMessage:
    session_id = session_id or store.create("demo").id
    return store.append(session_id, Message("user", "What is this?", images=images))


def test_they_are_there_again_when_everything_was_closed(path: Path) -> None:
    with closing(SessionStore(path)) as store:
        kept = asked(store, RED, BLUE)
    with closing(SessionStore(path)) as store:
        (found,) = store.messages(kept.session_id)
        assert found == kept and len(found.images) == 2
        assert store.images(found) == (RED, BLUE)


def test_only_the_owner_of_the_machine_can_read_them_and_the_same_one_is_kept_once(
    store: SessionStore, path: Path
) -> None:
    first = asked(store, RED)
    asked(store, RED, RED, session_id=first.session_id)
    (file,) = files(path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700


def test_what_was_taken_back_keeps_its_images_and_a_deleted_session_does_not(store: SessionStore, path: Path) -> None:
    kept, other = asked(store, RED), asked(store, BLUE)
    store.supersede(kept.session_id, 1)
    (taken_back,) = store.messages(kept.session_id, superseded=True)
    assert store.images(taken_back) == (RED,)
    store.delete([kept.session_id])
    assert [file.parent.name for file in files(path)] == [other.session_id]
    assert store.images(other) == (BLUE,)


def test_a_branch_has_its_own(store: SessionStore) -> None:
    kept = asked(store, RED)
    new = branch(store, store.get(kept.session_id), 2)
    store.delete([kept.session_id])
    (copied,) = store.messages(new.id)
    assert store.images(copied) == (RED,)


def test_lost_and_changed_ones_are_an_error_that_says_so_and_the_rest_can_be_read(
    store: SessionStore, path: Path
) -> None:
    kept = asked(store, RED)
    (file,) = files(path)
    file.write_bytes(BLUE)
    with pytest.raises(DataError, match="changed"):
        store.images(kept)
    file.unlink()
    with pytest.raises(DataError, match="lost"):
        store.images(kept)
    assert store.messages(kept.session_id) == [kept]


@pytest.mark.parametrize("name", ["../bendi.sqlite3", "", "a" * 63, "A" * 64, "/etc/passwd"])
def test_a_name_in_a_damaged_database_leads_nowhere_else(store: SessionStore, name: str) -> None:
    kept = asked(store, RED)
    with pytest.raises(DataError):
        store.pictures.read(kept.session_id, name)
    with pytest.raises(DataError):
        store.pictures.read(f"../{kept.session_id}", kept.images[0])


def test_nothing_is_stored_for_a_session_that_was_deleted_meanwhile(store: SessionStore, path: Path) -> None:
    kept = asked(store, RED)
    store.delete([kept.session_id])
    with pytest.raises(NotFoundError):
        asked(store, BLUE, session_id=kept.session_id)
    assert not files(path)


def test_what_a_killed_process_left_is_removed_when_it_is_old(path: Path) -> None:
    with closing(SessionStore(path)) as store:
        kept = asked(store, RED)
    folder = path.with_name("bendi-images")
    for orphan in ("justnow", "longago"):
        Pictures(folder).keep(orphan, [BLUE])
    old_s = time.time() - 7200
    for name in ("longago", kept.session_id):
        os.utime(folder / name, (old_s, old_s))
    with closing(SessionStore(path)):
        pass
    assert sorted(file.parent.name for file in files(path)) == sorted(["justnow", kept.session_id])


def test_nothing_is_removed_while_a_repair_may_have_lost_its_session(path: Path) -> None:
    Pictures(path.with_name("bendi-images")).keep("longago", [BLUE])
    os.utime(path.with_name("bendi-images") / "longago", (0, 0))
    path.with_name(f"{path.name}.damaged-20261129-120000").write_bytes(b"what is left")
    with closing(SessionStore(path)):
        pass
    assert len(files(path)) == 1


def test_a_full_disk_stores_neither_image_nor_question(
    store: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = asked(store, RED)

    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bendi.chat.pictures.write_durably", full)
    with pytest.raises(DataError, match="No space left"):
        asked(store, BLUE, session_id=kept.session_id)
    assert store.messages(kept.session_id) == [kept]


def test_documents_have_them(store: SessionStore) -> None:
    kept = asked(store, RED)
    session, messages = store.get(kept.session_id), store.messages(kept.session_id)
    (plain,) = session_record(session, messages)["messages"]
    assert plain["images"] == [{"name": kept.images[0]}]
    whole = json.loads(json.dumps(session_record(session, messages, store.images)))
    assert base64.b64decode(whole["messages"][0]["images"][0]["base64"]) == RED
    assert "[an image]" in session_markdown(session, messages)
    text = session_markdown(session, messages, store.images)
    assert f"(data:image/png;base64,{base64.b64encode(RED).decode()})" in text and "[an image]" not in text


def test_a_conversation_that_is_not_kept_has_them_in_memory_only() -> None:
    sessions = MemorySessions()
    session = sessions.create("demo")
    stored = sessions.append(session.id, Message("user", "What is this?", images=(RED,)))
    assert sessions.images(stored) == (RED,)
    (record,) = session_record(session, sessions.messages(session.id), sessions.images)["messages"]
    assert base64.b64decode(record["images"][0]["base64"]) == RED


def test_questions_without_an_answer_are_joined_with_their_images() -> None:
    turns = (Message("user", "", images=(RED,)), Message("user", "What is this?", images=(BLUE,)))
    (joined,) = Dialogue(turns).messages
    assert (joined.content, joined.images) == ("What is this?", (RED, BLUE))


@pytest.mark.parametrize(
    ("begins", "kind"),
    [(RED, "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF89a", "image/gif"), (b"BM", "image/bmp"),
     (b"<svg", "application/octet-stream")],
)  # fmt: skip
def test_kinds(begins: bytes, kind: str) -> None:
    assert media_type(begins) == kind
