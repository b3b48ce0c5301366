"""vLLM and fastllm, by programs that stand in for them: how they are started, recognised and ended."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from peer_stand_ins import FakeProgram, sent, sse, text_event, usage_event, wait_until_gone

from bendi.engines.peer_open import open_peer
from bendi.engines.peer_process import peak_memory_bytes
from bendi.engines.peer_types import PeerEngine, PeerLoad, PeerSpec, PeerUsage
from bendi.engines.protocol import HostedEngine
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, NotFoundError, UsageError
from bendi.messages import GenerateRequest, Message
from bendi.settings import Settings, load_settings

ASK = GenerateRequest(prompt=(1, 2, 3), max_tokens=2, ignore_end=True)
ECHO = (
    "(APIServer pid=1) INFO 11-02 10:00:00 [utils.py:233] non-default args: {'model_tag': '/m', 'port': 1, "
    "'max_model_len': 2048, 'max_num_seqs': 8}"
)


def server(owner: str, **row: Any) -> dict[str, Any]:
    return {
        "GET /health": sent({}),
        "GET /version": sent({"version": "0.26.1"}),
        "GET /v1/models": sent({"data": [{"id": "bendi-bench", "owned_by": owner, **row}]}),
        "POST /v1/completions": sse(text_event("a"), text_event("b", "length"), usage_event(3, 2)),
        "POST /v1/chat/completions": sse(
            {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}, usage_event(4, 1)
        ),
    }


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    return load_settings()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def test_vllm(
    settings: Settings, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    program = FakeProgram(tmp_path / "bin", "vllm", server("vllm", max_model_len=2048), log=ECHO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    asked = {"context_tok": 2048, "parallel": 4, "threads": 3, "--enforce-eager": True, "--seed": 5}
    with closing(open_peer(PeerSpec("vllm"), PeerLoad(model, settings=asked), settings)) as engine:
        assert isinstance(engine, PeerEngine)
        assert (engine.info.engine, engine.info.build, engine.info.context_tok) == ("vllm", "0.26.1", 2048)
        assert engine.info.load_s > 0
        assert engine.verified.confirmed == {"context_tok": 2048}
        assert engine.verified.differing == {"parallel": 8}, "what it says, not what it was told"
        assert engine.verified.unconfirmed == ("threads", "--enforce-eager", "--seed")
        *texts, last = engine.generate(ASK)
        assert [chunk.text for chunk in texts] == ["a", "b"]
        assert last.usage == PeerUsage(3, 2, cached_known=False)
        (pid,) = engine.pids
        assert (peak_memory_bytes([pid]) or 1) > 0
    wait_until_gone(pid)
    (start,) = program.starts
    argv, environ = start["argv"], start["environ"]
    pairs = dict(pairwise(argv))
    assert argv[:2] == ["serve", str(model)] and pairs["--host"] == "127.0.0.1"
    assert (pairs["--max-model-len"], pairs["--max-num-seqs"], pairs["--seed"]) == ("2048", "4", "5")
    assert {"--enforce-eager", "--enable-per-request-metrics", "--enable-prompt-tokens-details"} <= set(argv)
    assert environ["VLLM_NO_USAGE_STATS"] == "1" and environ["HF_HUB_OFFLINE"] == "1" and "HF_TOKEN" not in environ
    assert environ["OMP_NUM_THREADS"] == "3"
    key = environ["VLLM_API_KEY"]
    assert len(key) > 30 and key not in " ".join(argv)
    assert program.asked("/v1/completions")[0]["key"] == f"Bearer {key}"


def test_what_an_older_vllm_does_not_know_is_left_out(settings: Settings, tmp_path: Path, model: Path) -> None:
    answers = server("vllm", max_model_len=2048)
    program = FakeProgram(tmp_path / "bin", "vllm", answers, refused=("--enable-per-request-metrics",))
    with closing(open_peer(PeerSpec("vllm", program=str(program.path)), PeerLoad(model), settings)):
        first, second = program.starts
    assert set(first["argv"]) - set(second["argv"]) >= {"--enable-per-request-metrics"}
    assert "--enable-prompt-tokens-details" in second["argv"]


def test_options_of_the_user_are_not_left_out(settings: Settings, tmp_path: Path, model: Path) -> None:
    program = FakeProgram(tmp_path / "bin", "vllm", server("vllm"), refused=("--of-the-user",))
    load = PeerLoad(model, settings={"--of-the-user": 1})
    with pytest.raises(EngineCrashed) as caught:
        open_peer(PeerSpec("vllm", program=str(program.path)), load, settings)
    assert "--of-the-user" in caught.value.message


def test_fastllm(settings: Settings, tmp_path: Path, model: Path) -> None:
    program = FakeProgram(tmp_path / "bin", "ftllm", server("fastllm", context_window=1024))
    asked = {"context_tok": 1024, "threads": 2, "parallel": 3, "batch_tok": 256, "--dtype": "int4"}
    spec = PeerSpec("fastllm", program=str(program.path))
    with closing(open_peer(spec, PeerLoad(model, settings=asked), settings)) as engine:
        assert engine.info.engine == "fastllm" and engine.verified.confirmed == {"context_tok": 1024}
        *texts, last = engine.generate(GenerateRequest(messages=(Message("user", "Hi"),)))
        assert [chunk.text for chunk in texts] == ["hi"] and last.finish == "stop"
        assert not isinstance(engine, HostedEngine)
    (start,) = program.starts
    pairs = dict(pairwise(start["argv"]))
    assert start["argv"][:2] == ["server", str(model)]
    assert (pairs["-t"], pairs["--max_batch"], pairs["--max_context_length"]) == ("2", "3", "1024")
    assert (pairs["--chunked_prefill_size"], pairs["--dtype"], pairs["--model_name"]) == ("256", "int4", "bendi-bench")
    assert program.asked("/v1/chat/completions")[0]["key"] == f"Bearer {pairs['--api_key']}"


@pytest.mark.parametrize("kind", ["vllm", "fastllm"])
def test_what_is_not_there(
    kind: str, settings: Settings, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineUnsupported) as missing:
        open_peer(PeerSpec(kind), PeerLoad(model), settings)
    assert "bendi bench engines" in missing.value.hint
    program = FakeProgram(tmp_path / "bin", "any", {})
    spec = PeerSpec(kind, program=str(program.path))
    with pytest.raises(NotFoundError):
        open_peer(spec, PeerLoad(Path("org/model-that-would-be-downloaded")), settings)
    with pytest.raises(UsageError):
        open_peer(spec, PeerLoad(model, settings={"split_mode": "row"}), settings)


def test_one_that_is_never_ready_is_ended(settings: Settings, tmp_path: Path, model: Path) -> None:
    program = FakeProgram(tmp_path / "bin", "vllm", {}, log="loading weights")
    spec = PeerSpec("vllm", program=str(program.path))
    with pytest.raises(EngineError) as caught:
        open_peer(spec, PeerLoad(model, load_timeout_s=1.5), settings)
    assert "seconds" in caught.value.message
    wait_until_gone(program.starts[0]["pid"])


def test_there_is_no_such_engine(settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        open_peer(PeerSpec("other"), PeerLoad(), settings)
    assert "llama-server" in caught.value.hint
