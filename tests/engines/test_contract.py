"""The engine contract, run over every engine: whatever is listed in ENGINES must pass all of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_engine import opener

import scripted_model
from bendi.engines import AnswersInLoop, Embedder, Engine, LoadRequest, LoopAnswers, Tokenizer, fake, wheel
from bendi.errors import ContextOverflow, EngineCrashed, RequestRejected
from bendi.hardware import detect_core_cpus
from bendi.messages import Arrivals, Cancellation, Chunk, GenerateRequest, Message, Sampling

ENGINES = ("fake", "wheel", "native")
CONTEXT_TOK = 512
QUESTION = (Message("user", "What is quantization, and why does it make a model smaller?"),)
GREEDY = Sampling(temperature=0.0)
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "memory_needed",
        "description": "Memory that a model needs",
        "parameters": {
            "type": "object",
            "properties": {"billions": {"type": "integer"}, "exact": {"type": "boolean"}},
            "required": ["billions", "exact"],
        },
    },
}
OTHER_TOOL: dict[str, Any] = {"type": "function", "function": {**TOOL["function"], "name": "other"}}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, demo_model: Path) -> Iterator[Engine]:
    load = LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK, threads=2)
    opened: Engine = opener(request.param)(load, None)
    yield opened
    opened.close()


def run(engine: Engine, request: GenerateRequest, cancel: Cancellation | None = None) -> tuple[str, Chunk]:
    """The whole text and the last chunk."""
    chunks = list(engine.generate(request, cancel))
    assert all(chunk.finish is None for chunk in chunks[:-1]), "only the last chunk ends an answer"
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def test_is_an_engine_and_a_tokenizer(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert isinstance(engine, Tokenizer)
    assert engine.info.context_tok == CONTEXT_TOK
    assert engine.info.train_context_tok >= CONTEXT_TOK
    assert engine.info.load_s >= 0


def test_who_does_not_read_along_gets_the_same_and_the_times(engine: Engine) -> None:
    request = GenerateRequest(messages=QUESTION, max_tokens=200, sampling=GREEDY, ignore_end=True)
    text, _last = run(engine, request)
    arrivals, came_s, said, last = Arrivals(), [], [], Chunk()
    began_s = time.monotonic()
    for last in engine.generate(replace(request, arrivals=arrivals)):
        came_s.append(arrivals.now_s() if arrivals.late else arrivals.note())
        said.append(last.text)
    assert "".join(said) == text and last.usage and last.usage.completion_tok > 8
    assert len(set(came_s)) > 2, "not all at once"
    assert came_s == sorted(came_s) and began_s <= came_s[0] and arrivals.heard_s
    assert came_s[-1] <= arrivals.heard_s <= time.monotonic()
    first_s = next(at_s for at_s, text in zip(came_s, said, strict=True) if text)
    assert last.timings and last.timings.ttft_s is not None
    # The engine's clock begins a little later.
    assert 0 <= last.timings.ttft_s <= first_s - began_s


def test_who_does_not_read_along_can_stop_it(engine: Engine) -> None:
    cancel = Cancellation()
    cancel.cancel()
    request = GenerateRequest(messages=QUESTION, max_tokens=400, sampling=GREEDY, ignore_end=True, arrivals=Arrivals())
    _text, last = run(engine, request, cancel)
    assert last.finish == "cancelled"


def test_progress_ends_at_one(engine: Engine, demo_model: Path) -> None:
    seen: list[float] = []
    name = "native" if engine.info.build.startswith("native") else engine.info.engine
    load = LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK)
    with closing(opener(name.replace("llama.cpp", "wheel"))(load, seen.append)):
        pass
    assert seen[-1] == 1.0
    assert all(0.0 <= fraction <= 1.0 for fraction in seen)


def test_threads_run_where_they_are_told(engine: Engine, demo_model: Path) -> None:
    cpus = detect_core_cpus()
    if engine.info.engine == "fake" or not cpus:
        pytest.skip("no threads that could be placed")
    name = "native" if engine.info.build.startswith("native") else "wheel"
    load = LoadRequest(demo_model, CONTEXT_TOK, threads=1, keep_to_cores=True, spread_numa=True)
    with closing(opener(name)(load, None)) as placed:
        assert os.sched_getaffinity(int(placed.info.details["pid"])) == {cpus[0]}
        request = GenerateRequest(messages=QUESTION, max_tokens=8, sampling=GREEDY)
        assert run(placed, request)[0] == run(engine, request)[0]


def test_streams_an_answer_with_usage_and_timings(engine: Engine) -> None:
    chunks = list(engine.generate(GenerateRequest(messages=QUESTION, max_tokens=24, sampling=GREEDY)))
    assert len([chunk for chunk in chunks if chunk.text]) > 5, "text comes in pieces"
    last = chunks[-1]
    assert last.text == ""
    assert last.finish in ("stop", "length")
    assert last.usage and last.usage.completion_tok >= 5
    assert last.usage.prompt_tok > 5
    assert last.timings and last.timings.ttft_s is not None
    assert last.timings.tg_tok_s and last.timings.tg_tok_s > 0


def test_counts_agree_with_usage(engine: Engine) -> None:
    assert isinstance(engine, Tokenizer)
    request = GenerateRequest(messages=(Message("system", "Be brief."), *QUESTION), max_tokens=1)
    _, last = run(engine, request)
    assert last.usage
    assert engine.count_tokens(request.messages, request) == last.usage.prompt_tok


@pytest.mark.parametrize("prompt", [None, "Why is", (1, 2, 3)])
@pytest.mark.parametrize("progress", [False, True])
def test_an_answer_that_is_broken_off_tells_what_it_had_read(
    engine: Engine, prompt: str | tuple[int, ...] | None, progress: bool
) -> None:
    messages = QUESTION if prompt is None else ()
    request = GenerateRequest(messages, prompt, max_tokens=200, ignore_end=True, sampling=GREEDY, progress=progress)
    whole = run(engine, replace(request, max_tokens=1))[1].usage
    cancel = Cancellation()
    chunks = []
    for chunk in engine.generate(request, cancel):
        chunks.append(chunk)
        if chunk.text:
            cancel.cancel()
    assert chunks[-1].finish == "cancelled"
    assert whole and chunks[-1].usage and chunks[-1].usage.prompt_tok == whole.prompt_tok > 1
    if isinstance(engine, AnswersInLoop):
        last = asyncio.run(broken_off(engine.answers, request))
        assert last.finish == "cancelled" and last.usage and last.usage.prompt_tok == whole.prompt_tok


async def broken_off(answers: LoopAnswers, request: GenerateRequest) -> Chunk:
    """The last chunk of an answer that is cancelled after its first words."""
    cancel, ended = Cancellation(), asyncio.get_running_loop().create_future()

    class Impatient:
        last: Chunk

        def take(self, chunks: Sequence[Chunk]) -> None:
            self.last = chunks[-1]
            if any(chunk.text for chunk in chunks):
                cancel.cancel()

        def ended(self, error: BaseException | None) -> None:
            ended.set_result(error)

    taker = Impatient()
    await answers.begin(request, cancel, taker)
    assert await asyncio.wait_for(ended, 10) is None
    return taker.last


def test_progress_with_the_prompt_is_told_where_it_takes_long_or_is_wanted(engine: Engine) -> None:
    def told(request: GenerateRequest) -> list[int]:
        return [chunk.progress.total_tok for chunk in engine.generate(request) if chunk.progress]

    short = GenerateRequest(QUESTION, max_tokens=1)
    long = GenerateRequest((Message("user", "What is quantization? " * 60),), max_tokens=1)
    if engine.info.engine == "fake":
        pytest.skip("it reads at once")
    assert told(short) == []
    assert told(replace(short, progress=True))[-1] == run(engine, short)[1].usage.prompt_tok  # type: ignore[union-attr]
    assert told(long)[-1] == run(engine, long)[1].usage.prompt_tok  # type: ignore[union-attr]
    tokens = GenerateRequest(prompt=(1,) * 3, max_tokens=1)
    assert told(tokens) == [] and told(replace(tokens, progress=True))[-1] == 3


def test_tokens_of_a_text(engine: Engine) -> None:
    assert isinstance(engine, Tokenizer)
    assert engine.tokenize("") == []
    text = "内存带宽决定速度 memory bandwidth"
    assert len(engine.tokenize(text)) > 2
    assert engine.tokenize(text) == engine.tokenize(text)


def test_max_tokens(engine: Engine) -> None:
    _, last = run(engine, GenerateRequest(messages=QUESTION, max_tokens=3, sampling=GREEDY))
    assert last.finish == "length"
    assert last.usage and last.usage.completion_tok == 3


def test_raw_prompt(engine: Engine) -> None:
    text, last = run(engine, GenerateRequest(prompt="What is quantization", max_tokens=5, sampling=GREEDY))
    assert text
    assert last.usage and last.usage.prompt_tok >= 2
    assert last.finish in ("length", "stop")


def test_stop_string_ends_the_text_before_it(engine: Engine) -> None:
    request = GenerateRequest(messages=QUESTION, max_tokens=40, sampling=GREEDY)
    whole, _ = run(engine, request)
    word = whole.split()[2]
    text, last = run(engine, replace(request, stop=(word,)))
    assert whole.startswith(text)
    assert word not in text
    assert last.finish == "stop"
    assert last.stopped_by == word


def test_greedy_is_repeatable(engine: Engine) -> None:
    request = GenerateRequest(messages=QUESTION, max_tokens=20, sampling=GREEDY)
    assert run(engine, request)[0] == run(engine, request)[0]


def test_seeds(engine: Engine) -> None:
    def text(seed: int) -> str:
        # Hot enough that a well-trained model, too, has something to choose.
        sampling = Sampling(temperature=5.0, seed=seed, top_k=0, top_p=1.0, min_p=0.0)
        return run(engine, GenerateRequest(messages=QUESTION, max_tokens=24, sampling=sampling))[0]

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("alternatives", [0, 3])
def test_logprobs(engine: Engine, raw: bool, alternatives: int) -> None:
    request = GenerateRequest(messages=QUESTION, max_tokens=8, sampling=GREEDY, logprobs=alternatives)
    if raw:
        request = replace(request, messages=(), prompt="What is quantization")
    chunks = list(engine.generate(request))
    told = [token for chunk in chunks for token in chunk.logprobs]
    assert b"".join(token.token_bytes for token in told).decode() == "".join(chunk.text for chunk in chunks)
    assert chunks[-1].usage and len(told) == chunks[-1].usage.completion_tok
    for token in told:
        assert token.logprob <= 0
        assert len(token.alternatives) == alternatives
        if alternatives:
            assert token.alternatives[0].token_bytes == token.token_bytes, "greedy takes the likeliest"
            assert token.alternatives[0].logprob == token.logprob
            odds = [other.logprob for other in token.alternatives]
            assert odds == sorted(odds, reverse=True)


def test_no_logprobs_unasked(engine: Engine) -> None:
    chunks = list(engine.generate(GenerateRequest(messages=QUESTION, max_tokens=4, sampling=GREEDY)))
    assert not any(chunk.logprobs for chunk in chunks)


@pytest.mark.parametrize("raw", [False, True])
def test_logit_bias_forbids_a_token(engine: Engine, raw: bool) -> None:
    assert isinstance(engine, Tokenizer)
    request = GenerateRequest(messages=QUESTION, max_tokens=1, sampling=GREEDY, logprobs=0)
    if raw:
        request = replace(request, messages=(), prompt="What is quantization")
    first, _ = run(engine, request)
    (token,) = engine.tokenize(first)
    assert first not in run(engine, replace(request, logit_bias={token: -100.0}))[0]


def test_bias_of_a_token_that_does_not_exist(demo_model: Path) -> None:
    with closing(wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=256))) as engine:
        for token in (-1, 10**6):
            with pytest.raises(RequestRejected) as caught:
                run(engine, GenerateRequest(messages=QUESTION, logit_bias={token: 1.0}))
            assert str(token) in caught.value.message


def test_json_schema(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"bits": {"type": "integer"}, "good": {"type": "boolean"}},
        "required": ["bits", "good"],
        "additionalProperties": False,
    }
    text, _ = run(engine, GenerateRequest(messages=QUESTION, max_tokens=100, sampling=GREEDY, json_schema=schema))
    answer = json.loads(text)
    assert isinstance(answer["bits"], int) and isinstance(answer["good"], bool)


def test_bad_json_schema_is_rejected(engine: Engine) -> None:
    with pytest.raises(RequestRejected) as caught:
        run(engine, GenerateRequest(messages=QUESTION, json_schema={"type": "nonsense"}))
    assert caught.value.hint


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "memory_needed"}}])
@pytest.mark.parametrize("name", ENGINES)
def test_tool_call(name: str, choice: str | dict[str, Any], tmp_path: Path) -> None:
    path = scripted_model.write(tmp_path / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    load = LoadRequest(model_path=path, context_tok=2048)
    with closing(opener(name)(load, None)) as engine:
        request = GenerateRequest(
            messages=QUESTION, tools=(TOOL, OTHER_TOOL), tool_choice=choice, sampling=GREEDY, max_tokens=200
        )
        assert engine.count_tokens(QUESTION, request) > engine.count_tokens(QUESTION), "tools are part of the prompt"
        chunks = list(engine.generate(request))
        last = chunks[-1]
        assert last.finish == "tool_calls"
        (call,) = last.tool_calls
        deltas = [delta for chunk in chunks for delta in chunk.tool_deltas]
        assert len(deltas) > 2, "calls come in pieces"
        assert (deltas[0].index, deltas[0].id, deltas[0].name) == (0, call.id, call.name) and call.id
        assert not any(delta.id or delta.name for delta in deltas[1:])
        assert "".join(delta.arguments for delta in deltas) == call.arguments
        assert call.name in ("memory_needed", "other") if choice == "required" else call.name == "memory_needed"
        arguments = json.loads(call.arguments)
        assert isinstance(arguments["billions"], int) and isinstance(arguments["exact"], bool)


@pytest.mark.parametrize("name", ENGINES)
def test_demanding_a_tool_that_is_not_there(name: str, tmp_path: Path) -> None:
    path = scripted_model.write(tmp_path / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE)
    choice = {"type": "function", "function": {"name": "absent"}}
    with closing(opener(name)(LoadRequest(model_path=path), None)) as engine:
        with pytest.raises(RequestRejected) as caught:
            run(engine, GenerateRequest(messages=QUESTION, tools=(TOOL,), tool_choice=choice))
        assert caught.value.hint


def test_tools_are_refused_where_the_template_would_drop_them(demo_model: Path) -> None:
    with closing(wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK))) as engine:
        with pytest.raises(RequestRejected) as caught:
            run(engine, GenerateRequest(messages=QUESTION, tools=(TOOL,)))
        assert "tools" in caught.value.message
        text, _ = run(engine, GenerateRequest(messages=QUESTION, tools=(TOOL,), tool_choice="none", max_tokens=3))
        assert text


def test_overflow_is_refused_with_numbers(engine: Engine) -> None:
    long = (Message("user", "memory bandwidth " * CONTEXT_TOK),)
    with pytest.raises(ContextOverflow) as caught:
        run(engine, GenerateRequest(messages=long))
    assert caught.value.needed_tok > caught.value.available_tok == CONTEXT_TOK
    assert "--policy" in caught.value.hint
    text, _ = run(engine, GenerateRequest(messages=QUESTION, max_tokens=3))
    assert text, "the engine goes on after a refusal"


def test_closing_the_iterator_stops(engine: Engine) -> None:
    answer = engine.generate(GenerateRequest(messages=QUESTION))
    next(iter(answer))
    answer.close()  # type: ignore[attr-defined]
    text, _ = run(engine, GenerateRequest(messages=QUESTION, max_tokens=3))
    assert text


def test_cancel_from_another_thread(engine: Engine) -> None:
    cancel = Cancellation()
    chunks = []
    for chunk in engine.generate(GenerateRequest(messages=QUESTION), cancel):
        chunks.append(chunk)
        if len(chunks) == 2:
            thread = threading.Thread(target=cancel.cancel)
            thread.start()
            thread.join()
    assert chunks[-1].finish == "cancelled"
    assert len(chunks) == 3, "nothing of the answer comes after the cancellation"


def test_cancelled_before_it_starts(engine: Engine) -> None:
    cancel = Cancellation()
    cancel.cancel()
    text, last = run(engine, GenerateRequest(messages=QUESTION), cancel)
    assert last.finish == "cancelled"
    assert text == ""


def test_requests_from_several_threads(engine: Engine) -> None:
    results: list[str] = []

    def ask() -> None:
        results.append(run(engine, GenerateRequest(messages=QUESTION, max_tokens=12, sampling=GREEDY))[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1


@pytest.mark.parametrize("name", ENGINES)
def test_embeddings(name: str, demo_model: Path) -> None:
    load = LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK, embeddings=True)
    with closing(opener(name)(load, None)) as engine:
        assert isinstance(engine, Embedder)
        a, b, c = engine.embed(["what is a KV cache?", "what is a KV cache?", "天气怎么样"])
        assert abs(sum(x * x for x in a) - 1) < 1e-3
        similar = sum(x * y for x, y in zip(a, b, strict=True))
        different = sum(x * y for x, y in zip(a, c, strict=True))
        assert similar > 0.999 > different
        assert engine.embed([]) == []


@pytest.mark.parametrize("name", ENGINES)
def test_vectors_of_texts_and_of_tokens(name: str, demo_model: Path) -> None:
    load = LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK, embeddings=True)
    with closing(opener(name)(load, None)) as engine:
        tokens = engine.tokenize("what is a KV cache?")
        one, two = engine.vectors(["memory bandwidth"]), engine.vectors([tokens, "memory bandwidth"])
        assert two.vectors[1] == pytest.approx(one.vectors[0], abs=1e-5)
        assert two.prompt_tok == one.prompt_tok + len(tokens)
        assert engine.vectors([]).prompt_tok == 0


@pytest.mark.parametrize("name", ENGINES)
def test_an_input_that_is_too_long_is_never_cut(name: str, demo_model: Path) -> None:
    load = LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK, embeddings=True)
    with closing(opener(name)(load, None)) as engine:
        long = "memory bandwidth " * CONTEXT_TOK
        with pytest.raises(ContextOverflow) as caught:
            engine.vectors(["short", long])
        assert caught.value.needed_tok > caught.value.available_tok == CONTEXT_TOK
        assert caught.value.hint
        # Longer than a batch is by default: it must be computed at once all the same.
        (fits,) = engine.vectors(["带宽" * 250]).vectors
        assert abs(sum(x * x for x in fits) - 1) < 1e-3


@pytest.mark.parametrize("name", ENGINES)
def test_cancelled_vectors(name: str, demo_model: Path) -> None:
    load = LoadRequest(model_path=demo_model, context_tok=CONTEXT_TOK, embeddings=True)
    with closing(opener(name)(load, None)) as engine:
        cancel = Cancellation()
        cancel.cancel()
        assert engine.vectors(["memory bandwidth"], cancel).vectors == []
        assert len(engine.vectors(["memory bandwidth"]).vectors) == 1, "the engine goes on"


def test_images_are_refused_by_a_model_that_cannot_see(engine: Engine) -> None:
    with pytest.raises(RequestRejected) as caught:
        run(engine, GenerateRequest(messages=(Message("user", "What is this?", images=(b"GIF89a",)),)))
    assert caught.value.hint


@pytest.mark.parametrize("name", ENGINES)
def test_reasoning_is_kept_apart(name: str, thinking_model: Path) -> None:
    load = LoadRequest(model_path=thinking_model, context_tok=CONTEXT_TOK)
    with closing(opener(name)(load, None)) as engine:
        request = GenerateRequest(
            messages=QUESTION, max_tokens=16, sampling=GREEDY, template_options={"enable_thinking": True}
        )
        chunks = list(engine.generate(request))
        assert "".join(chunk.reasoning for chunk in chunks).strip()
        assert "<think>" not in "".join(chunk.text + chunk.reasoning for chunk in chunks)
        plain = list(engine.generate(replace(request, template_options={"enable_thinking": False})))
        assert not any(chunk.reasoning for chunk in plain)
        assert "".join(chunk.text for chunk in plain).strip()


@pytest.mark.parametrize("name", ENGINES)
def test_thinking_ends_where_the_request_says(name: str, thinking_model: Path) -> None:
    with closing(opener(name)(LoadRequest(model_path=thinking_model, context_tok=CONTEXT_TOK), None)) as engine:
        request = GenerateRequest(
            messages=QUESTION, max_tokens=48, sampling=GREEDY, template_options={"enable_thinking": True}
        )
        thoughts = [chunk.reasoning for chunk in engine.generate(request) if chunk.reasoning]
        assert len(thoughts) > 2
        chunks = list(engine.generate(replace(request, thinking_tok=2)))
        short = [chunk.reasoning for chunk in chunks if chunk.reasoning]
        # The line break that a template puts behind the beginning may count, too.
        assert short in (thoughts[:1], thoughts[:2])
        assert "".join(chunk.text for chunk in chunks).strip()


@pytest.mark.parametrize("name", ENGINES)
def test_closed_engine_says_so(name: str, demo_model: Path) -> None:
    engine = opener(name)(LoadRequest(model_path=demo_model, context_tok=256), None)
    engine.close()
    engine.close()
    with pytest.raises(EngineCrashed):
        list(engine.generate(GenerateRequest(messages=QUESTION)))


def test_fake_delay_is_cancelled_quickly() -> None:
    engine = fake.FakeEngine(LoadRequest(model_path=Path("none")), delay_s=30.0)
    cancel = Cancellation()
    threading.Timer(0.05, cancel.cancel).start()
    started_s = time.monotonic()
    _, last = run(engine, GenerateRequest(messages=QUESTION), cancel)
    assert last.finish == "cancelled"
    assert time.monotonic() - started_s < 30.0
