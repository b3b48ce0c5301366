"""Several processes, death at any moment, damage, no room, no permission: nothing of it stops a chat."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from measurements import BUILD, LOAD, MACHINE, WRITER, answer

from bendi.measured import MeasuredStore
from bendi.measured import database as database_module
from small_disk import mounted

NAME = "measured.sqlite3"
HERE = str(Path(__file__).parent)


def start(path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(count), HERE]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin and child.stdout
    assert child.stdout.readline() == "ready\n"
    child.stdin.write("\n")
    child.stdin.flush()


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}


def test_processes_that_begin_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / NAME
    children = [start(path, 100) for _ in range(4)]
    for child in children:
        assert child.stdout and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()
    ids: list[str] = []
    for child in children:
        *numbers, last = child.communicate()[0].splitlines()
        assert last == "notices []"
        ids += numbers
    assert len(set(ids)) == 400 and "0" not in ids
    with contextlib.closing(MeasuredStore(path)) as store:
        assert len(store.loads()) == 4
        assert len(store.answers()) == 400


def test_killed_while_writing(tmp_path: Path) -> None:
    path = tmp_path / NAME
    chance = random.Random(7)
    said: set[int] = set()
    for _ in range(8):
        with start(path, 100_000) as child:
            go(child)
            assert child.stdout
            wanted = chance.randrange(1, 60)
            for _count in range(wanted):
                said.add(int(child.stdout.readline()))
            time.sleep(chance.random() * 0.003)
            child.send_signal(signal.SIGKILL)
            said |= {int(line) for line in child.stdout.read().split("\n")[:-1]}
    with contextlib.closing(MeasuredStore(path)) as store:
        assert store.add_load(LOAD) == 9
        assert said <= {row.id for row in store.answers(limit=100_000)}
        assert store.notices == []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("damage", ["garbage", "cut", "middle", "no tables", "no column", "text", "a null"])
def test_damage_is_moved_aside_and_the_work_goes_on(tmp_path: Path, damage: str) -> None:
    path = tmp_path / NAME
    with contextlib.closing(MeasuredStore(path)) as store:
        load_id = store.add_load(LOAD)
        for _ in range(200):
            store.add_answer(answer(load_id))
    inflict(path, damage)
    broken = path.read_bytes()
    with contextlib.closing(MeasuredStore(path)) as store:
        store.loads()
        store.answers()
        new_id = store.add_load(LOAD)
        assert new_id and store.add_answer(answer(new_id))
        assert [load.id for load in store.loads()] == [new_id]
        assert len(store.notices) == 1
        assert "damaged" in store.notices[0]
    (aside,) = [file for file in tmp_path.iterdir() if ".damaged-" in file.name and file.name[-1].isdigit()]
    assert aside.read_bytes() == broken, "damaged files are kept as they are"
    assert aside.name in store.notices[0]
    with contextlib.closing(MeasuredStore(path)) as store:
        assert store.loads() and store.notices == []


def inflict(path: Path, damage: str) -> None:
    if damage == "garbage":
        path.write_bytes(os.urandom(10_000))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "middle":
        content = bytearray(path.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        path.write_bytes(bytes(content))
    else:
        statements = {
            "no tables": "DROP TABLE answers",
            "no column": "ALTER TABLE loads DROP COLUMN real_kv_bytes",
            "text": "UPDATE loads SET threads = 'many'",
            "a null": "UPDATE loads SET model = CAST(x'ff00ff' AS TEXT), type_k = x'00'",
        }
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute(statements[damage])
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def test_damage_under_two_processes_is_moved_aside_once(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with contextlib.closing(MeasuredStore(path)) as first, contextlib.closing(MeasuredStore(path)) as second:
        assert first.add_load(LOAD) and second.add_load(LOAD)
        first.close()
        second.close()
        path.write_bytes(os.urandom(8192))
        assert first.add_load(LOAD) == 1
        assert second.add_load(LOAD) == 2
        assert len(first.notices) == 1 and second.notices == []
    assert len([name for name in contents(path) if ".damaged-" in name and name[-1].isdigit()]) == 1


def test_a_log_left_beside_a_new_file_is_not_replayed(tmp_path: Path) -> None:
    """As after a crash between moving the database aside and moving its log."""
    path = tmp_path / NAME
    with start(path, 50) as child:
        go(child)
        assert child.stdout
        for _ in range(50):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert path.with_name(NAME + "-wal").stat().st_size
    path.unlink()
    with contextlib.closing(MeasuredStore(path)) as store:
        assert store.add_load(LOAD) == 1
        assert store.answers() == [] and store.notices == []


def test_a_file_that_was_deleted_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with contextlib.closing(MeasuredStore(path)) as store:
        load_id = store.add_load(LOAD)
        store.add_load(LOAD)
        for file in list(tmp_path.iterdir()):
            file.unlink()
        assert store.add_answer(answer(load_id)) == 0, "its load is gone"
        assert store.add_load(LOAD) == 1
        assert store.notices == []


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from measurements import LOAD, answer
from bendi.measured import MeasuredStore
store = MeasuredStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
load_id = store.add_load(LOAD)
print(sum(store.add_answer(answer(load_id)) > 0 for _ in range(2000)), len(store.answers(limit=9999)), store.notices)
"""


@pytest.mark.parametrize("limit_bytes", [0, 100, 5000, 40_000, 70_001])
def test_a_full_disk_ends_the_recording_only(tmp_path: Path, limit_bytes: int) -> None:
    path = tmp_path / NAME
    command = [sys.executable, "-c", FULL, str(path), str(limit_bytes), HERE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, readable, notices = done.stdout.split(" ", 2)
    assert int(kept) < 2000
    assert NAME in notices and notices.count("cannot be kept") == 1
    with contextlib.closing(MeasuredStore(path)) as store:
        assert len(store.answers(limit=9999)) == int(kept)
        assert store.add_load(LOAD)
        assert store.notices == []
    assert int(readable) in (0, int(kept))


def test_a_small_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "96k") as folder, contextlib.closing(MeasuredStore(folder / NAME)) as store:
        load_id = store.add_load(LOAD)
        kept = sum(store.add_answer(answer(load_id)) > 0 for _ in range(3000))
        assert kept < 3000
        assert len(store.notices) == 1


READ_ONLY = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from measurements import LOAD, MACHINE, BUILD
from bendi.measured import MeasuredStore
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = MeasuredStore(Path(sys.argv[1]))
print(len(store.loads()), store.calibration(MACHINE, BUILD), len(store.notices))
print(store.add_load(LOAD), store.add_load(LOAD), len(store.loads()), len(store.notices), store.notices)
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_cannot_be_written(tmp_path: Path, there: bool) -> None:
    state = Path("/var/tmp") / f"bendi-test-{os.getpid()}-{there}"  # the folders above pytest's are private
    state.mkdir()
    try:
        if there:
            with contextlib.closing(MeasuredStore(state / NAME)) as store:
                store.add_load(LOAD)
                store.save_calibration(MACHINE, BUILD, "c")
            (state / NAME).chmod(0o444)
        state.chmod(0o555)
        before = contents(state / NAME)
        command = [sys.executable, "-c", READ_ONLY, str(state / NAME), HERE]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        assert first == ("1 c 0" if there else "0 None 0"), "what is there can still be read"
        assert second.startswith("0 0 1 1 " if there else "0 0 0 1 ")
        assert contents(state / NAME) == before
    finally:
        state.chmod(0o755)
        for file in state.iterdir():
            file.unlink()
        state.rmdir()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_looked_into() -> None:
    state = Path("/var/tmp") / f"bendi-test-{os.getpid()}-closed"
    with contextlib.closing(MeasuredStore(state / NAME)) as store:
        store.add_load(LOAD)
    state.chmod(0)
    try:
        command = [sys.executable, "-c", READ_ONLY, str(state / NAME), HERE]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("0 None 0\n0 0 0 1 ")
    finally:
        state.chmod(0o755)
        for file in state.iterdir():
            file.unlink()
        state.rmdir()


def test_a_lock_that_is_not_given_up_costs_one_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_LOCK_TIMEOUT_S", 0.05)
    path = tmp_path / NAME
    with contextlib.closing(MeasuredStore(path)) as store:
        load_id = store.add_load(LOAD)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert [store.add_answer(answer(load_id)) for _ in range(100)] == [0] * 100
            assert len(store.notices) == 1
            assert len(store.loads()) == 1, "it can still be read"


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with contextlib.closing(MeasuredStore(path)) as store:
        store.add_load(LOAD)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with contextlib.closing(MeasuredStore(path)) as store:
        assert store.loads() == []
        assert store.add_load(LOAD) == 0
        assert len(store.notices) == 1
    assert path.read_bytes() == before


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    store = MeasuredStore(tmp_path / NAME)
    assert store.add_load(LOAD) == 0
    assert store.loads() == []
    assert len(store.notices) == 1


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    store = MeasuredStore(tmp_path / "state" / NAME)
    assert store.add_load(LOAD) == 0
    assert store.loads() == [] and len(store.notices) == 1
