"""One holder at a time, among threads and processes, also when the lock file comes and goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bendi.errors import StoreError
from bendi.store.lock import _still_there, locked


def count_up(path: Path, times: int) -> None:
    """Adds `times` to the number in a file, under a lock that is tried for without a pause."""
    while times:
        try:
            with locked(path.with_suffix(".lock"), wait=False):
                value = int(path.read_text())
                path.write_text("nothing, for a moment")
                path.write_text(str(value + 1))
                times -= 1
        except StoreError:
            continue


def test_threads(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=count_up, args=(counter, 60)) for _number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert counter.read_text() == "240"
    assert not counter.with_suffix(".lock").exists()


def test_processes(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path; from test_lock import count_up; count_up(Path(sys.argv[1]), 60)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(counter)]) for _number in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "180"


def test_shared_and_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, shared=True), locked(path, shared=True, wait=False), pytest.raises(StoreError):
        locked(path, wait=False).__enter__()
    with locked(path, wait=False), pytest.raises(StoreError), locked(path, shared=True, wait=False):
        pass


def test_who_waits_is_told_once_and_then_served(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    told: list[str] = []
    served = threading.Event()

    def wait() -> None:
        with locked(path, on_wait=lambda: told.append("waiting")):
            served.set()

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not served.wait(0.3)
    thread.join()
    assert (told, served.is_set()) == (["waiting"], True)


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError), locked(tmp_path / "file" / "lock"):
        pass


def test_a_lock_file_that_was_removed_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        assert _still_there(descriptor, path)
        path.unlink()
        assert not _still_there(descriptor, path)
        path.touch()
        assert not _still_there(descriptor, path)
    finally:
        os.close(descriptor)
