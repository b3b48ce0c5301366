"""What a real engine did is kept beside what was predicted, and of a conversation only numbers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import bendi
import scripted_model
from bendi.engines import Embedder, Engine, LoadRequest, Tokenizer, open_recorded_engine, wheel
from bendi.engines.llama_http import LlamaServerEngine
from bendi.errors import BendiError
from bendi.hardware import detect_cpu, detect_machine
from bendi.measured import MeasuredStore, history, machine_id
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message, Sampling
from bendi.planner.calibration import AttentionRates, Calibration, DeviceRates, TypeRates
from bendi.planner.calibration_runs import to_json
from bendi.planner.layers import model_work
from bendi.planner.speed import generation_s, load_s, prompt_s
from bendi.settings import Settings, load_settings

QUESTION = GenerateRequest(
    messages=(Message("user", "What is quantization?"),), max_tokens=12, sampling=Sampling(temperature=0.0)
)
SECRET = "zyzzyva"
# Slower than any machine with this model, so that a busy machine is still within what is plausible.
RATES = TypeRates(1e9, 4e9, 2e9, 1e9)
CALIBRATION = Calibration(
    machine="",
    build="",
    measured_at="",
    took_s=1.0,
    cpu=DeviceRates(
        name="cpu",
        threads=2,
        types={"Q8_0": RATES, "F32": RATES},
        attention={"f16": AttentionRates(1e-9, 1e-11, 1e-11, 1e-9, 1e-11)},
        token_s=1e-5,
        layer_s=1e-5,
        vocabulary_s=1e-9,
        prompt_layer_s=1e-7,
        start_s=0.05,
    ),
    memory_read_bytes_s=1e10,
    disk_read_bytes_s=1e9,
    noise=1.25,
    spread=0.1,
)


@pytest.fixture
def settings() -> Settings:
    return load_settings()


@pytest.fixture
def store(settings: Settings) -> Iterator[MeasuredStore]:
    with closing(MeasuredStore(settings.measured_file)) as opened:
        yield opened


def ask(engine: Engine, request: GenerateRequest = QUESTION) -> Chunk:
    return list(engine.generate(request))[-1]


def opened(demo_model: Path, settings: Settings, **load: int) -> LlamaServerEngine:
    engine = open_recorded_engine(LoadRequest(demo_model, **{"context_tok": 512, **load}), settings, name="demo")
    assert isinstance(engine, LlamaServerEngine)
    return engine


def test_load_and_answers_are_kept(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        assert isinstance(engine, Tokenizer) and isinstance(engine, Embedder)
        assert not settings.measured_file.exists(), "nothing is opened before the first answer has ended"
        last = ask(engine)
        again = ask(engine)
        info, need = engine.info, engine.prepared.need
    (load,) = store.loads()
    assert (load.model, load.architecture, load.quantization) == ("demo", "qwen3", "Q8_0")
    assert (load.build, load.context_tok, load.parallel, load.type_k) == (info.build, 512, 1, "f16")
    assert load.machine_id == machine_id(detect_machine())
    assert load.predicted.total_bytes == need.total_bytes
    assert load.real and load.real.total_bytes == pytest.approx(need.total_bytes, rel=0.01)
    assert 0 < info.load_s <= load.load_s
    assert load.predicted_load_s is None, "without a calibration"
    second, first = store.answers()
    for row, chunk in ((first, last), (second, again)):
        assert chunk.usage and chunk.timings
        assert (row.prompt_tok, row.cached_tok) == (chunk.usage.prompt_tok, chunk.usage.cached_tok)
        assert row.completion_tok == chunk.usage.completion_tok
        assert (row.pp_tok_s, row.tg_tok_s) == (chunk.timings.pp_tok_s, chunk.timings.tg_tok_s)
        assert row.predicted_tg_tok_s is None
    assert second.cached_tok > 0
    assert [row.answers for row in history(store)] == [2]


def test_predictions_of_the_stored_calibration(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        build, headers = engine.info.build, engine.prepared.headers
    machine = machine_id(detect_machine())
    store.save_calibration(machine, build, to_json([CALIBRATION]))
    long = replace(QUESTION, messages=(Message("user", "memory bandwidth " * 30),))
    with closing(opened(demo_model, settings, threads=2)) as engine:
        ask(engine, long)
        ask(engine, long)
    with closing(opened(demo_model, settings, threads=1)) as engine:
        ask(engine)
    work, cpu = model_work(*headers), CALIBRATION.cpu
    other_threads, cached, row = store.answers()
    assert row.cached_tok == 0
    assert row.predicted_pp_tok_s == pytest.approx(row.prompt_tok / (1.25 * prompt_s(work, cpu, row.prompt_tok)))
    assert row.predicted_tg_tok_s == pytest.approx(1 / (1.25 * generation_s(work, cpu, row.depth_tok)))
    new_tok = cached.prompt_tok - cached.cached_tok
    assert cached.cached_tok > 0
    expected_s = 1.25 * prompt_s(work, cpu, new_tok, cached.cached_tok)
    assert cached.predicted_pp_tok_s == pytest.approx(new_tok / expected_s)
    assert other_threads.predicted_tg_tok_s is None, "the calibration is for another number of threads"
    load = store.loads()[1]
    assert load.predicted_load_s == pytest.approx(load_s(work, CALIBRATION, cold=False))
    assert load.predicted_cold_load_s == pytest.approx(load_s(work, CALIBRATION, cold=True))
    residual = store.residuals(machine, build, load.model_key)
    assert (residual.pp.n, residual.tg.n) == (1, 2), "of a cached prompt too little is computed to be measured"
    assert residual.tg.median > 0


def test_a_calibration_that_cannot_be_used(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        store.save_calibration(machine_id(detect_machine()), engine.info.build, "{nonsense")
        assert ask(engine).finish
    assert store.answers()[0].predicted_tg_tok_s is None


def test_what_was_broken_off_is_not_an_answer(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        cancel = Cancellation()
        for _chunk in engine.generate(QUESTION, cancel):
            cancel.cancel()
        with suppress(AttributeError):
            left = engine.generate(QUESTION)
            next(iter(left))
            left.close()  # type: ignore[attr-defined]
        with pytest.raises(BendiError):
            ask(engine, replace(QUESTION, messages=(Message("user", "a b c " * 2000),)))
    assert store.answers() == []
    assert len(store.loads()) == 1, "a load without an answer is kept when it ends"


def test_an_answer_is_kept_when_nobody_reads_on(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        for chunk in engine.generate(QUESTION):
            if chunk.finish:
                break
    assert len(store.answers()) == 1


def test_answers_of_a_loop_are_kept_together(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    """Not while the next question may come; at the latest when the engine is closed."""

    class Taking:
        def __init__(self) -> None:
            self.ends: list[BaseException | None] = []

        def take(self, chunks: Sequence[Chunk]) -> None:
            pass

        def ended(self, error: BaseException | None) -> None:
            self.ends.append(error)

    async def main(engine: LlamaServerEngine) -> None:
        taking = Taking()
        for number in (1, 2):
            await engine.answers.begin(QUESTION, Cancellation(), taking)
            while len(taking.ends) < number:
                await asyncio.sleep(0.001)
        assert taking.ends == [None, None]
        assert not settings.measured_file.exists()

    with closing(opened(demo_model, settings)) as engine:
        asyncio.run(main(engine))
    second, first = store.answers()
    assert first.cached_tok == 0 < second.cached_tok
    with closing(opened(demo_model, settings)) as engine:

        async def waiting() -> None:
            taking = Taking()
            await engine.answers.begin(QUESTION, Cancellation(), taking)
            while len(store.answers()) < 3:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(waiting(), 30))


def test_answers_at_the_same_time_are_not_compared(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        store.save_calibration(machine_id(detect_machine()), engine.info.build, to_json([CALIBRATION]))
        first = engine.generate(QUESTION)
        next(iter(first))
        thread = threading.Thread(target=ask, args=(engine,))
        thread.start()
        thread.join()
        list(first)
        ask(engine)
    assert [row.predicted_tg_tok_s is None for row in store.answers()] == [False, True, True]


def test_the_file_may_vanish(demo_model: Path, settings: Settings, store: MeasuredStore) -> None:
    with closing(opened(demo_model, settings)) as engine:
        ask(engine)
        store.close()
        for file in settings.state_dir.iterdir():
            file.unlink()
        ask(engine)
        ask(engine)
    assert (len(store.loads()), len(store.answers())) == (1, 1)


def test_where_nothing_can_be_kept_one_notice_is_given(
    demo_model: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean_environment / "file").write_text("")
    monkeypatch.setenv("BENDI_STATE", str(clean_environment / "file" / "state"))
    notices: list[str] = []
    load = LoadRequest(demo_model, context_tok=512)
    with closing(open_recorded_engine(load, load_settings(), on_notice=notices.append)) as engine:
        assert ask(engine).finish and ask(engine).finish
    assert len(notices) == 1 and "measured.sqlite3" in notices[0]


def test_from_python(settings: Settings, store: MeasuredStore) -> None:
    with bendi.load("demo", context_tok=512) as model:
        list(model.chat("hello", max_tokens=3))
    assert [load.model for load in store.loads()] == ["demo"]
    assert len(store.answers()) == 1


def test_other_engines_are_not_recorded(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    fake = replace(settings, engine="fake")
    with closing(open_recorded_engine(LoadRequest(Path("none")), fake)) as engine:
        assert ask(engine).finish
    assert not settings.measured_file.exists()


def requests_with_a_secret() -> list[GenerateRequest]:
    tool = {"type": "function", "function": {"name": SECRET, "parameters": {"type": "object", "properties": {}}}}
    message = (Message("system", SECRET), Message("user", f"tell me of {SECRET}"))
    plain = GenerateRequest(messages=message, max_tokens=4)
    schema = {"type": "object", "properties": {SECRET: {"enum": [SECRET]}}, "required": [SECRET]}
    return [
        plain,
        GenerateRequest(prompt=SECRET, max_tokens=4),
        replace(plain, stop=(SECRET,)),
        replace(plain, json_schema=schema, max_tokens=40),
        replace(plain, tools=(tool,), tool_choice="required", max_tokens=100),
        replace(plain, template_options={SECRET: SECRET}),
        replace(plain, messages=(Message("user", SECRET * 3000),)),
        replace(plain, messages=(*message, Message("assistant", SECRET, reasoning=SECRET), *message[1:])),
    ]


@pytest.mark.parametrize("model", ["demo", "thinking", "tools"])
def test_neither_log_nor_measurements_hold_a_word(
    model: str, demo_model: Path, thinking_model: Path, settings: Settings, tmp_path: Path
) -> None:
    path = {"demo": demo_model, "thinking": thinking_model}.get(model) or scripted_model.write(
        tmp_path / "tools.gguf", scripted_model.CALLS_A_TOOL, scripted_model.TOOL_TEMPLATE
    )
    answered = 0
    with closing(opened(path, settings, context_tok=2048)) as engine:
        for request in requests_with_a_secret():
            with suppress(BendiError):
                answered += ask(engine, request).usage is not None
        engine.count_tokens((Message("user", SECRET),))
        engine.tokenize(SECRET)
        assert answered >= 6
        assert engine.worker.log.count("print_timing") > 6
        assert SECRET not in engine.worker.log
        assert engine._address.key not in engine.worker.log
    for file in settings.state_dir.iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_embeddings_leave_no_word_in_the_log(demo_model: Path) -> None:
    with closing(wheel.open_engine(LoadRequest(demo_model, context_tok=512, embeddings=True))) as engine:
        engine.embed([SECRET, "other"])
        with suppress(BendiError):
            engine.embed([SECRET * 3000])
        assert SECRET not in engine.worker.log


def test_nothing_of_an_unsaved_conversation_is_kept(settings: Settings) -> None:
    command = [sys.executable, "-m", "bendi", "run", "demo", "hello", "--max-tokens", "3"]
    subprocess.run([*command, "--no-save"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert not settings.measured_file.exists()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert settings.measured_file.exists()
    assert b"measure" not in done.stderr


def test_calibrated_threads_are_used(demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_STATE", str(tmp_path))
    settings, cores = load_settings(), detect_cpu().usable_cores
    cpu = DeviceRates("x", cores + 3, {}, {}, 0.0, 0.0, 0.0, 0.0)
    known = Calibration("here", "a build", "2026-11-21", 1.0, cpu, 1.0, 1.0, 1.0, 0.0, {cores: 0.5})
    with closing(MeasuredStore(settings.measured_file)) as store:
        store.save_calibration("here", "a build", to_json([known]))
    for asked, used in ((None, cores + 3), (1, 1)):
        load = LoadRequest(demo_model, context_tok=512, threads=asked)
        with closing(open_recorded_engine(load, settings)) as engine:
            list(engine.generate(GenerateRequest(prompt="a", max_tokens=1)))
        with closing(MeasuredStore(settings.measured_file)) as store:
            assert store.loads()[0].threads == used
