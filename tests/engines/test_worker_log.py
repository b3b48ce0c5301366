"""Lines of a log come whole; what a worker's log says of a model file is not taken for why the worker ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bendi.engines.process import WorkerProcess
from bendi.engines.program_log import ProgramLog
from bendi.engines.worker_config import WorkerConfig
from bendi.errors import EngineCrashed, EngineError, OutOfMemory

TELLS = "0.00.005.155 I llama_model_loader: - kv 3: general.description str = an E is out of memory E here"
FAILS = "0.00.006.000 E llama_model_load: error loading model: no such tensor"
NO_ROOM = "0.00.006.000 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 99"


def death(*lines: str) -> EngineError:
    code = f"import sys; sys.stdin.readline(); print({chr(10).join(lines)!r}, file=sys.stderr); sys.exit(3)"
    worker = WorkerProcess([sys.executable, "-c", code], WorkerConfig("", []))
    with pytest.raises(EngineError) as caught:
        worker.wait_ready(20)
    return caught.value


def test_only_complaints_count() -> None:
    error = death(FAILS, TELLS)
    assert isinstance(error, EngineCrashed)
    assert "no such tensor" in error.message and "description" not in error.message
    assert "E here" not in death(TELLS).message


def test_lack_of_memory_is_told() -> None:
    assert isinstance(death(TELLS, NO_ROOM, TELLS), OutOfMemory)
    assert isinstance(death("terminate called after throwing an instance of 'std::bad_alloc'"), OutOfMemory)


def test_the_log_so_far() -> None:
    code = "import sys, time; print('one\\ntwo', file=sys.stderr, flush=True); sys.stdin.read()"
    worker = WorkerProcess([sys.executable, "-c", code], WorkerConfig("", []))
    try:
        assert worker.log_until("two", 20) == ["one", "two"]
        assert worker.log_until("three", 0.01) == ["one", "two"]
    finally:
        worker.close()


@contextmanager
def saying(code: str) -> Iterator[ProgramLog]:
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert program.stdout
    log = ProgramLog(program.stdout, 5)
    try:
        yield log
    finally:
        program.communicate()
        log.join(20)


def test_lines_come_whole_however_they_are_written() -> None:
    pieces = (
        "for piece in ['a', 'b\\n', 'c', '', 'd\\ne\\n', 'end']: print(piece, end='', flush=True); time.sleep(0.01)"
    )
    with saying(f"import time\n{pieces}") as log:
        log.join(20)
        assert log.lines() == ["ab", "cd", "e", "end"]


def test_the_last_lines_are_kept_and_long_ones_cut() -> None:
    words = "for n in range(9000): print(n)\nfor n in range(9): print('x' * 1000, end='', flush=True); time.sleep(0.01)"
    with saying(f"import time\n{words}") as log:
        log.join(20)
        assert [len(line) for line in log.lines()] == [4, 4, 4000, 4000, 1000]
        assert log.lines()[:2] == ["8998", "8999"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be asked there whether they hold something")
def test_who_asks_gets_all_that_has_been_said() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        log = ProgramLog(source, 500)
        for number in range(100):
            os.write(writing, f"{number}\nhalf of ".encode())
            assert len(log.lines()) == number + 1
        os.close(writing)
        log.join(20)
        assert log.lines()[-2:] == ["half of 99", "half of"]
        assert len(log.until("never", 20)) == 101  # who has ended says nothing more


def test_what_is_waited_for_comes() -> None:
    code = "import sys\nfor line in sys.stdin: print('heard', line, end='', flush=True)"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert program.stdin and program.stdout
    log = ProgramLog(program.stdout, 50)
    for number in range(20):
        program.stdin.write(f"{number}\n".encode())
        program.stdin.flush()
        assert log.until(f"heard {number}", 20)[-1] == f"heard {number}"
    assert log.until("never", 0.01)[0] == "heard 0"
    program.stdin.close()
    program.wait(20)
    log.join(20)
    program.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pipes cannot be widened, and are read sooner")
def test_a_program_that_says_much_at_once_need_not_wait() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    line = b"x" * 99 + b"\n"
    with os.fdopen(reading, "rb") as source:
        log = ProgramLog(source, 9000)
        for _line in range(9000):  # 900 KB: BlockingIOError where the pipe holds less
            os.write(writing, line)
        os.close(writing)
        log.join(20)
        assert len(log.lines()) == 9000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pipes cannot be widened, and are read sooner")
def test_a_pipe_that_may_not_be_wider_is_read_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refused(*_asked: object) -> int:
        raise PermissionError

    rests = []
    for allowed in (True, False):
        if not allowed:
            monkeypatch.setattr(fcntl, "fcntl", refused)
        with saying("print('one')") as log:
            rests.append(log.rest_s)
            log.join(20)
            assert log.lines() == ["one"]
    assert rests == [0.5, 0.1]
