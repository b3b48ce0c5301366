"""The worker of a native build: as closed, as private and as mortal as the wheel's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import hostile_server
import pytest
from native_engine import CACHE, needed_build

from bendi.engines import LoadRequest, native, sandbox, transport
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.native_builds import NativeBuild
from bendi.engines.native_worker import arguments
from bendi.engines.random_weights import write_random_model
from bendi.engines.worker_config import WorkerConfig
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, OutOfMemory
from bendi.formats.blueprints import blueprint_from_config
from bendi.formats.gguf_writer import BytewiseVocabulary
from bendi.messages import GenerateRequest, Message, Sampling
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models
from bendi.units import KIB, MIB

LONG = GenerateRequest(messages=(Message("user", "Why?"),), sampling=Sampling(temperature=0.0))
CONFIG = WorkerConfig("/m/a.gguf", ["/m/a.gguf"], "/x/llama-server", key="the-secret-key", socket_path="/run/w.sock")


@pytest.fixture(scope="module")
def build() -> NativeBuild:
    return needed_build()


@pytest.fixture
def engine(build: NativeBuild, demo_model: Path) -> Iterator[LlamaServerEngine]:
    with closing(native.open_engine(LoadRequest(demo_model, context_tok=1024), build=build)) as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BENDI_CACHE", str(tmp_path / "cache"))
    return load_settings()


def pid_of(engine: LlamaServerEngine) -> int:
    return int(engine.info.details["pid"])


def wait_until_gone(pid: int) -> None:
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_everything_is_closed_on_the_command_line() -> None:
    said = arguments(CONFIG, "/dev/fd/3")
    assert "the-secret-key" not in " ".join(said)
    for flag in ("--no-ui", "--no-slots", "--offline", "--no-context-shift", "--no-cors-credentials"):
        assert flag in said
    pairs = dict(pairwise(said))
    assert (pairs["--fit"], pairs["--cors-origins"], pairs["--cache-ram"]) == ("off", "", "0")
    assert pairs["--host"].endswith(".sock")
    assert not {"--metrics", "--props", "--tools", "--agent", "--mcp-servers-json"} & set(said)


def test_the_key_is_nowhere_to_be_read(engine: LlamaServerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    process, key = Path(f"/proc/{pid_of(engine)}"), engine._address.key.encode()
    assert key not in (process / "cmdline").read_bytes()
    assert key not in (process / "environ").read_bytes()
    folder = Path(engine._address.socket_path).parent
    assert [path.name for path in folder.iterdir()] == ["w.sock"], "and in no file"


def test_other_users_of_the_socket_need_the_key(engine: LlamaServerEngine) -> None:
    wrong = transport.Address(key="guess", socket_path=engine._address.socket_path)
    for path in ("/props", "/slots", "/completion", "/v1/chat/completions", "/metrics", "/v1/models"):
        with pytest.raises(transport.WorkerRefused) as caught:
            transport.call(wrong, path, {} if "c" in path else None)
        assert caught.value.status == 401, path


def test_slots_page_and_web_page_are_off(engine: LlamaServerEngine) -> None:
    for path in ("/slots", "/metrics", "/tools", "/", "/index.html"):
        with pytest.raises((transport.WorkerRefused, transport.WorkerGone)):
            transport.call(engine._address, path)
    with pytest.raises(transport.WorkerRefused):
        transport.call(engine._address, "/props", {"a": 1})


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_it_opens_no_port_and_is_confined(engine: LlamaServerEngine) -> None:
    assert "landlock" in engine.info.details["sandbox"]
    ours = {line.split()[9] for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()}
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid_of(engine)}/fd").iterdir() if fd.is_symlink()}
    assert not {f"socket:[{inode}]" for inode in ours} & held
    status = Path(f"/proc/{pid_of(engine)}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{pid_of(engine)}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


def test_it_sees_no_secrets(build: NativeBuild, monkeypatch: pytest.MonkeyPatch, demo_model: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_token_value")
    monkeypatch.setenv("LLAMA_ARG_PORT", "8080")
    with closing(native.open_engine(LoadRequest(demo_model, context_tok=256), build=build)) as engine:
        environ = Path(f"/proc/{pid_of(engine)}/environ").read_bytes()
        assert b"hf_secret" not in environ and b"LLAMA_ARG" not in environ


def test_it_reports_its_build_and_buffers(engine: LlamaServerEngine, build: NativeBuild) -> None:
    assert engine.info.build == f"native {build.build_id}"
    assert engine.info.buffers is not None and engine.info.buffers.kv_bytes > 0


def laid_out_anew(folder: Path) -> Path:
    """A model of which some 20 MB are laid out anew."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8,
             "num_key_value_heads": 8, "vocab_size": 400}  # fmt: skip
    blueprint = blueprint_from_config({**known_models()["smollm2:135m"].config, **shape}, "model")
    types = ["Q4_0" if len(tensor.shape) == 2 else "F32" for tensor in blueprint.header().tensors]
    return write_random_model(folder / "m.gguf", blueprint, types, BytewiseVocabulary(400).metadata())


@pytest.mark.skipif(sys.platform != "linux", reason="pages of Linux")
def test_weights_that_are_laid_out_anew_lie_in_large_pages(build: NativeBuild, tmp_path: Path) -> None:
    large = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not large.exists() or "[never]" in large.read_text():
        pytest.skip("this system gives no large pages")
    load = LoadRequest(laid_out_anew(tmp_path), context_tok=256)
    with closing(native.open_engine(load, build=build)) as engine:
        assert engine.info.buffers
        anew_bytes = engine.info.buffers.weights_bytes_by_buffer.get("CPU_REPACK", 0)
        if not anew_bytes:
            pytest.skip("on this CPU nothing is laid out anew")
        pages = Path(f"/proc/{pid_of(engine)}/smaps_rollup").read_text()
    (large_kib,) = re.findall(r"^AnonHugePages: +(\d+) kB$", pages, re.MULTILINE)
    assert anew_bytes > 16 * MIB
    # At both ends, and where the system has none left, there are small ones.
    assert int(large_kib) * KIB > anew_bytes / 2


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGSEGV, EngineCrashed), (signal.SIGILL, EngineUnsupported), (signal.SIGKILL, OutOfMemory)],
)
def test_its_death_is_explained(engine: LlamaServerEngine, number: int, kind: type[EngineError]) -> None:
    os.kill(pid_of(engine), number)
    wait_until_gone(pid_of(engine))
    with pytest.raises(kind) as caught:
        list(engine.generate(LONG))
    assert caught.value.hint


def test_closing_leaves_nothing(engine: LlamaServerEngine) -> None:
    folder = Path(engine._address.socket_path).parent
    engine.close()
    assert not folder.exists()
    wait_until_gone(pid_of(engine))


def test_too_little_memory_is_an_error_in_words(build: NativeBuild, demo_model: Path) -> None:
    with pytest.raises(EngineError) as caught:
        native.open_engine(
            LoadRequest(demo_model, context_tok=2048, memory_limit_bytes=20 * 1024**2), build=build
        ).close()
    assert isinstance(caught.value, OutOfMemory | EngineCrashed)
    assert caught.value.hint


def test_a_load_that_takes_too_long_is_ended(settings: Settings, tmp_path: Path, demo_model: Path) -> None:
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    build = hostile_server.install_program(settings, program, "sleeper")
    with pytest.raises(EngineError) as caught:
        native.open_engine(LoadRequest(demo_model, load_timeout_s=0.5), build=build)
    assert "seconds" in caught.value.message


@pytest.mark.parametrize("text", ["", "not a program", "#!/no/such/interpreter\n"])
def test_a_program_that_does_not_start(text: str, settings: Settings, tmp_path: Path, demo_model: Path) -> None:
    program = tmp_path / "broken"
    program.write_text(text)
    build = hostile_server.install_program(settings, program, "broken")
    with pytest.raises(EngineCrashed) as caught:
        native.open_engine(LoadRequest(demo_model, load_timeout_s=20), build=build)
    assert caught.value.hint


@pytest.mark.skipif(not sandbox.landlock_version(), reason="this kernel has no Landlock")
def test_it_reads_nothing_that_it_does_not_need(settings: Settings, tmp_path: Path, demo_model: Path) -> None:
    """A stand-in tries to read something else, and says by its exit code what came of it."""
    secret = tmp_path / "secret"
    secret.write_text("key")
    program = tmp_path / "thief"
    program.write_text(f"#!/bin/sh\ncat {secret} >/dev/null 2>&1 && exit 42\nexit 43\n")
    build = hostile_server.install_program(settings, program, "thief")
    with pytest.raises(EngineCrashed) as caught:
        native.open_engine(LoadRequest(demo_model, load_timeout_s=20), build=build)
    assert "43" in caught.value.message


def test_killing_bendi_ends_the_server(build: NativeBuild, demo_model: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
os.environ["BENDI_TEST_NATIVE_CACHE"] = {str(CACHE)!r}
sys.path.insert(0, {str(Path(__file__).parent)!r})
from native_engine import needed_build
from bendi.engines import LoadRequest, native
engine = native.open_engine(LoadRequest(Path({str(demo_model)!r}), context_tok=256), build=needed_build())
print(engine.info.details["pid"], flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    wait_until_gone(pid)
