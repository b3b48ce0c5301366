"""Keeps how large and how fast a loaded model really was, beside what had been predicted.

Nothing is opened or computed before the first answer has ended, and a failure only ends the recording. Of a
conversation, counts of tokens and times are kept, nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.load_report import LoadReport
from bendi.engines.prepare import Prepared
from bendi.engines.protocol import Engine, EngineInfo, LoadRequest
from bendi.engines.tuned import open_tuned
from bendi.errors import StoreError
from bendi.hardware import detect_machine
from bendi.measured import AnswerRecord, Buffers, LoadRecord, MeasuredStore, machine_id, model_key
from bendi.messages import Chunk, Usage
from bendi.planner.calibration import Calibration
from bendi.planner.calibration_runs import from_json
from bendi.planner.layers import model_work
from bendi.planner.speed import generation_s, load_s, prompt_s
from bendi.planner.work import ModelWork
from bendi.settings import Settings

_PATIENCE_S = 2.0
_UNPREDICTABLE = (ArithmeticError, LookupError, ValueError)
"""What the arithmetic may stumble over in a model that nobody has seen before."""


def open_recorded(
    load: LoadRequest,
    settings: Settings,
    on_progress: Callable[[float], None] | None = None,
    name: str = "",
    on_notice: Callable[[str], None] | None = None,
    *,
    record: bool = True,
) -> Engine:
    """As `engines.open_recorded_engine`, which loads this module only when it is needed."""
    machine = _MachineId()
    opening = open_tuned(load, settings, machine.wait, on_progress, on_notice)
    if opening.notice and on_notice:
        on_notice(opening.notice)
    engine = opening.engine
    # How fast guessing is says nothing of other answers.
    if record and not load.speculate and isinstance(engine, LlamaServerEngine):
        opened = Opened(opening.load, engine.prepared, engine.info, name, opening.load_s)
        engine.observe(Recorder(MeasuredStore(settings.measured_file), opened, machine.wait, on_notice))
    return engine


@dataclass(frozen=True)
class Opened:
    """What is known of an engine that is ready. `name`: of the model, for people. `load_s`: how long opening took."""

    load: LoadRequest
    prepared: Prepared
    info: EngineInfo
    name: str
    load_s: float


@dataclass(frozen=True)
class _Forecast:
    """What predictions for the loaded model are made from."""

    work: ModelWork
    calibration: Calibration
    kv_type: str

    def pp_tok_s(self, usage: Usage) -> float | None:
        computed_tok = usage.prompt_tok - usage.cached_tok
        if computed_tok <= 0:
            return None
        seconds = prompt_s(self.work, self.calibration.cpu, computed_tok, usage.cached_tok, self.kv_type)
        return computed_tok / (seconds * self.calibration.noise)

    def tg_tok_s(self, depth_tok: int) -> float:
        return 1 / (generation_s(self.work, self.calibration.cpu, depth_tok, self.kv_type) * self.calibration.noise)


class Recorder:
    """The observer of one engine. Safe to use from several threads. `machine_id`: asked when the first row is kept,
    None where the machine could not be told."""

    def __init__(
        self,
        store: MeasuredStore,
        opened: Opened,
        machine_id: Callable[[], str | None],
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._opened = opened
        self._machine_id = machine_id
        self._on_notice = on_notice
        self._lock = threading.Lock()
        self._counting = threading.Lock()  # of its own: no answer waits for what the last one has to write to the disk
        self._ended: deque[tuple[Chunk, Usage, bool]] = deque()
        self._running = 0
        self._begun = 0
        self._record: LoadRecord | None = None
        self._load_id = 0
        self._forecast: _Forecast | None = None
        self._told = 0

    def begin(self) -> int:
        with self._counting:
            self._running += 1
            self._begun += 1
            # Negative: it shares the engine from the start.
            return self._begun if self._running == 1 else -self._begun

    def end(self, ticket: int, last: Chunk | None) -> None:
        with self._counting:
            self._running -= 1
            alone = ticket == self._begun
        if last is not None and last.usage is not None:
            self._ended.append((last, last.usage, alone))

    def keep(self) -> None:
        with self._lock:
            self._keep_ended()

    def close(self) -> None:
        with self._lock:
            self._keep_load()
            self._keep_ended()
            self._store.close()
            self._tell()

    def _keep_ended(self) -> None:
        while self._ended:
            last, usage, alone = self._ended.popleft()
            self._keep(last, usage, alone=alone)

    def _keep(self, last: Chunk, usage: Usage, *, alone: bool) -> None:
        self._keep_load()
        if self._load_id:
            depth_tok = usage.prompt_tok + usage.completion_tok // 2
            pp_tok_s, tg_tok_s = self._predicted(usage, depth_tok) if alone else (None, None)
            answer = AnswerRecord(
                load_id=self._load_id,
                prompt_tok=usage.prompt_tok,
                cached_tok=usage.cached_tok,
                completion_tok=usage.completion_tok,
                depth_tok=depth_tok,
                pp_tok_s=last.timings.pp_tok_s if last.timings else None,
                tg_tok_s=last.timings.tg_tok_s if last.timings else None,
                predicted_pp_tok_s=pp_tok_s,
                predicted_tg_tok_s=tg_tok_s,
            )
            if not self._store.add_answer(answer):
                self._load_id = 0  # the file was replaced: the next answer writes its load again
        self._tell()

    def _keep_load(self) -> None:
        if self._load_id:
            return
        if self._record is None:
            machine = self._machine_id()
            if machine is None:
                return
            self._forecast = self._forecast_for(machine)
            self._record = self._load_record(machine)
        self._load_id = self._store.add_load(self._record)

    def _forecast_for(self, machine: str) -> _Forecast | None:
        load = self._opened.load
        text = self._store.calibration(machine, self._opened.info.build)
        if text is None:
            return None
        try:
            calibration = from_json(text)
            if load.threads not in (None, calibration.cpu.threads):
                return None
            return _Forecast(model_work(*self._opened.prepared.headers), calibration, load.type_k)
        except (StoreError, *_UNPREDICTABLE):
            return None

    def _predicted(self, usage: Usage, depth_tok: int) -> tuple[float | None, float | None]:
        if self._forecast is None:
            return None, None
        try:
            return self._forecast.pp_tok_s(usage), self._forecast.tg_tok_s(depth_tok)
        except _UNPREDICTABLE:
            return None, None

    def _load_record(self, machine: str) -> LoadRecord:
        load, prepared, ready = self._opened.load, self._opened.prepared, self._opened.info
        info, need = prepared.info, prepared.need
        return LoadRecord(
            model_key=model_key(prepared.headers),
            model=self._opened.name or info.name or load.model_path.stem,
            architecture=info.architecture,
            quantization=info.quantization,
            build=ready.build,
            machine_id=machine,
            context_tok=prepared.context_tok,
            parallel=load.parallel,
            type_k=load.type_k,
            type_v=load.type_v,
            threads=load.threads or 0,
            predicted=Buffers(
                need.weights_bytes, need.kv_bytes, need.recurrent_state_bytes, need.compute_bytes, need.output_bytes
            ),
            real=_reported(ready.buffers),
            load_s=self._opened.load_s,
            predicted_load_s=self._predicted_load_s(cold=False),
            predicted_cold_load_s=self._predicted_load_s(cold=True),
        )

    def _predicted_load_s(self, *, cold: bool) -> float | None:
        if self._forecast is None:
            return None
        try:
            return load_s(self._forecast.work, self._forecast.calibration, cold=cold)
        except _UNPREDICTABLE:
            return None

    def _tell(self) -> None:
        """Says what went wrong, each thing once."""
        new, self._told = self._store.notices[self._told :], len(self._store.notices)
        if self._on_notice:
            for notice in new:
                self._on_notice(notice)


def _reported(report: LoadReport | None) -> Buffers | None:
    if report is None:
        return None
    return Buffers(
        report.weights_bytes, report.kv_bytes, report.state_bytes, report.compute_bytes, report.output_bytes
    )  # fmt: skip


class _MachineId:
    """Finds out while the model loads: asking a sleeping graphics driver takes seconds."""

    def __init__(self) -> None:
        self._found: str | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def wait(self) -> str | None:
        self._thread.join(_PATIENCE_S)
        return self._found

    def _ask(self) -> None:
        self._found = machine_id(detect_machine())
