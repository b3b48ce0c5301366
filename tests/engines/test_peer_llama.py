"""llama-server and llama-bench: a real one where a native build was made, and what others say."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_engine import CACHE, needed_build
from peer_stand_ins import wait_until_gone

from bendi.engines.peer_llama import Program, arguments, find_program, look_at
from bendi.engines.peer_llama_bench import BenchAsk, bench_rates, read_rows
from bendi.engines.peer_llama_log import said_of_settings
from bendi.engines.peer_open import open_peer
from bendi.engines.peer_process import peak_memory_bytes
from bendi.engines.peer_types import PeerEngine, PeerLoad, PeerSpec, PeerUsage
from bendi.engines.protocol import HostedEngine
from bendi.errors import (
    ContextOverflow,
    EngineCrashed,
    EngineError,
    EngineUnsupported,
    NotFoundError,
    OutOfMemory,
    UsageError,
)
from bendi.messages import Cancellation, GenerateRequest, Message, Sampling
from bendi.settings import Settings, load_settings

NUMBERS = GenerateRequest(
    prompt=tuple(range(300, 364)), max_tokens=16, ignore_end=True, sampling=Sampling(temperature=0.0, seed=1)
)
CHAT = GenerateRequest(
    messages=(Message("user", "What is a KV cache?"),), max_tokens=12, sampling=Sampling(temperature=0.0)
)
NEW = Program(
    Path("llama-server"),
    "0.6",
    "-fa,   --flash-attn [on|off|auto]   set\n-lm,   --load-mode MODE   mode\n--ui,  --webui, --no-ui, --no-webui  x\n"
    "--offline   y\n-nr, --no-repack  z\n--slots, --no-slots  s\n",
)
OLD = Program(Path("llama-server"), "3000", "-fa,   --flash-attn     enable\n--no-mmap   do not\n--no-webui    page\n")


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    return load_settings()


@pytest.fixture
def engine(settings: Settings, demo_model: Path) -> Iterator[Any]:
    load = PeerLoad(demo_model, settings={"context_tok": 512, "threads": 1})
    with closing(open_peer(PeerSpec("llama-server", program=str(needed_build().server)), load, settings)) as opened:
        yield opened


def test_it_is_what_it_says(engine: Any, demo_model: Path) -> None:
    assert isinstance(engine, PeerEngine) and isinstance(engine, HostedEngine)
    info = engine.info
    assert info.engine == "llama-server" and info.build and info.model_path == demo_model
    assert (info.context_tok, info.train_context_tok, info.slots) == (512, 2048, 1) and info.load_s > 0
    assert info.buffers is not None and info.buffers.kv_bytes > 0
    resident_bytes = engine.worker.resident_bytes()
    assert (peak_memory_bytes(engine.pids) or 0) >= resident_bytes > 0


def test_answers_come_token_by_token_with_its_own_counts(engine: Any) -> None:
    for request in (NUMBERS, CHAT, replace(NUMBERS, prompt="A model of")):
        *texts, last = engine.generate(request)
        assert all(chunk.text for chunk in texts) and len(texts) > 4
        assert last.usage.completion_tok == request.max_tokens and last.finish == "length"
        assert isinstance(last.usage, PeerUsage) and last.usage.cached_known
        assert last.timings.pp_tok_s > 0 and last.timings.tg_tok_s > 0 and last.timings.ttft_s > 0
    again = list(engine.generate(NUMBERS))[-1]
    assert again.usage.prompt_tok == 64


def test_the_end_of_a_turn_is_ignored_only_on_request(engine: Any) -> None:
    short = replace(CHAT, max_tokens=400)
    ended = list(engine.generate(short))[-1]
    assert ended.finish == "stop" and ended.usage.completion_tok < 400
    on_and_on = list(engine.generate(replace(short, ignore_end=True)))[-1]
    assert on_and_on.finish == "length" and on_and_on.usage.completion_tok == 400


def test_it_can_be_cancelled(engine: Any) -> None:
    cancel, chunks = Cancellation(), []
    for chunk in engine.generate(replace(NUMBERS, max_tokens=400), cancel):
        chunks.append(chunk)
        if len(chunks) == 3:
            cancel.cancel()
    assert chunks[-1].finish == "cancelled" and len(chunks) < 100


def test_silence_is_an_error(settings: Settings, demo_model: Path) -> None:
    spec = PeerSpec("llama-server", program=str(needed_build().server))
    load = PeerLoad(demo_model, settings={"context_tok": 512, "threads": 1}, silence_s=0.4)
    with closing(open_peer(spec, load, settings)) as engine:
        slow = engine.generate(replace(NUMBERS, max_tokens=2))
        next(slow)
        time.sleep(1)
        assert list(slow)[-1].finish == "length", "who reads slowly is not silent"
        os.kill(engine.pids[0], signal.SIGSTOP)
        try:
            with pytest.raises(EngineError) as caught:
                list(engine.generate(NUMBERS))
        finally:
            os.kill(engine.pids[0], signal.SIGCONT)
        assert "nothing" in caught.value.message


def test_what_does_not_fit_is_not_cut(engine: Any) -> None:
    with pytest.raises(ContextOverflow) as caught:
        list(engine.generate(replace(NUMBERS, prompt=tuple(range(300, 900)))))
    assert (caught.value.needed_tok, caught.value.available_tok) == (600, 512)


def test_settings_are_read_back(settings: Settings, demo_model: Path) -> None:
    asked = {
        "context_tok": 256, "parallel": 2, "threads": 2, "prompt_threads": 1, "batch_tok": 128, "ubatch_tok": 64,
        "type_k": "q8_0", "type_v": "q8_0", "flash_attention": True, "mmap": False, "repack": False,
    }  # fmt: skip
    spec = PeerSpec("llama-server", program=str(needed_build().server))
    with closing(open_peer(spec, PeerLoad(demo_model, settings=asked | {"gpu_layers": 0}), settings)) as engine:
        assert engine.verified.confirmed == asked and not engine.verified.differing
        assert engine.verified.unconfirmed == ("gpu_layers",), "a build without GPUs says nothing of them"
        assert (engine.info.context_tok, engine.info.slots) == (256, 2)
    with closing(
        open_peer(spec, PeerLoad(demo_model, settings={"context_tok": 1000, "mmap": True}), settings)
    ) as engine:
        assert engine.verified.confirmed == {"mmap": True}
        assert engine.verified.differing == {"context_tok": engine.info.context_tok}, "it rounds"


def test_the_key_is_needed_and_on_no_command_line(engine: Any, settings: Settings) -> None:
    (pid,) = engine.pids
    key = engine._answers._address.key
    assert key not in Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    with pytest.raises(EngineError) as caught:
        open_peer(PeerSpec("openai", url=f"http://127.0.0.1:{engine._answers._address.port}"), PeerLoad(), settings)
    assert "key" in caught.value.message.lower()


def test_closing_ends_it(engine: Any) -> None:
    (pid,) = engine.pids
    engine.close()
    engine.close()
    wait_until_gone(pid)
    with pytest.raises(EngineCrashed) as caught:
        list(engine.generate(CHAT))
    assert "unloaded" in caught.value.message


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGSEGV, EngineCrashed), (signal.SIGKILL, OutOfMemory)])
def test_its_death_is_explained(engine: Any, number: int, kind: type[EngineError]) -> None:
    os.kill(engine.pids[0], number)
    wait_until_gone(engine.pids[0])
    with pytest.raises(kind) as caught:
        list(engine.generate(CHAT))
    assert caught.value.hint


def test_a_build_of_bendi_by_its_name(demo_model: Path) -> None:
    settings = load_settings({"BENDI_CACHE": str(CACHE), "BENDI_CONFIG": str(CACHE / "config")})
    spec = PeerSpec("llama-server", program=needed_build().build_id)
    with closing(open_peer(spec, PeerLoad(demo_model, settings={"context_tok": 256}), settings)) as engine:
        assert engine.info.details["program"] == str(needed_build().server.absolute())


def test_a_file_that_is_no_model(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    spec = PeerSpec("llama-server", program=str(needed_build().server))
    with pytest.raises(EngineError) as caught:
        open_peer(spec, PeerLoad(tmp_path / "x.gguf"), settings)
    assert caught.value.message and caught.value.hint
    with pytest.raises(NotFoundError):
        open_peer(spec, PeerLoad(tmp_path / "none.gguf"), settings)


def test_programs_that_are_none(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for wanted in ("", "llama-server", str(tmp_path)):
        with pytest.raises(NotFoundError):
            find_program(wanted)
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'error while loading shared libraries: libllama.so' >&2; exit 127\n")
    program.chmod(0o755)
    assert find_program(str(tmp_path)) == program
    with pytest.raises(EngineUnsupported) as caught:
        look_at(program)
    assert "libllama.so" in caught.value.message


def test_the_words_of_newer_and_older_versions() -> None:
    asked = {"flash_attention": True, "mmap": False, "context_tok": 1024, "gpu_layers": -1, "tensor_split": "3,1"}
    new, old = arguments(NEW, asked), arguments(OLD, asked)
    assert " ".join(new) == "-ngl 999 -ts 3,1 -c 1024 -np 1 -fa on --load-mode none --offline --no-ui --no-slots"
    assert " ".join(old) == "-ngl 999 -ts 3,1 -c 1024 -np 1 -fa --no-mmap --no-webui"
    assert arguments(OLD, {"flash_attention": False, "mmap": True}) == ["--no-webui"]
    assert arguments(NEW, {"context_tok": 100, "parallel": 3})[:4] == ["-np", "3", "-c", "300"]
    with pytest.raises(UsageError):
        arguments(OLD, {"repack": False})
    assert arguments(OLD, {"--cache-reuse": 256, "--jinja": True, "--x": False})[-3:] == [
        "--cache-reuse",
        "256",
        "--jinja",
    ]


def test_unknown_settings_are_refused(settings: Settings, demo_model: Path) -> None:
    spec = PeerSpec("llama-server", program=str(needed_build().server))
    with pytest.raises(UsageError) as caught:
        open_peer(spec, PeerLoad(demo_model, settings={"n_ctx": 5}), settings)
    assert "n_ctx" in caught.value.message and "context_tok" in caught.value.hint


def test_what_a_gpu_build_logs() -> None:
    lines = [
        "load_tensors: offloading 28 repeating layers to GPU",
        "load_tensors: offloaded 29/29 layers to GPU",
        "load_tensors:        CUDA0 model buffer size =   372.65 MiB",
        "load_tensors:   CPU_Mapped model buffer size =   125.19 MiB",
        "llama_context: flash_attn            = auto",
        "sched_reserve: Flash Attention was auto, set to enabled",
        "llama_kv_cache: size = 448.00 MiB (4096 cells, 28 layers, 1/1 seqs), K (f16): 224.00 MiB, V (f16): 224.00 MiB",
    ]  # fmt: skip
    said = said_of_settings(lines, {}, {"gpu_layers": -1})
    assert said["gpu_layers"] == -1 and said["flash_attention"] is True and said["mmap"] is True
    assert (said["type_k"], said["type_v"], said["repack"]) == ("f16", "f16", False)
    assert said_of_settings(lines, {}, {"gpu_layers": 99})["gpu_layers"] == 99
    assert said_of_settings(lines, {}, {"gpu_layers": 10})["gpu_layers"] == 29
    assert said_of_settings(["llama_context: flash_attn            = auto"], {}, {})["flash_attention"] is None
    forged = "print_info: general.name = llama_context: n_batch = 7 and more"
    assert "batch_tok" not in said_of_settings([forged], {}, {})


ROW = (
    '{"build_commit": "abc", "build_number": 11000, "cpu_info": "x", "gpu_info": "NVIDIA A", "backends": "CUDA", '
    '"n_batch": 2048, "n_ubatch": 512, "n_threads": 8, "type_k": "f16", "type_v": "f16", "n_gpu_layers": 999, '
    '"split_mode": "row", "flash_attn": 1, "tensor_split": "3.00/1.00", "use_mmap": true, "n_prompt": 512, "n_gen": 0, '
    '"n_depth": 1024, "avg_ts": 15.0, "samples_ns": [1, 2], "samples_ts": [10.0, 20.0]}'
)  # fmt: skip


def test_rows_of_llama_bench() -> None:
    asked = {
        "gpu_layers": -1, "tensor_split": "3,1", "split_mode": "row", "flash_attention": True, "mmap": True,
        "threads": 4,
    }  # fmt: skip
    (rates,) = read_rows(f"a greeting\n{ROW}\n", asked)
    assert rates.rates_tok_s == (10.0, 20.0), "every repetition, no mean"
    assert (rates.prompt_tok, rates.answer_tok, rates.depth_tok, rates.build) == (512, 0, 1024, "11000 (abc)")
    assert set(rates.verified.confirmed) == set(asked) - {"threads"} and rates.verified.differing == {"threads": 8}
    (other,) = read_rows(ROW.replace("NVIDIA A", ""), {"gpu_layers": -1, "tensor_split": "1,1"})
    assert other.verified.differing == {"gpu_layers": 0, "tensor_split": "3.00/1.00"}
    for broken in ("", "{", '{"n_prompt": 1}', ROW.replace("[10.0, 20.0]", '"fast"')):
        with pytest.raises(EngineError):
            read_rows(broken, {})


def test_llama_bench_for_real(demo_model: Path) -> None:
    found = shutil.which("llama-bench") or needed_build().program("llama-bench")
    if not Path(found).is_file():
        pytest.skip("no llama-bench: native builds have it when made without --small")
    asked = {"threads": 1, "batch_tok": 64, "flash_attention": True, "mmap": False}
    prompt, generation = bench_rates(Path(found), demo_model, asked, BenchAsk(32, 4, depth_tok=16, repeats=3))
    assert (prompt.prompt_tok, prompt.answer_tok, generation.prompt_tok, generation.answer_tok) == (32, 0, 0, 4)
    assert len(prompt.rates_tok_s) == len(generation.rates_tok_s) == 3 and prompt.verified.confirmed == asked
    with pytest.raises(EngineError):
        bench_rates(Path(found), demo_model.with_name("none.gguf"), {}, BenchAsk(1, 0))
