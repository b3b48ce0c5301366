"""Servers of OpenAI's dialect: real ones, recorded ones, and such as do it wrong."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_engine import needed_build
from peer_stand_ins import Answer, Broken, WireServer, bendi_server, sent, sse, text_event, usage_event

from bendi.engines.peer_http import site_of
from bendi.engines.peer_open import open_peer
from bendi.engines.peer_types import PeerEngine, PeerLoad, PeerSpec, PeerUsage
from bendi.errors import ConfigError, EngineCrashed, EngineError, NotFoundError, Offline, RequestRejected, UsageError
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message, Sampling
from bendi.settings import Settings, load_settings

ASK = GenerateRequest(prompt="Once", max_tokens=3, ignore_end=True, sampling=Sampling(temperature=0.0, seed=7))
CHAT = GenerateRequest(messages=(Message("user", "Hi"),), max_tokens=5, sampling=Sampling(temperature=0.0))
VLLM_MODELS = sent({"object": "list", "data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]})


@pytest.fixture
def settings(clean_environment: Path) -> Settings:
    return load_settings()


def vllm(*events: object, **more: Answer) -> dict[str, Any]:
    return {
        "GET /v1/models": VLLM_MODELS,
        "GET /version": sent({"version": "0.26.1"}),
        "POST /v1/completions": sse(*events),
        **more,
    }


def opened(server: WireServer, bendi: Settings, **load: Any) -> closing[PeerEngine]:
    spec = PeerSpec("openai", url=server.url)
    return closing(open_peer(spec, PeerLoad(model_name="m", **load), bendi))


def answer(server: WireServer, settings: Settings, request: GenerateRequest = ASK) -> list[Chunk]:
    with opened(server, settings) as engine:
        return list(engine.generate(request))


def usage_of(chunk: Chunk) -> PeerUsage:
    assert isinstance(chunk.usage, PeerUsage)
    return chunk.usage


def test_a_recorded_stream_of_vllm(settings: Settings) -> None:
    metrics = {
        "time_to_first_token_ms": 50.0, "generation_time_ms": 40.0, "queue_time_ms": 1.0, "mean_itl_ms": 20.0,
        "tokens_per_second": 33.0,
    }  # fmt: skip
    usage = usage_event(110, 3, metrics=metrics)
    usage["usage"]["prompt_tokens_details"] = {"cached_tokens": 10}
    with (
        WireServer(vllm(text_event(""), text_event(" upon"), text_event(" a time", "length"), usage)) as server,
        opened(server, settings, settings={"context_tok": 4096, "threads": 2}) as engine,
    ):
        chunks = list(engine.generate(ASK))
        assert (engine.info.engine, engine.info.build, engine.info.context_tok) == ("vllm", "0.26.1", 4096)
        assert engine.verified.confirmed == {"context_tok": 4096}
        assert engine.verified.unconfirmed == ("threads",)
        assert engine.pids == ()
    assert [chunk.text for chunk in chunks[:-1]] == [" upon", " a time"], "what has no text is no piece"
    assert chunks[-1].finish == "length"
    assert usage_of(chunks[-1]) == PeerUsage(110, 3, 10, cached_known=True)
    assert chunks[-1].timings and chunks[-1].timings.pp_tok_s == 100 / 0.05 and chunks[-1].timings.tg_tok_s == 2 / 0.04
    (body,) = server.bodies("/v1/completions")
    assert body["stream_options"] == {"include_usage": True} and body["stream"] is True
    assert (body["max_tokens"], body["ignore_eos"], body["temperature"], body["seed"]) == (3, True, 0.0, 7)


def test_what_is_not_said_is_not_known(settings: Settings) -> None:
    """Without a count of cached tokens, nobody knows what the time to the first token was spent on."""
    metrics = {"time_to_first_token_ms": 50.0, "generation_time_ms": None}
    with WireServer(vllm(text_event("a", "stop"), usage_event(10, 1, metrics=metrics))) as server:
        last = answer(server, settings)[-1]
    assert not usage_of(last).cached_known and usage_of(last).cached_tok == 0
    assert last.timings and last.timings.pp_tok_s is None and last.timings.tg_tok_s is None


def test_timings_of_llama_server_are_taken(settings: Settings) -> None:
    timings = {"cache_n": 4, "prompt_n": 6, "prompt_per_second": 120.0, "predicted_n": 2, "predicted_per_second": 40.0}
    with WireServer(vllm(text_event("ab", "stop"), usage_event(10, 2, timings=timings))) as server:
        last = answer(server, settings)[-1]
    assert usage_of(last) == PeerUsage(10, 2, 4, cached_known=True)
    assert last.timings and (last.timings.pp_tok_s, last.timings.tg_tok_s) == (120.0, 40.0)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_counts_as_text(field: str, settings: Settings) -> None:
    def delta(**fields: str | None) -> dict[str, Any]:
        return {"choices": [{"delta": fields, "finish_reason": None}]}

    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    stream = sse(
        delta(role="assistant", content=""), delta(**{field: "hm"}), delta(content="yes"), end, usage_event(9, 3)
    )
    with WireServer({**vllm(), "POST /v1/chat/completions": stream}) as server:
        chunks = answer(server, settings, CHAT)
    assert [(chunk.reasoning, chunk.text) for chunk in chunks[:-1]] == [("hm", ""), ("", "yes")]
    assert "ignore_eos" not in server.bodies("/v1/chat/completions")[0]


def test_several_tokens_in_a_piece_are_counted_by_the_server(settings: Settings) -> None:
    with WireServer(vllm(text_event("many words at once", "length"), usage_event(5, 64))) as server:
        chunks = answer(server, settings, replace(ASK, max_tokens=64))
    assert len(chunks) == 2 and usage_of(chunks[-1]).completion_tok == 64


def test_without_counts_there_is_no_speed(settings: Settings) -> None:
    with WireServer(vllm(text_event("a"), text_event("b", "stop"))) as server, pytest.raises(EngineError) as caught:
        answer(server, settings)
    assert "how many tokens" in caught.value.message and "include_usage" in caught.value.hint


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "many", "completion_tokens": 1}, {"completion_tokens": 1}, [1], "none"]
)
def test_counts_that_are_none(usage: object, settings: Settings) -> None:
    with (
        WireServer(vllm(text_event("b", "stop"), {"choices": [], "usage": usage})) as server,
        pytest.raises(EngineError),
    ):
        answer(server, settings)


def breaking_off() -> Iterator[bytes]:
    yield b'data: {"choices": [{"text": "a"}]}\n\n'
    raise Broken


@pytest.mark.parametrize(
    "stream",
    [
        sse("{not json"),
        sse("[1, 2]"),
        sse({"choices": [{"text": 7}]}),
        sse({"choices": ["text"]}),
        sse({"choices": 7}),
        sse(),
        sse(text_event("a"), usage_event(1, 1), done=False),
        (200, [b'{"choices": [{"text": "all at once"}]}']),
        (200, [b"<html>a page</html>\n"]),
        sse(text_event("a", "content_filter"), usage_event(1, 1)),
        sse(text_event("a"), {"error": {"message": "out of memory", "code": "oom"}}),
    ],
    ids=str,
)
def test_what_is_no_answer_is_an_error_in_words(stream: Answer, settings: Settings) -> None:
    with WireServer({**vllm(), "POST /v1/completions": stream}) as server, pytest.raises(EngineError) as caught:
        answer(server, settings)
    assert caught.value.message


def test_a_connection_that_breaks_off(settings: Settings) -> None:
    with (
        WireServer({**vllm(), "POST /v1/completions": lambda _body: (200, breaking_off())}) as server,
        pytest.raises(EngineCrashed) as caught,
    ):
        answer(server, settings)
    assert "broke off" in caught.value.message and caught.value.hint


@pytest.mark.parametrize("piece", [sse(text_event("a"), done=False)[1], [b": keep-alive\n\n" * 4096], [b"x" * 65536]])
def test_an_answer_without_end_is_ended(piece: Any, settings: Settings) -> None:
    endless = lambda _body: (200, itertools.cycle(piece))  # noqa: E731
    with WireServer({**vllm(), "POST /v1/completions": endless}) as server:
        with pytest.raises(EngineError):
            answer(server, settings)
        assert server.gone.wait(10), "and the server is told to stop"


def test_silence_is_an_error(settings: Settings) -> None:
    with WireServer({**vllm(), "POST /v1/completions": lambda _body: (200, silent(server))}) as server:
        with opened(server, settings, silence_s=0.2) as engine, pytest.raises(EngineCrashed) as caught:
            list(engine.generate(ASK))
        server.gone.set()
    assert "timed out" in caught.value.message


def silent(server: WireServer) -> Iterator[bytes]:
    yield b'data: {"choices": [{"text": "a"}]}\n\n'
    server.gone.wait(20)


def test_cancelling_ends_it(settings: Settings) -> None:
    cancel = Cancellation()
    with (
        WireServer({**vllm(), "POST /v1/completions": lambda _body: (200, silent(server))}) as server,
        opened(server, settings) as engine,
    ):
        chunks = []
        for chunk in engine.generate(ASK, cancel):
            chunks.append(chunk)
            cancel.cancel()
        server.gone.set()
    assert [chunk.finish for chunk in chunks] == [None, "cancelled"]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestRejected), (404, RequestRejected), (401, EngineError), (503, EngineError)]
)
@pytest.mark.parametrize("body", [{"error": {"message": "because"}}, {"error": "because"}, {"detail": "because"}])
def test_refusals_are_told(status: int, kind: type[EngineError], body: object, settings: Settings) -> None:
    refusal = status, sent(body)[1]
    with WireServer({**vllm(), "POST /v1/completions": refusal}) as server, pytest.raises(kind) as caught:
        answer(server, settings)
    assert "because" in caught.value.message and type(caught.value) is kind


def test_redirects_are_not_followed(settings: Settings) -> None:
    with WireServer({"GET /v1/models": (307, [b""])}) as server, pytest.raises(EngineError):
        answer(server, settings)


def test_the_model_must_be_there(settings: Settings) -> None:
    with WireServer(vllm()) as server, pytest.raises(NotFoundError) as caught:
        open_peer(PeerSpec("openai", url=server.url), PeerLoad(model_name="other"), settings)
    assert "m" in caught.value.hint


def test_the_only_model_needs_no_name(settings: Settings) -> None:
    with WireServer(vllm(text_event("a", "stop"), usage_event(1, 1))) as server:
        with closing(open_peer(PeerSpec("openai", url=f"{server.url}/v1/"), PeerLoad(), settings)) as engine:
            assert list(engine.generate(ASK))[-1].finish == "stop"
        assert server.bodies("/v1/completions")[0]["model"] == "m"


def test_nobody_is_there(settings: Settings) -> None:
    with WireServer({}) as server:
        url = server.url
    with pytest.raises(EngineError) as caught:
        open_peer(PeerSpec("openai", url=url), PeerLoad(model_name="m"), settings)
    assert url in caught.value.message and caught.value.hint


def test_keys_come_from_the_environment_and_stay_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with WireServer(vllm(text_event("a", "stop"), usage_event(1, 1))) as server:
        spec = PeerSpec("openai", url=server.url, key_variable="SOME_KEY")
        with pytest.raises(ConfigError) as missing:
            open_peer(spec, PeerLoad(model_name="m"), settings)
        assert "SOME_KEY" in missing.value.message
        monkeypatch.setenv("SOME_KEY", "sk-very-secret")
        with closing(open_peer(spec, PeerLoad(model_name="m"), settings)) as engine:
            list(engine.generate(ASK))
            assert "sk-very-secret" not in f"{engine.info} {engine.verified} {spec} {vars(engine)}"
        assert {headers.get("Authorization") for _m, _p, headers, _b in server.asked} == {"Bearer sk-very-secret"}


def test_fields_can_be_added_and_left_out(settings: Settings) -> None:
    with WireServer(vllm(text_event("a", "stop"), usage_event(1, 1))) as server:
        spec = PeerSpec("openai", url=server.url, fields={"ignore_eos": None, "top_k": 1})
        with closing(open_peer(spec, PeerLoad(model_name="m"), settings)) as engine:
            assert not engine.ends_can_be_ignored
            list(engine.generate(ASK))
        (body,) = server.bodies("/v1/completions")
    assert body["top_k"] == 1 and "ignore_eos" not in body


@pytest.mark.parametrize(
    "url", ["", "ftp://127.0.0.1", "http://", "http://user@127.0.0.1/", "http://[::1", "http://a:b"]
)
def test_addresses_that_are_none(url: str, settings: Settings) -> None:
    with pytest.raises(UsageError):
        site_of(url, settings)


def test_other_machines_are_only_for_those_who_say_so(settings: Settings) -> None:
    for url in ("http://192.0.2.1:8000/v1", "https://api.example.org/v1", "http://localhost.example.org"):
        with pytest.raises(UsageError):
            site_of(url, settings)
        assert not site_of(url, settings, remote=True).is_here
        with pytest.raises(Offline):
            site_of(url, replace(settings, offline=True), remote=True)
    for url in ("127.0.0.1:8000", "http://localhost:1", "http://[::1]:9/v1"):
        assert site_of(url, replace(settings, offline=True)).is_here


def test_closed_is_closed(settings: Settings) -> None:
    with WireServer(vllm()) as server:
        engine = open_peer(PeerSpec("openai", url=server.url), PeerLoad(model_name="m"), settings)
        engine.close()
        engine.close()
        with pytest.raises(EngineCrashed):
            list(engine.generate(ASK))


def test_against_bendis_own_server(settings: Settings, clean_environment: Path) -> None:
    with bendi_server(clean_environment) as url:
        load = PeerLoad(model_name="demo", settings={"threads": 1})
        with closing(open_peer(PeerSpec("openai", url=url), load, settings)) as engine:
            assert isinstance(engine, PeerEngine)
            assert engine.info.engine == "bendi" and engine.info.build
            for request in (CHAT, ASK, replace(ASK, prompt=(300, 301, 302))):
                chunks = list(engine.generate(request))
                assert "".join(chunk.text for chunk in chunks)
                assert chunks[-1].finish == "length" and usage_of(chunks[-1]).completion_tok == request.max_tokens
                assert all(chunk.text or chunk.reasoning for chunk in chunks[:-1])
            again = list(engine.generate(CHAT))
            assert usage_of(again[-1]).cached_tok > 0


def test_against_a_real_llama_server(settings: Settings, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = needed_build().server
    asked = PeerLoad(demo_model, settings={"context_tok": 512, "threads": 1})
    with closing(open_peer(PeerSpec("llama-server", program=str(program)), asked, settings)) as started:
        address = started._answers._address  # type: ignore[attr-defined]
        monkeypatch.setenv("THE_KEY", address.key)
        spec = PeerSpec("openai", url=f"http://127.0.0.1:{address.port}", key_variable="THE_KEY")
        load = PeerLoad(settings={"context_tok": 512, "threads": 1})
        with closing(open_peer(spec, load, settings)) as engine:
            assert engine.info.engine == "llama-server" and engine.info.build
            assert engine.verified.confirmed == {"context_tok": 512} and engine.verified.unconfirmed == ("threads",)
            *texts, last = engine.generate(replace(ASK, max_tokens=12))
            assert len(texts) > 3 and usage_of(last).completion_tok == 12
            assert last.timings and last.timings.tg_tok_s and last.timings.pp_tok_s
            same = [chunk.text for chunk in started.generate(replace(ASK, max_tokens=12))]
            assert "".join(same) == "".join(chunk.text for chunk in texts)
        assert os.path.exists(f"/proc/{started.pids[0]}"), "a server that ran before is left running"
