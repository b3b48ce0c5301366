"""From an engine to the event loop, through a thread or without one: order, batches, back-pressure, cancellation,
errors; nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_engines import question

from bendi.engines import LoadRequest, Taker
from bendi.engines.fake import FakeEngine
from bendi.errors import BendiError, EngineCrashed, OutOfMemory
from bendi.messages import Cancellation, Chunk, GenerateRequest, PromptProgress, TokenLogprob, Usage
from bendi.server.api_errors import ApiError
from bendi.server.running import Answering, Running, merged
from bendi.server.running_in_loop import RunningInLoop


class ScriptedEngine(FakeEngine):
    """Yields what it is told to, as fast as it is read; then raises `error`, if there is one."""

    def __init__(self, chunks: list[Chunk], error: BaseException | None = None) -> None:
        super().__init__(LoadRequest(Path("none")))
        self.chunks, self.error = chunks, error
        self.yielded = 0

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        for chunk in self.chunks:
            if cancel and cancel.cancelled:
                yield Chunk(finish="cancelled", usage=Usage(1, self.yielded))
                return
            self.yielded += 1
            yield chunk
        if self.error:
            raise self.error


class InLoop:
    """The answers of a fake engine, two chunks at a time, without a thread."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._flows = asyncio.Event()
        self._flows.set()

    async def begin(self, request: GenerateRequest, cancel: Cancellation, taker: Taker) -> InLoop:
        cancel.on_cancel(self._flows.set)
        self._task = asyncio.create_task(self._answer(request, cancel, taker), name="bendi answer")
        return self

    def pause(self) -> None:
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    async def _answer(self, request: GenerateRequest, cancel: Cancellation, taker: Taker) -> None:
        batch: list[Chunk] = []
        problem = None
        try:
            for chunk in self._engine.generate(request, cancel):
                batch.append(chunk)
                if len(batch) == 2:
                    taker.take(batch)
                    batch = []
                    await asyncio.sleep(0)
                    await self._flows.wait()
        except BendiError as error:
            problem = error
        if batch:
            taker.take(batch)
        taker.ended(problem)


def in_loop(engine: FakeEngine, request: GenerateRequest, stall_s: float = 60.0) -> RunningInLoop:
    running = RunningInLoop(stall_s)
    beginning = asyncio.create_task(running.begin(InLoop(engine), request))
    running.when_ended(beginning.done)  # which holds it as long
    return running


Run = Callable[..., Answering]
both = pytest.mark.parametrize("run", [Running, in_loop])


async def chunks_of(answer: Answering) -> AsyncGenerator[Chunk, None]:
    """All chunks; leaving it stops the engine."""
    try:
        while batch := await answer.batch():
            for chunk in batch:
                yield chunk
    finally:
        answer.stop()


def answer_threads() -> list[str]:
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in [*(thread.name for thread in threading.enumerate()), *tasks] if name == "bendi answer"]


async def until_ended() -> None:
    for _attempt in range(400):
        if not answer_threads():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("a thread is left")


@both
def test_nothing_is_lost_and_the_order_is_kept(run: Run) -> None:
    chunks = [Chunk(text=f"{number} ") for number in range(5000)]
    chunks.append(Chunk(finish="stop", usage=Usage(3, 5000)))

    async def main() -> None:
        read = [chunk async for chunk in chunks_of(run(ScriptedEngine(chunks), question()))]
        assert "".join(chunk.text for chunk in read) == "".join(chunk.text for chunk in chunks)
        assert read[-1] == chunks[-1]
        assert len(read) < 5000  # what arrived together is one chunk
        await until_ended()

    asyncio.run(main())


@both
def test_many_answers_at_once(run: Run) -> None:
    async def one(number: int) -> str:
        engine = FakeEngine(LoadRequest(Path("none")), delay_s=0.001)
        running = run(engine, question(f"a{number} b{number}", max_tokens=40))
        return "".join([chunk.text async for chunk in chunks_of(running)])

    async def main() -> None:
        texts = await asyncio.gather(*(one(number) for number in range(40)))
        assert all(text.startswith(f"a{number} b{number}") for number, text in enumerate(texts))
        await until_ended()

    asyncio.run(main())


@both
def test_closing_stops_the_engine(run: Run) -> None:
    async def main() -> None:
        engine = FakeEngine(LoadRequest(Path("none")), delay_s=0.01)
        running = run(engine, question("word " * 100))
        ended = asyncio.Event()
        chunks = chunks_of(running)
        await anext(chunks)
        started_s = time.monotonic()
        await chunks.aclose()
        running.when_ended(ended.set)
        await ended.wait()
        assert time.monotonic() - started_s < 0.2
        assert not answer_threads()
        assert running.last is not None and running.last.finish == "cancelled"
        late = asyncio.Event()
        running.when_ended(late.set)
        assert late.is_set()

    asyncio.run(main())


@both
def test_a_cancelled_task_stops_the_engine(run: Run) -> None:
    async def main() -> None:
        engine = FakeEngine(LoadRequest(Path("none")), delay_s=0.01)

        async def read() -> None:
            async for _chunk in chunks_of(run(engine, question("word " * 100))):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_ended()

    asyncio.run(main())


@both
def test_a_slow_reader_slows_the_engine_and_loses_nothing(run: Run) -> None:
    async def main() -> None:
        engine = ScriptedEngine([Chunk(text="x", logprobs=(TokenLogprob("x", b"x", -0.1),))] * 2000)
        running = run(engine, question())
        await asyncio.sleep(0.1)
        assert engine.yielded < 400
        read = 0
        while batch := await running.batch():
            read += len(batch)
            await asyncio.sleep(0.001)
        assert read == 2000

    asyncio.run(main())


@both
def test_progress_with_a_short_prompt_comes_with_the_first_word(run: Run) -> None:
    async def main() -> None:
        progress = [Chunk(progress=PromptProgress(done, 2)) for done in (1, 2)]
        engine = ScriptedEngine([*progress, Chunk(text="x"), Chunk(finish="stop", usage=Usage(2, 1))])
        batch = await run(engine, question()).batch()
        assert [chunk.progress for chunk in batch[:2]] == [chunk.progress for chunk in progress]
        assert batch[2].text == "x"

    asyncio.run(main())


@both
def test_who_does_not_read_at_all_is_told_and_the_engine_stops(run: Run) -> None:
    async def main() -> None:
        engine = ScriptedEngine([Chunk(text="x", logprobs=(TokenLogprob("x", b"x", -0.1),))] * 100_000)
        running = run(engine, question(), stall_s=0.1)
        await asyncio.sleep(0.05)
        await until_ended()
        assert engine.yielded < 400
        with pytest.raises(ApiError) as caught:
            while await running.batch():
                pass
        assert caught.value.code == "client_too_slow"

    asyncio.run(main())


@pytest.mark.parametrize("before", [0, 3])
@both
def test_errors_come_after_what_was_said_before_them(run: Run, before: int) -> None:
    async def main() -> None:
        engine = ScriptedEngine([Chunk(text="x")] * before, EngineCrashed("The engine stopped (exit code -11)."))
        text = ""
        with pytest.raises(EngineCrashed):
            async for chunk in chunks_of(run(engine, question())):
                text += chunk.text
        assert text == "x" * before
        await until_ended()

    asyncio.run(main())


@both
def test_a_worker_that_is_killed_has_crashed(run: Run) -> None:
    async def main() -> None:
        engine = ScriptedEngine([], OutOfMemory("The engine was ended.", hint="Use a smaller context."))
        with pytest.raises(EngineCrashed) as caught:
            await run(engine, question()).batch()
        assert "smaller" not in caught.value.hint

    asyncio.run(main())


CHUNKS = st.builds(
    Chunk,
    text=st.text(max_size=3),
    reasoning=st.text(max_size=3),
    logprobs=st.sampled_from([(), (TokenLogprob("a", b"a", -1.0),)]),
    progress=st.sampled_from([None, PromptProgress(1, 2)]),
)


@given(st.lists(CHUNKS, max_size=20))
def test_merging_changes_no_answer(chunks: list[Chunk]) -> None:
    together = list(merged(chunks))
    assert len(together) <= len(chunks)
    for field in ("text", "reasoning"):
        assert "".join(getattr(c, field) for c in together) == "".join(getattr(c, field) for c in chunks)
    assert [c for c in together if c.logprobs or c.progress] == [c for c in chunks if c.logprobs or c.progress]
    assert sum(chunk.pieces for chunk in together) == len(chunks)
