"""What is kept of /v1/responses: whose it is, for how long, and that deleted text is gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bendi.errors import DataError, NotFoundError
from bendi.server.stored_answers import Bounds, StoredAnswer, StoredAnswers


def made(name: str, previous: str = "", text: str = "words") -> StoredAnswer:
    return StoredAnswer(name, previous, [{"type": "message", "content": text}], {"id": name, "text": text})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "responses.sqlite3"


@pytest.fixture
def stored(path: Path) -> Iterator[StoredAnswers]:
    answers = StoredAnswers(path)
    yield answers
    answers.close()


def test_what_was_put_is_there_for_its_owner_only_also_after_a_restart(stored: StoredAnswers, path: Path) -> None:
    stored.put("ann", made("resp_1", text="两行 \ud800"))
    stored.close()
    again = StoredAnswers(path)
    assert again.get("ann", "resp_1").answer["text"] == "两行 ?"
    assert path.stat().st_mode & 0o077 == 0
    for owner in ("bob", "", "ann "):
        with pytest.raises(NotFoundError):
            again.get(owner, "resp_1")
        with pytest.raises(NotFoundError):
            again.chain(owner, "resp_1")
        with pytest.raises(NotFoundError):
            again.delete(owner, "resp_1")
    again.close()


def test_a_chain_is_whole_or_refused(stored: StoredAnswers) -> None:
    for name, previous in (("a", ""), ("b", "a"), ("c", "b")):
        stored.put("", made(name, previous))
    assert [link.id for link in stored.chain("", "c")] == ["a", "b", "c"]
    stored.delete("", "a")
    with pytest.raises(NotFoundError, match="'a'"):
        stored.chain("", "c")


def test_deleted_text_is_not_in_the_files_any_more(stored: StoredAnswers, path: Path) -> None:
    stored.put("", made("a", text="a secret that must go"))
    stored.delete("", "a")
    for file in path.parent.iterdir():
        assert b"a secret that must go" not in file.read_bytes()


def test_bounds_of_number_size_and_age(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = StoredAnswers(path, Bounds(count=2))
    for name in ("a", "b"):
        few.put("", made(name))
    few.chain("", "a")
    few.put("", made("c"))
    assert few.get("", "a") and few.get("", "c")
    with pytest.raises(NotFoundError):
        few.get("", "b")
    few.close()
    small = StoredAnswers(path, Bounds(size_bytes=5000))
    small.put("", made("big", text="x" * 4000))
    with pytest.raises(NotFoundError):
        small.get("", "a")
    assert small.get("", "big")
    small.close()
    young = StoredAnswers(path, Bounds(age_s=0.05))
    time.sleep(0.1)
    young.put("", made("new"))
    with pytest.raises(NotFoundError):
        young.get("", "big")
    young.close()


def test_a_clock_that_is_set_loses_nothing(stored: StoredAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.put("", made("a"))
    future_s = time.time() + 400 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: future_s)
    stored.put("", made("b"))
    assert stored.get("", "a")


def test_a_file_of_a_later_version_or_a_damaged_one_is_left_alone(stored: StoredAnswers, path: Path) -> None:
    stored.put("", made("a"))
    stored.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataError, match="later version"):
        stored.get("", "a")
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DataError):
        stored.put("", made("a"))
    assert path.read_bytes().startswith(b"not a database")


def test_many_threads(stored: StoredAnswers) -> None:
    def work(number: int) -> None:
        for at in range(10):
            stored.put("", made(f"{number}-{at}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(stored.get("", f"{number}-{at}") for number in range(4) for at in range(10))


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    code = (
        "import sys, pathlib; from bendi.server.stored_answers import *; s = StoredAnswers(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10**6): s.put('', StoredAnswer(str(n), '', [], {})); print(n, flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    acknowledged = [child.stdout.readline().strip() for _number in range(20)]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    answers = StoredAnswers(path)
    assert all(answers.get("", name) for name in acknowledged)
    answers.close()
