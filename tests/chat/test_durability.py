"""Power cuts, kills and torn files: no session that was stored is ever lost, and the next start is clean."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bendi.chat.database import Database
from bendi.chat.journal import Change, Journal
from bendi.chat.recovery import Files, damaged_files
from bendi.chat.schema import MIGRATIONS, migrate, read_meta
from bendi.chat.sessions import SessionStore
from bendi.errors import DataError
from bendi.messages import Message

Scratch = Callable[[], AbstractContextManager[Path]]

SESSIONS = 6
NAME = "bendi.sqlite3"
SUFFIXES = ("", "-wal", "-shm", ".bak", ".journal")
# The log, the backup and the journal may end in zeros or old blocks after a power cut. The database itself is only
# written from the log after that is on disk, and SQLite has no checksums for its pages: it is cut or gone.
DAMAGES = [(suffix, how) for suffix in SUFFIXES for how in ("cut", "gone", "zeros", "garbage")]
DAMAGES = [(suffix, how) for suffix, how in DAMAGES if suffix or how in ("cut", "gone")]

FILL = """
import os, sys
from pathlib import Path
from bendi.chat.sessions import SessionStore
from bendi.messages import Message
store = SessionStore(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    session = store.create(f"model {number}")
    store.append(session.id, Message("user", f"question {number} " + "什么是量化? " * 60))
    store.append(session.id, Message("assistant", f"answer {number} " + "four bits " * 60, "thoughts"))
    if number == int(sys.argv[2]) // 2 and sys.argv[3] != "young":
        store._database._renew_backup()
os._exit(9) if sys.argv[3] != "closed" else store.close()
"""


@pytest.fixture(scope="session", params=["killed", "closed", "young"])
def state(request: pytest.FixtureRequest, scratch: Scratch) -> Iterator[Path]:
    """A folder as it is after a kill, after a clean end, or after a kill before the first renewal of the backup."""
    with scratch() as folder:
        subprocess.run([sys.executable, "-c", FILL, str(folder / NAME), str(SESSIONS), request.param], check=False)
        yield folder


def _transcript(store: SessionStore) -> list[tuple[str, list[str]]]:
    found = [
        (session.model, [stored.message.content for stored in store.messages(session.id)]) for session in store.recent()
    ]
    return sorted(found)


def _expected() -> list[tuple[str, list[str]]]:
    return [
        (f"model {n}", [f"question {n} " + "什么是量化? " * 60, f"answer {n} " + "four bits " * 60])
        for n in range(SESSIONS)
    ]


def _assert_nothing_lost(folder: Path) -> None:
    with contextlib.closing(SessionStore(folder / NAME)) as store:
        assert _transcript(store) == _expected()
        session = store.create("after")
        store.append(session.id, Message("user", "life goes on"))
    with contextlib.closing(SessionStore(folder / NAME)) as store:
        assert not store.notices
        assert store.messages(session.id)[0].message.content == "life goes on"
        store.delete([session.id])


@settings(max_examples=40, deadline=None)
@example(damage=("", "cut"), where=0.0)
@example(damage=("", "cut"), where=0.999)
@example(damage=("-wal", "cut"), where=0.0)
@example(damage=("-wal", "cut"), where=0.375)
@example(damage=(".bak", "cut"), where=0.0)
@example(damage=(".journal", "cut"), where=0.0)
@given(damage=st.sampled_from(DAMAGES), where=st.floats(0, 1))
def test_one_file_hurt_anywhere_loses_nothing(
    state: Path, scratch: Scratch, damage: tuple[str, str], where: float
) -> None:
    suffix, how = damage
    with scratch() as parent:
        folder = parent / "state"
        shutil.copytree(state, folder)
        victim = folder / (NAME + suffix)
        if victim.exists():
            content = victim.read_bytes()
            at = int(len(content) * where)
            lost = len(content) - at
            tails = {"cut": b"", "zeros": bytes(lost), "garbage": random.Random(at).randbytes(lost), "gone": b""}
            victim.write_bytes(content[:at] + tails[how])
            if how == "gone":
                victim.unlink()
        _assert_nothing_lost(folder)


@pytest.mark.parametrize("part", range(48))
def test_log_cut_at_many_places(state: Path, scratch: Scratch, part: int) -> None:
    """Also where the older database that is left expects an earlier journal of the very size of today's."""
    with scratch() as parent:
        folder = parent / "state"
        shutil.copytree(state, folder)
        log = folder / (NAME + "-wal")
        if log.exists():
            log.write_bytes(log.read_bytes()[: log.stat().st_size * part // 48])
        _assert_nothing_lost(folder)


def test_garbage_of_the_same_size_in_the_journal_is_noticed(state: Path, quick_path: Path) -> None:
    """It is repaired at the next start, so that the database may be lost after that."""
    folder = quick_path / "state"
    shutil.copytree(state, folder)
    journal = folder / (NAME + ".journal")
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2] + random.Random(2).randbytes(len(content) - len(content) // 2))
    SessionStore(folder / NAME).close()
    for suffix in ("", "-wal", "-shm"):
        (folder / (NAME + suffix)).unlink(missing_ok=True)
    _assert_nothing_lost(folder)


def test_each_file_hurt_one_after_the_other(state: Path, quick_path: Path) -> None:
    """Every repair makes both ways to the whole good again, so that the next damage finds them."""
    folder = quick_path / "state"
    shutil.copytree(state, folder)
    chance = random.Random(1)
    for suffix in (".bak", "", ".journal", "", ".bak", ".journal", "", ""):
        victim = folder / (NAME + suffix)
        content = victim.read_bytes()
        victim.write_bytes(content[: chance.randrange(len(content))])
        _assert_nothing_lost(folder)


@settings(max_examples=40, deadline=None)
@example(hurt=[("", 0.0625), (".bak", 0.0)])
@given(hurt=st.lists(st.tuples(st.sampled_from(SUFFIXES), st.floats(0, 1)), min_size=2, max_size=5))
def test_when_everything_is_hurt_the_next_start_is_still_clean(
    state: Path, scratch: Scratch, hurt: list[tuple[str, float]]
) -> None:
    with scratch() as parent:
        folder = parent / "state"
        shutil.copytree(state, folder)
        for suffix, where in hurt:
            victim = folder / (NAME + suffix)
            if victim.exists():
                content = victim.read_bytes()
                victim.write_bytes(content[: int(len(content) * where)])
        with contextlib.closing(SessionStore(folder / NAME)) as store:
            expected = dict(_expected())
            for model, texts in _transcript(store):
                assert set(texts) <= set(expected.get(model, [t for texts in expected.values() for t in texts]))
            store.append(store.create("after").id, Message("user", "hi"))
        with contextlib.closing(SessionStore(folder / NAME)) as store:
            assert not store.notices


def _checkpoint(folder: Path) -> None:
    """Everything into the main file."""
    with contextlib.closing(sqlite3.connect(folder / NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def test_without_any_copy_the_readable_rows_are_rescued(state: Path, quick_path: Path) -> None:
    folder = quick_path / "state"
    shutil.copytree(state, folder)
    _checkpoint(folder)
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[: len(content) - 4096])
    (folder / f"{NAME}.bak").unlink()
    (folder / f"{NAME}.journal").unlink()
    with contextlib.closing(SessionStore(folder / NAME)) as store:
        (notice,) = store.notices
        assert "rescued" in notice and ".damaged-" in notice
        assert len(_transcript(store)) >= SESSIONS // 2


def test_the_notice_names_the_file_that_was_set_aside(state: Path, quick_path: Path) -> None:
    folder = quick_path / "state"
    shutil.copytree(state, folder)
    _checkpoint(folder)
    damaged = (folder / NAME).read_bytes()[:5000]
    (folder / NAME).write_bytes(damaged)
    with contextlib.closing(SessionStore(folder / NAME)) as store:
        (notice,) = store.notices
        (aside,) = [path for path in damaged_files(folder / NAME) if not path.name.endswith(("-wal", "-shm"))]
        assert str(aside) in notice and "Everything in it was restored" in notice
        assert aside.read_bytes()[:100] == damaged[:100]


WRITE = """
import sys
from pathlib import Path
from bendi.chat.sessions import SessionStore
from bendi.messages import Message
store = SessionStore(Path(sys.argv[1]))
for notice in store.notices:
    print("notice", notice, flush=True)
number = 0
while True:
    session = store.create("demo")
    for turn in range(5):
        number += 1
        stored = store.append(session.id, Message("user", f"{sys.argv[2]}-{number} " + "x" * 3000))
        print("said", session.id, f"{sys.argv[2]}-{number}", flush=True)
        answer = store.append(session.id, Message("assistant", "half"), state="partial")
        store.rewrite(answer, Message("assistant", f"whole {number}"), state="complete")
    if number % 20 == 0:
        store._database._renew_backup()
"""


@pytest.mark.parametrize("others", ["alone", "beside another process"])
def test_kill_9_during_writes_loses_nothing_that_was_confirmed(quick_path: Path, others: str) -> None:
    path = quick_path / NAME
    said: dict[str, list[str]] = {}
    if others == "alone":
        _kill_writers(path, said)
    else:
        with contextlib.closing(SessionStore(path)) as store:
            session = store.create("demo")
            _kill_writers(path, said, lambda name: store.append(session.id, Message("user", name)))
            said[session.id] = [f"r{number}" for number in range(12)]
    with contextlib.closing(SessionStore(path)) as store:
        assert not store.notices, "a kill is an ordinary event, not damage"
        assert sum(len(texts) for texts in said.values()) > 20
        for session_id, texts in said.items():
            users = [m.message.content.split()[0] for m in store.messages(session_id) if m.message.role == "user"]
            assert users[: len(texts)] == texts


def _kill_writers(path: Path, said: dict[str, list[str]], after_each: Callable[[str], object] = str) -> None:
    """Starts writers and kills each at a moment of chance; notes what they had confirmed."""
    chance = random.Random(7)
    for round_number in range(12):
        command = [sys.executable, "-c", WRITE, str(path), f"r{round_number}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            with contextlib.suppress(ValueError):
                for count, line in enumerate(child.stdout):
                    _note(said, line)
                    if count >= chance.randrange(1, 60):
                        time.sleep(chance.random() * 0.005)
                        os.kill(child.pid, signal.SIGKILL)
                        break
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    _note(said, line)
        after_each(f"r{round_number}")


def _note(said: dict[str, list[str]], line: str) -> None:
    kind, session_id, *rest = line.split()
    assert kind != "notice", line
    said.setdefault(session_id, []).extend(rest)


FULL = """
import resource, sys
from pathlib import Path
from bendi.chat.sessions import SessionStore
from bendi.errors import DataError
from bendi.messages import Message
store = SessionStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
session = store.create("demo")
try:
    for number in range(200):
        store.append(session.id, Message("user", f"{number} " + "y" * 2000))
        print(number, flush=True)
except DataError as error:
    print("refused", error.message, error.hint)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append(session.id, Message("user", "after there was room again"))
"""


@pytest.mark.parametrize("limit_bytes", [60_000, 75_000, 90_123, 131_072, 200_001])
def test_a_full_disk_is_said_and_costs_nothing_that_was_confirmed(quick_path: Path, limit_bytes: int) -> None:
    path = quick_path / NAME
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit_bytes)], capture_output=True, text=True, check=True
    )
    *numbers, last = done.stdout.splitlines()
    assert last.startswith("refused") and "BENDI_STATE" in last
    with contextlib.closing(SessionStore(path)) as store:
        assert not store.notices
        (session,) = store.recent()
        texts = [stored.message.content.split(" ")[0] for stored in store.messages(session.id)]
        assert texts == [*numbers, "after"]


def test_damage_while_another_process_has_the_file_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / NAME
    script = (
        "import sys; from pathlib import Path; from bendi.chat.sessions import SessionStore\n"
        "store = SessionStore(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdin
        assert child.stdout.readline() == "open\n"
        path.with_name(NAME + "-wal").unlink(missing_ok=True)
        path.write_bytes(b"")
        with pytest.raises(DataError, match="another bendi process"):
            SessionStore(path)
        child.kill()
    with contextlib.closing(SessionStore(path)) as store:
        assert len(store.notices) == 1


def test_damage_in_the_middle_of_the_work_is_told_and_repaired_at_the_next_start(quick_path: Path) -> None:
    path = quick_path / NAME
    subprocess.run([sys.executable, "-c", FILL, str(path), str(SESSIONS), "closed"], check=False)
    with contextlib.closing(SessionStore(path)) as store:
        with path.open("rb+") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        store._database.read("PRAGMA shrink_memory")  # so that the pages are read again
        with pytest.raises(DataError) as caught:
            _transcript(store)
        assert "damaged" in caught.value.message and "Start bendi again" in caught.value.hint
    _assert_nothing_lost(quick_path)
    assert not Files(path).suspect.exists()


def test_a_change_that_reached_only_the_journal_is_replayed_by_the_next_writer(tmp_path: Path) -> None:
    """The state between the journal's fsync and SQLite's commit, seen by a process that was open all the time."""
    path = tmp_path / NAME
    with contextlib.closing(SessionStore(path)) as store:
        session = store.create("demo")
        store.append(session.id, Message("user", "first"))
        row = {"id": "fromjournal", "title": "t", "model": "m", "persona": "", "settings": "{}", "created_s": 1.0,
               "updated_s": 1.0}  # fmt: skip
        Journal(Files(path).journal).append(2, Change(rows=(("sessions", row),)))
        with Files(path).journal.open("ab") as file:
            file.write(b"00000000 {torn")
        store.append(session.id, Message("user", "next"))
        assert store.get("fromjournal").model == "m"
    path.unlink()
    with contextlib.closing(SessionStore(path)) as store:
        assert {found.id for found in store.recent()} == {session.id, "fromjournal"}
        assert store.messages(session.id)[1].message.content == "next"


def test_a_refused_change_leaves_no_trace_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with contextlib.closing(Database(path)) as database:
        before = Files(path).journal.read_bytes()
        with pytest.raises(DataError):
            database.write(lambda _c: Change(rows=(("messages", {"id": 1, "session": "nobody"}),)))
        with pytest.raises(DataError):
            database.write(lambda _c: Change(rows=(("sqlite_master", {"name": "x"}),)))
        assert Files(path).journal.read_bytes() == before


def test_migrations_go_forward_and_keep_the_rows(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with contextlib.closing(SessionStore(path)) as store:
        session = store.create("demo")
        store.append(session.id, Message("user", "from version 1"))
    newer = (*MIGRATIONS, ("ALTER TABLE sessions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert migrate(connection, newer)
        assert not migrate(connection, newer)
        assert read_meta(connection)["schema"] == len(newer)
        assert connection.execute("SELECT id, pinned FROM sessions").fetchall() == [(session.id, 0)]
    with pytest.raises(DataError, match="newer bendi"):
        SessionStore(path)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as connection:
        migrate(connection)
        broken = (*MIGRATIONS, ("ALTER TABLE sessions ADD COLUMN pinned", "nonsense"))
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, broken)
        assert read_meta(connection)["schema"] == len(MIGRATIONS)
        assert "pinned" not in {row[1] for row in connection.execute("PRAGMA table_info(sessions)")}


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_a_journal_of_any_bytes_is_read_without_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    journal.start(after_seq=5)
    journal.append(6, Change(rows=(("sessions", {"id": "甲"}),)))
    size = journal.append(7, Change(delete=("乙",)))
    with path.open("ab") as file:
        file.write(content)
    contents = journal.read()
    assert contents and contents.last_seq == 7 and contents.valid_bytes == size
    assert contents.changes == (Change(rows=(("sessions", {"id": "甲"}),)), Change(delete=("乙",)))
    path.write_bytes(content)
    assert journal.read() is None
