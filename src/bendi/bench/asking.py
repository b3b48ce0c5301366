"""Asks an engine and notes when every piece came. Nothing else is done meanwhile: what came is read afterwards."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from bendi.engines.protocol import Engine, HostedEngine
from bendi.errors import EngineError
from bendi.i18n import _
from bendi.messages import Arrivals, Cancellation, GenerateRequest
from bendi.results import Answer

T = TypeVar("T")
_LOOK_PERIOD_S = 0.05
"""Each look takes the processor from the engine, whose threads then wait for each other: 200 a second were 1.2 % of a
core."""


@dataclass(frozen=True)
class Told:
    """An answer, and what it said."""

    answer: Answer
    text: str


def ask(engine: Engine, request: GenerateRequest, began_s: float, watch: Watch | None = None) -> Told:
    """One answer. `began_s`: of the window, by `time.monotonic`. Raises EngineError, also when nothing came for too
    long (`watch`)."""
    cancel, noted = Cancellation(), Arrivals()
    arrivals: list[float] = []
    pieces: list[str] = []
    last = None
    started_s = time.monotonic()
    hurry = watch.expect(cancel, noted) if watch else None
    try:
        for chunk in engine.generate(replace(request, arrivals=noted), cancel):
            came_s = noted.now_s() if noted.late else noted.note()
            if chunk.text or chunk.reasoning:
                arrivals.append(round(came_s - started_s, 6))
                pieces.append(chunk.reasoning or chunk.text)
            last = chunk if chunk.finish else last
        ended_s = noted.heard_s or time.monotonic()
    finally:
        if watch and hurry:
            watch.forget(hurry)
    if hurry and hurry.late:
        raise EngineError(_("Nothing came from the engine for {seconds:g} seconds.").format(seconds=hurry.limit_s))
    if last is None or last.usage is None:
        raise EngineError(_("The engine did not say how many tokens it took."), hint="bendi bench engines")
    timings, usage, text = last.timings, last.usage, "".join(pieces)
    together = Counter(arrivals)  # in their order
    one_each = len(arrivals) == usage.completion_tok
    return Told(
        Answer(
            started_s=started_s - began_s,
            ended_s=ended_s - began_s,
            arrivals_s=tuple(together),
            arrival_tok=tuple(together.values()) if one_each else (),
            prompt_tok=usage.prompt_tok,
            completion_tok=usage.completion_tok,
            cached_tok=usage.cached_tok if getattr(usage, "cached_known", True) else None,
            finish=last.finish or "",
            server_pp_tok_s=timings.pp_tok_s if timings else None,
            server_tg_tok_s=timings.tg_tok_s if timings else None,
            server_ttft_s=None,
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        ),
        text,
    )


def together(tasks: Sequence[Callable[[], T]], concurrency: int, watch: Watch) -> list[T]:
    """What each gives, `concurrency` at a time, in their order. What one raises ends the others."""
    if concurrency == 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(concurrency) as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            return [each.result() for each in running]
        except BaseException:
            for each in running:
                each.cancel()
            watch.give_up()
            raise


def ask_together(
    engine: Engine, requests: Sequence[GenerateRequest], concurrency: int, began_s: float, watch: Watch
) -> list[Told]:
    """All of them, `concurrency` at a time, in their order. Raises EngineError."""
    return together([partial(ask, engine, request, began_s, watch) for request in requests], concurrency, watch)


@dataclass
class _Hurry:
    """An answer that is awaited."""

    cancel: Cancellation
    arrivals: Arrivals
    limit_s: float
    asked_s: float
    late: bool = False


class Watch:
    """Looks on while answers come: the delay of this process's own clock, the memory of the engine, answers that stand
    still. A thread of its own, from `with` to its end."""

    def __init__(self, engine: Engine, limit_s: float) -> None:
        self.lag_s = 0.0
        self.peak_bytes = 0
        self._worker = engine.worker if isinstance(engine, HostedEngine) else None
        self._limit_s = limit_s
        self._awaited: list[_Hurry] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def reset(self) -> None:
        """The window begins now."""
        self.lag_s = 0.0

    def expect(self, cancel: Cancellation, arrivals: Arrivals) -> _Hurry:
        hurry = _Hurry(cancel, arrivals, self._limit_s, time.monotonic())
        with self._lock:
            self._awaited.append(hurry)
        return hurry

    def forget(self, hurry: _Hurry) -> None:
        with self._lock:
            self._awaited.remove(hurry)

    def give_up(self) -> None:
        """Cancels all answers that are awaited."""
        self._each(lambda hurry: hurry.cancel.cancel())

    def _run(self) -> None:
        while True:
            before_s = time.monotonic()
            if self._stop.wait(_LOOK_PERIOD_S):
                return
            self.lag_s = max(self.lag_s, time.monotonic() - before_s - _LOOK_PERIOD_S)
            if self._worker is not None:
                self.peak_bytes = max(self.peak_bytes, self._worker.resident_bytes())
            self._each(self._check)

    def _check(self, hurry: _Hurry) -> None:
        seen_s = hurry.arrivals.heard_s or hurry.asked_s
        if time.monotonic() - seen_s > hurry.limit_s and not hurry.late:
            hurry.late = True
            hurry.cancel.cancel()

    def _each(self, act: Callable[[_Hurry], None]) -> None:
        with self._lock:
            awaited = list(self._awaited)
        for hurry in awaited:
            act(hurry)
