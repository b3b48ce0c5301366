"""Ollama: recorded answers of it, bendi's own server that speaks its API, and one that is started here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peer_stand_ins import (
    PORT_OF_OLLAMA,
    Answer,
    FakeProgram,
    WireServer,
    bendi_server,
    ndjson,
    sent,
    wait_until_gone,
)

from bendi.engines.peer_open import open_peer
from bendi.engines.peer_types import PeerEngine, PeerLoad, PeerSpec, PeerUsage
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, NotFoundError, RequestRejected, UsageError
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message, Sampling
from bendi.settings import Settings, load_settings

ASK = GenerateRequest(prompt="Once", max_tokens=18, sampling=Sampling(temperature=0.0, seed=7))
CHAT = GenerateRequest(messages=(Message("user", "Hi"),), max_tokens=5, sampling=Sampling(temperature=0.0))
LAST = {
    "model": "gemma4", "response": "", "done": True, "done_reason": "length", "total_duration": 174560334,
    "load_duration": 101397084, "prompt_eval_count": 11, "prompt_eval_cached_count": 8,
    "prompt_eval_duration": 13074791,
    "eval_count": 18, "eval_duration": 52479709,
}  # fmt: skip
"""The example of docs.ollama.com/api/usage."""
ROW = {
    "name": "gemma4:latest", "model": "gemma4:latest", "size": 5_000_000, "size_vram": 0, "digest": "abc",
    "context_length": 2048,
}  # fmt: skip
SHOWN = {
    "details": {"format": "gguf", "family": "gemma4", "families": None, "quantization_level": "Q4_K_M"},
    "model_info": {"gemma4.context_length": 131072},
}


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    return load_settings()


def ollama(*stream: object, row: dict[str, Any] = ROW, **more: Answer) -> dict[str, Any]:
    def generate(body: Any) -> Answer:
        return ndjson(*stream) if body.get("prompt") else sent({"done": True, "done_reason": "load"})

    return {
        "GET /api/version": sent({"version": "0.33.3"}),
        "GET /api/ps": sent({"models": [row]}),
        "POST /api/show": sent(SHOWN),
        "POST /api/generate": generate,
        "POST /api/chat": ndjson(*stream),
        **more,
    }


def piece(text: str) -> dict[str, Any]:
    return {"model": "gemma4", "response": text, "done": False}


def opened(server: WireServer, bendi: Settings, **load: Any) -> closing[PeerEngine]:
    return closing(open_peer(PeerSpec("ollama", url=server.url), PeerLoad(model_name="gemma4", **load), bendi))


def answer(server: WireServer, settings: Settings, request: GenerateRequest = ASK) -> list[Chunk]:
    with opened(server, settings) as engine:
        return list(engine.generate(request))


def test_a_recorded_stream(settings: Settings) -> None:
    asked = {"context_tok": 2048, "threads": 4, "gpu_layers": 0, "batch_tok": 256, "mmap": True}
    with WireServer(ollama(piece(" upon"), piece(""), piece(" a time"), LAST)) as server:
        with opened(server, settings, settings=asked) as engine:
            *texts, last = engine.generate(ASK)
            info, verified = engine.info, engine.verified
        bodies = server.bodies("/api/generate")
    assert (info.engine, info.build, info.context_tok, info.train_context_tok) == ("ollama", "0.33.3", 2048, 131072)
    assert info.details["quantization_level"] == "Q4_K_M"
    assert verified.confirmed == {"context_tok": 2048, "gpu_layers": 0}
    assert verified.unconfirmed == ("threads", "batch_tok", "mmap") and not verified.differing
    assert [chunk.text for chunk in texts] == [" upon", " a time"]
    assert last.finish == "length" and last.usage == PeerUsage(11, 18, 8, cached_known=True)
    assert last.timings and last.timings.pp_tok_s == pytest.approx(3 / 13.074791e-3), "not 11: 8 of them took no time"
    assert last.timings.tg_tok_s == pytest.approx(18 / 52.479709e-3)
    options = {"num_ctx": 2048, "num_thread": 4, "num_gpu": 0, "num_batch": 256, "use_mmap": True}
    assert bodies[0]["options"] == options and "prompt" not in bodies[0]
    assert bodies[1]["options"] == options | {"temperature": 0.0, "seed": 7, "num_predict": 18}
    assert bodies[1]["raw"] is True and bodies[1]["truncate"] is False and bodies[1]["stream"] is True
    assert len(bodies) == 2, "a model that was loaded before stays loaded"


def test_a_model_that_was_loaded_for_this_is_unloaded(settings: Settings) -> None:
    rows = iter([[], [ROW]])
    answers = ollama(LAST) | {"GET /api/ps": lambda _body: sent({"models": next(rows)})}
    with WireServer(answers) as server:
        answer(server, settings)
        assert server.bodies("/api/generate")[-1] == {"model": "gemma4", "keep_alive": 0}


def test_before_cached_tokens_were_told(settings: Settings) -> None:
    """Whether the count has them in it or not cannot be known then, so there is no rate of prompts."""
    last = {name: value for name, value in LAST.items() if name != "prompt_eval_cached_count"}
    with WireServer(ollama(piece("a"), last)) as server:
        chunk = answer(server, settings)[-1]
    assert chunk.usage == PeerUsage(11, 18, 0, cached_known=False)
    assert chunk.timings and chunk.timings.pp_tok_s is None and chunk.timings.tg_tok_s


def test_other_settings_than_asked_for_are_shown(settings: Settings) -> None:
    with (
        WireServer(ollama(row=ROW | {"context_length": 4096, "size_vram": 2_000_000})) as server,
        opened(server, settings, settings={"context_tok": 8192, "gpu_layers": 99}) as engine,
    ):
        assert engine.verified.differing == {"context_tok": 4096}
        assert engine.verified.unconfirmed == ("gpu_layers",), "how many it does not say"


def test_everything_on_the_gpu(settings: Settings) -> None:
    with (
        WireServer(ollama(row=ROW | {"size_vram": ROW["size"]})) as server,
        opened(server, settings, settings={"gpu_layers": -1}) as engine,
    ):
        assert engine.verified.confirmed == {"gpu_layers": -1}


def test_thinking_counts_as_text(settings: Settings) -> None:
    def said(**message: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", **message}, "done": False}

    end = {**LAST, "message": {"role": "assistant", "content": ""}, "done_reason": "stop"}
    with WireServer(ollama(said(content="", thinking="hm"), said(content="yes"), end)) as server:
        *texts, last = answer(server, settings, CHAT)
        (body,) = server.bodies("/api/chat")
    assert [(chunk.reasoning, chunk.text) for chunk in texts] == [("hm", ""), ("", "yes")] and last.finish == "stop"
    assert body["messages"] == [{"role": "user", "content": "Hi"}] and "raw" not in body


def test_token_numbers_are_refused(settings: Settings) -> None:
    with WireServer(ollama(LAST)) as server, pytest.raises(RequestRejected):
        answer(server, settings, replace(ASK, prompt=(1, 2)))


@pytest.mark.parametrize(
    "stream",
    [
        ndjson("text"),
        (200, [b"{broken\n"]),
        ndjson(piece("a"), {"error": "the prompt is too long"}),
        ndjson(piece("a")),
        ndjson({**LAST, "eval_count": None}),
        ndjson({name: value for name, value in LAST.items() if name != "prompt_eval_count"}),
    ],
    ids=str,
)
def test_what_is_no_answer_is_an_error_in_words(stream: Answer, settings: Settings) -> None:
    with WireServer({**ollama(), "POST /api/chat": stream}) as server, pytest.raises(EngineError) as caught:
        answer(server, settings, CHAT)
    assert caught.value.message


def test_cancelling_ends_it(settings: Settings) -> None:
    def slowly(server: WireServer) -> Iterator[bytes]:
        yield b'{"message": {"content": "a"}, "done": false}\n'
        server.gone.wait(20)

    cancel, chunks = Cancellation(), []
    with (
        WireServer({**ollama(), "POST /api/chat": lambda _body: (200, slowly(server))}) as server,
        opened(server, settings) as engine,
    ):
        for chunk in engine.generate(CHAT, cancel):
            chunks.append(chunk)
            cancel.cancel()
        server.gone.set()
    assert [chunk.finish for chunk in chunks] == [None, "cancelled"]


def test_a_model_that_it_does_not_have(settings: Settings) -> None:
    answers = ollama() | {"POST /api/generate": (404, [b'{"error": "model not found"}'])}
    with WireServer(answers) as server, pytest.raises(NotFoundError) as caught:
        answer(server, settings)
    assert "gemma4" in caught.value.message and "ollama list" in caught.value.hint


def test_settings_that_only_its_environment_has(settings: Settings) -> None:
    with WireServer(ollama()) as server, pytest.raises(UsageError) as caught:
        opened(server, settings, settings={"flash_attention": True})
    assert "flash_attention" in caught.value.message


def test_a_copy_of_a_file_is_made_and_deleted_again(settings: Settings, demo_model: Path) -> None:
    digest = hashlib.sha256(demo_model.read_bytes()).hexdigest()
    answers = ollama(LAST) | {
        f"POST /api/blobs/sha256:{digest}": (201, [b""]),
        "POST /api/create": sent({"status": "success"}),
        "DELETE /api/delete": (200, [b""]),
        "GET /api/ps": sent({"models": []}),
    }
    with WireServer(answers) as server:
        spec, load = PeerSpec("ollama", url=server.url), PeerLoad(demo_model)
        with pytest.raises(UsageError):
            open_peer(spec, load, settings)
        with closing(open_peer(replace(spec, may_create=True), load, settings)):
            (created,) = server.bodies("/api/create")
            assert created["files"] == {"demo.gguf": f"sha256:{digest}"} and created["model"].startswith("bendi-")
            assert server.bodies(f"/api/blobs/sha256:{digest}") == [demo_model.read_bytes()]
        assert server.bodies("/api/delete") == [{"model": created["model"]}]


def test_against_bendis_own_server(settings: Settings, clean_environment: Path) -> None:
    with bendi_server(clean_environment) as url:
        load = PeerLoad(model_name="demo", settings={"context_tok": 512})
        with closing(open_peer(PeerSpec("ollama", url=url), load, settings)) as engine:
            assert isinstance(engine, PeerEngine) and not engine.ends_can_be_ignored
            assert engine.verified.confirmed == {"context_tok": 512} and engine.info.train_context_tok == 2048
            for request in (CHAT, ASK):
                *texts, last = engine.generate(request)
                assert texts and all(chunk.text for chunk in texts)
                assert last.finish in ("length", "stop") and last.usage
                assert 0 < last.usage.completion_tok <= (request.max_tokens or 0) and last.usage.prompt_tok > 0
                assert last.timings and last.timings.tg_tok_s
            longest = replace(ASK, prompt="a b c d " * 500)
            with pytest.raises(RequestRejected):
                list(engine.generate(longest))


def test_one_that_is_started_here(settings: Settings, tmp_path: Path) -> None:
    log = (
        'time=2026-09-01T14:22:46.896+02:00 level=INFO source=routes.go:1933 msg="server config" env="map['
        "OLLAMA_CONTEXT_LENGTH:0 OLLAMA_FLASH_ATTENTION:true OLLAMA_KV_CACHE_TYPE:q8_0 OLLAMA_NUM_PARALLEL:1 "
        'OLLAMA_ORIGINS:[http://localhost https://localhost]]"'
    )
    answers = {path: found for path, found in ollama().items() if not callable(found)}
    answers["POST /api/generate"] = ndjson(LAST)
    program = FakeProgram(tmp_path / "bin", "ollama", answers, log=log, port=PORT_OF_OLLAMA)
    asked = {"parallel": 2, "flash_attention": True, "type_k": "q8_0", "type_v": "q8_0", "context_tok": 2048}
    load = PeerLoad(model_name="gemma4", settings=asked)
    engine = open_peer(PeerSpec("ollama", program=str(program.path)), load, settings)
    with closing(engine):
        (pid,) = engine.pids
        assert engine.verified.differing == {"parallel": 1}
        assert engine.verified.confirmed == {name: asked[name] for name in asked if name != "parallel"}
        (start,) = program.starts
        environ = start["environ"]
        assert (
            start["argv"] == ["serve"] and environ["OLLAMA_NUM_PARALLEL"] == "2" and environ["OLLAMA_NO_CLOUD"] == "1"
        )
        assert environ["OLLAMA_FLASH_ATTENTION"] == "true" and environ["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
        assert environ["OLLAMA_HOST"].startswith("127.0.0.1:")
    wait_until_gone(pid)
    with pytest.raises(EngineCrashed):
        list(engine.generate(ASK))
    with pytest.raises(UsageError):
        open_peer(PeerSpec("ollama", program=str(program.path)), PeerLoad(settings={"type_k": "q8_0"}), settings)
    with pytest.raises(EngineUnsupported):
        open_peer(PeerSpec("ollama", program=str(tmp_path / "none")), load, settings)
