"""The worker process: what it may do, how it dies, what is left behind. All on the real engine."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import scripted_model
from bendi.engines import LoadRequest, process, wheel
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.process import WorkerProcess, worker_command
from bendi.engines.worker_config import WorkerConfig
from bendi.errors import (
    EngineCrashed,
    EngineError,
    EngineUnsupported,
    ModelFileError,
    NotFoundError,
    OutOfMemory,
    StoreError,
)  # fmt: skip
from bendi.hardware import detect_cpu
from bendi.messages import Cancellation, GenerateRequest, Message, Sampling

NOTHING = WorkerConfig("", [])
QUESTION = (Message("user", "Why?"),)
ENDLESS = GenerateRequest(prompt="a", sampling=Sampling(temperature=0.0))
LONG = GenerateRequest(messages=QUESTION, sampling=Sampling(temperature=0.0))


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[LlamaServerEngine]:
    """An engine whose answer to `a` never ends by itself."""
    path = scripted_model.write(tmp_path / "a.gguf", scripted_model.NEVER_ENDS, scripted_model.PLAIN_TEMPLATE)
    opened = wheel.open_engine(LoadRequest(model_path=path, context_tok=65536))
    yield opened
    opened.close()


@pytest.fixture
def engine(demo_model: Path) -> Iterator[LlamaServerEngine]:
    opened = wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=1024))
    yield opened
    opened.close()


def pid_of(engine: LlamaServerEngine) -> int:
    return int(engine.info.details["pid"])


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        if not runs(pid):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_killed_during_an_answer(endless: LlamaServerEngine) -> None:
    received = []
    with pytest.raises(EngineError) as caught:
        for chunk in endless.generate(ENDLESS):
            received.append(chunk)
            if len(received) == 3:
                os.kill(pid_of(endless), signal.SIGKILL)
    assert caught.value.message and caught.value.hint
    with pytest.raises(EngineError):
        list(endless.generate(LONG))
    wait_until_gone(pid_of(endless))


def test_crash_is_explained(engine: LlamaServerEngine) -> None:
    os.kill(pid_of(engine), signal.SIGSEGV)
    wait_until_gone(pid_of(engine))
    with pytest.raises(EngineCrashed) as caught:
        list(engine.generate(LONG))
    assert "-11" in caught.value.message
    assert "bendi verify" in caught.value.hint


def test_illegal_instruction_is_explained(engine: LlamaServerEngine) -> None:
    os.kill(pid_of(engine), signal.SIGILL)
    wait_until_gone(pid_of(engine))
    with pytest.raises(EngineUnsupported) as caught:
        list(engine.generate(LONG))
    assert "instruction" in caught.value.message


def test_close_during_an_answer(endless: LlamaServerEngine) -> None:
    answer = endless.generate(ENDLESS)
    next(iter(answer))
    threading.Timer(0.01, endless.close).start()
    with pytest.raises(EngineCrashed) as caught:
        list(answer)
    assert "unloaded" in caught.value.message
    assert not runs(pid_of(endless))


def test_close_leaves_nothing(engine: LlamaServerEngine) -> None:
    folder = Path(engine._address.socket_path).parent
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    engine.close()
    assert not folder.exists()
    assert not runs(pid_of(engine))


def test_other_users_of_the_socket_need_the_key(engine: LlamaServerEngine) -> None:
    from bendi.engines import transport

    wrong = transport.Address(key="guess", socket_path=engine._address.socket_path)
    for path in ("/props", "/slots", "/completion", "/v1/chat/completions", "/metrics", "/v1/models"):
        with pytest.raises(transport.WorkerRefused) as caught:
            transport.call(wrong, path, {} if "c" in path else None)
        assert caught.value.status == 401, path


def test_slots_page_and_web_page_are_off(engine: LlamaServerEngine) -> None:
    from bendi.engines import transport

    for path in ("/slots", "/metrics", "/tools", "/"):
        with pytest.raises((transport.WorkerRefused, transport.WorkerGone)):
            transport.call(engine._address, path)


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_worker_opens_no_port_and_is_confined(engine: LlamaServerEngine) -> None:
    assert "landlock" in engine.info.details["sandbox"]
    ours = {line.split()[9] for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()}
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid_of(engine)}/fd").iterdir() if fd.is_symlink()}
    assert not {f"socket:[{inode}]" for inode in ours} & held


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_sandbox_denies_what_a_worker_does_not_need(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("key")
    allowed = tmp_path / "model.gguf"
    allowed.write_text("weights")
    (tmp_path / "run").mkdir()
    code = f"""
import socket
from bendi.engines import sandbox
print(sandbox.confine([{str(allowed)!r}], [{str(tmp_path / "run")!r}], allow_tcp=False))
def attempt(name, action):
    try: action(); print(name, "yes")
    except OSError as error: print(name, "no")
attempt("model", lambda: open({str(allowed)!r}).read())
attempt("change-model", lambda: open({str(allowed)!r}, "w"))
attempt("secret", lambda: open({str(secret)!r}).read())
attempt("passwords", lambda: open("/etc/passwd").read())
attempt("new-file", lambda: open({str(tmp_path / "new")!r}, "w"))
attempt("bind", lambda: socket.socket().bind(("127.0.0.1", 0)))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", 9), 1))
attempt("socket", lambda: socket.socket(socket.AF_UNIX).bind({str(tmp_path / "run" / "s.sock")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    answers = dict(line.split() for line in done.stdout.splitlines()[1:])
    assert answers == {
        "model": "yes", "change-model": "no", "secret": "no", "passwords": "no", "new-file": "no",
        "bind": "no", "connect": "no", "socket": "yes",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("wished", ["", "7"])
def test_threads_of_the_wheel_wait_awake_for_a_short_time(
    wished: str, monkeypatch: pytest.MonkeyPatch, demo_model: Path
) -> None:
    """Unless the user says how long."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if wished:
        monkeypatch.setenv("GOMP_SPINCOUNT", wished)
    with closing(wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=256))) as engine:
        told = Path(f"/proc/{pid_of(engine)}/environ").read_bytes().split(b"\0")
    assert f"GOMP_SPINCOUNT={wished or '2000'}".encode() in told


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="the number of the call")
def test_a_worker_asks_for_short_slices(engine: LlamaServerEngine) -> None:
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(315, pid_of(engine), attributes, 48, 0) == 0, "sched_getattr(2)"
    slice_ns = int.from_bytes(attributes.raw[24:32], "little")
    if slice_ns == 0:
        pytest.skip("this kernel has no slices of one's own")
    assert slice_ns == 100_000


def test_worker_sees_no_secrets(monkeypatch: pytest.MonkeyPatch, demo_model: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_token_value")
    engine = wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=256))
    try:
        assert b"hf_secret" not in Path(f"/proc/{pid_of(engine)}/environ").read_bytes()
        assert engine._address.key.encode() not in Path(f"/proc/{pid_of(engine)}/cmdline").read_bytes()
    finally:
        engine.close()


def test_memory_limit_ends_the_load_with_a_clear_error(demo_model: Path) -> None:
    with pytest.raises(EngineError) as caught:
        wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=2048, memory_limit_bytes=40 * 1024**2)).close()
    assert isinstance(caught.value, OutOfMemory | EngineCrashed)
    assert caught.value.hint


def test_impossible_context_is_refused_before_loading(demo_model: Path) -> None:
    with pytest.raises(OutOfMemory) as caught:
        wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=2_000_000_000))
    assert "--context" in caught.value.hint


def test_load_timeout(demo_model: Path) -> None:
    with pytest.raises(EngineError) as caught:
        wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=256, load_timeout_s=0.0))
    assert "seconds" in caught.value.message


def test_missing_and_corrupt_files(tmp_path: Path, demo_model: Path) -> None:
    with pytest.raises((ModelFileError, NotFoundError, StoreError)):
        wheel.open_engine(LoadRequest(model_path=tmp_path / "absent.gguf"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(demo_model.read_bytes()[: demo_model.stat().st_size // 2])
    with pytest.raises(ModelFileError) as caught:
        wheel.open_engine(LoadRequest(model_path=cut))
    assert caught.value.hint
    split = tmp_path / "模型 name-00001-of-00002.gguf"
    split.write_bytes(demo_model.read_bytes())
    with pytest.raises(ModelFileError) as caught:
        wheel.open_engine(LoadRequest(model_path=split))
    assert "00002-of-00002" in caught.value.message


def test_chinese_path_with_spaces(tmp_path: Path, demo_model: Path) -> None:
    path = tmp_path / "我的 模型" / "演示 模型.gguf"
    path.parent.mkdir()
    path.write_bytes(demo_model.read_bytes())
    engine = wheel.open_engine(LoadRequest(model_path=path, context_tok=256))
    try:
        chunks = list(engine.generate(GenerateRequest(messages=QUESTION, max_tokens=2)))
        assert chunks[-1].finish
    finally:
        engine.close()


def test_old_cpu_gets_a_sentence() -> None:
    here = detect_cpu()
    old = replace(here, architecture="x86_64", isa=frozenset({"sse4_2", "avx"}), model="Ivy Bridge")
    with pytest.raises(EngineUnsupported) as caught:
        wheel.check_cpu(old)
    assert "AVX2" in caught.value.message and "Ivy Bridge" in caught.value.message
    assert caught.value.hint


def test_killing_bendi_ends_its_worker(demo_model: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from bendi.engines import LoadRequest, wheel
engine = wheel.open_engine(LoadRequest(model_path=Path({str(demo_model)!r}), context_tok=256))
print(engine.info.details["pid"], engine._address.socket_path, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, socket_path = parent.stdout.readline().split()
        parent.kill()
        parent.wait()
    wait_until_gone(int(pid))
    folder = Path(socket_path).parent
    assert folder.exists(), "nobody was left to remove it"
    assert folder in process.remove_orphans()
    assert not folder.exists()


def test_worker_that_never_speaks_is_ended() -> None:
    worker = WorkerProcess([sys.executable, "-c", "import time; time.sleep(60)"], NOTHING)
    with pytest.raises(EngineError):
        worker.wait_ready(0.2)
    assert not worker.alive


def test_worker_that_talks_nonsense_is_an_error() -> None:
    worker = WorkerProcess([sys.executable, "-c", "print('hello'); print('{}')"], NOTHING)
    with pytest.raises(EngineError):
        worker.wait_ready(20)
    assert not worker.alive


def test_worker_exception_is_reported(tmp_path: Path) -> None:
    broken = tmp_path / "x.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    worker = WorkerProcess(worker_command("bendi.engines.worker"), WorkerConfig(str(broken), [str(broken)]))
    with pytest.raises(EngineCrashed):
        worker.wait_ready(30)
    assert not worker.alive


def test_cancel_stops_the_computation(endless: LlamaServerEngine) -> None:
    """After a cancellation the worker goes idle: its CPU time stands still."""

    def cpu_ticks() -> int:
        fields = Path(f"/proc/{pid_of(endless)}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    answer = endless.generate(ENDLESS)
    for _ in range(5):
        next(iter(answer))
    with suppress(AttributeError):
        answer.close()  # type: ignore[attr-defined]
    time.sleep(0.2)
    before = cpu_ticks()
    time.sleep(0.3)
    assert cpu_ticks() - before <= 2


def test_worker_that_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(EngineError) as caught:
        WorkerProcess([str(tmp_path / "no-such-program")], NOTHING)
    assert "could not be started" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_model_behind_a_link(tmp_path: Path, demo_model: Path) -> None:
    """As in the hub's cache, where the name is a link to a blob: the sandbox must let the worker follow it."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "blobs" / "0a1b").write_bytes(demo_model.read_bytes())
    link = tmp_path / "snapshots" / "demo.gguf"
    link.symlink_to("../blobs/0a1b")
    engine = wheel.open_engine(LoadRequest(model_path=link, context_tok=256))
    try:
        assert list(engine.generate(GenerateRequest(messages=QUESTION, max_tokens=2)))[-1].finish
    finally:
        engine.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no way to stop a process there")
@pytest.mark.timeout(40)
def test_an_answer_that_is_broken_off_does_not_wait_for_a_worker_that_hangs(endless: LlamaServerEngine) -> None:
    cancel = Cancellation()
    chunks = endless.generate(ENDLESS, cancel)
    pid = pid_of(endless)
    try:
        for chunk in chunks:
            if chunk.text and not cancel.cancelled:
                os.kill(pid, signal.SIGSTOP)
                cancel.cancel()
        assert chunk.finish == "cancelled" and chunk.usage and chunk.usage.completion_tok
    finally:
        os.kill(pid, signal.SIGCONT)
