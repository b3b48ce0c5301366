"""What is kept of /v1/responses: whose it is, for how long, and that deleted text is gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bendi.errors import DataError, NotFoundError
from bendi.server.stored_answers import MIGRATIONS, Bounds, StoredAnswer, StoredAnswers
from bendi.server.wall_clock import WallClock


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


def test_bounds_of_number_and_size(path: Path) -> None:
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


class Clock:
    """The two clocks of a machine. Both go on when time passes; one of them can be set."""

    def __init__(self) -> None:
        self.day_s, self.steady_s = 1.8e9, 5000.0

    def wall(self) -> WallClock:
        return WallClock(lambda: self.day_s, lambda: self.steady_s)

    def passes(self, seconds: float) -> None:
        self.day_s += seconds
        self.steady_s += seconds


DAY_S = 24 * 3600.0


def gone(answers: StoredAnswers, name: str) -> bool:
    try:
        answers.get("", name)
    except NotFoundError:
        return True
    return False


def test_what_is_old_goes(path: Path) -> None:
    clock = Clock()
    answers = StoredAnswers(path, Bounds(age_s=30 * DAY_S), clock.wall())
    answers.put("", made("old"))
    answers.put("", made("used"))
    clock.passes(20 * DAY_S)
    answers.chain("", "used")
    clock.passes(11 * DAY_S)
    answers.put("", made("new"))
    assert gone(answers, "old") and not gone(answers, "used")
    answers.close()


@pytest.mark.parametrize("days", [400.0, -400.0, 31.0, -1.0])
def test_a_clock_that_is_set_loses_nothing(path: Path, days: float) -> None:
    clock = Clock()
    answers = StoredAnswers(path, Bounds(count=4, age_s=30 * DAY_S), clock.wall())
    clock.passes(DAY_S)
    for name in ("a", "b", "c"):
        answers.put("", made(name))
    clock.day_s += days * DAY_S
    clock.passes(60.0)
    answers.put("", made("d"))  # while it is wrong
    clock.day_s -= days * DAY_S
    clock.passes(2 * 3600.0)
    answers.chain("", "b")
    assert not any(gone(answers, name) for name in "abcd")
    answers.put("", made("e"))  # there is room for four: the one that was used first goes, and no other
    assert [name for name in "abcde" if gone(answers, name)] == ["a"]
    answers.close()


def test_a_server_that_starts_with_a_wrong_clock_loses_nothing(path: Path) -> None:
    clock = Clock()
    before = StoredAnswers(path, Bounds(age_s=30 * DAY_S), clock.wall())
    before.put("", made("a"))
    before.close()
    clock.day_s += 400 * DAY_S
    after = StoredAnswers(path, Bounds(age_s=30 * DAY_S), clock.wall())
    after.put("", made("b"))
    clock.passes(600.0)
    clock.day_s -= 400 * DAY_S
    clock.passes(7200.0)
    after.put("", made("c"))
    assert not gone(after, "a") and not gone(after, "b")
    after.close()


def test_answers_of_an_earlier_version_are_kept_and_go_first(path: Path) -> None:
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    rows = [("", name, "", "[]", "{}", 4, used_s) for name, used_s in (("second", 2.0), ("first", 1.0))]
    connection.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    answers = StoredAnswers(path, Bounds(count=2))
    answers.put("", made("third"))
    assert gone(answers, "first") and not gone(answers, "second")
    answers.close()


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
