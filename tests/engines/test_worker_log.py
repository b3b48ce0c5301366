"""What a worker's log says of a model file must not be taken for why the worker ended."""

from __future__ import annotations

import sys

import pytest

from bendi.engines.process import WorkerProcess
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
