"""Predicted beside measured, one row for each load, for people to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from bendi.measured.records import AnswerRecord, LoadRecord
from bendi.measured.store import MeasuredStore


@dataclass(frozen=True)
class HistoryRow:
    """`memory_error_pct` and the like: predicted against measured, in percent of the measured; None where either is
    unknown. `loaded_s`: when, in seconds since 1970. Rates are medians of the load's `answers` answers; errors of
    rates are medians of the errors of those that were predicted."""

    model: str
    quantization: str
    build: str
    machine_id: str
    loaded_s: float
    context_tok: int
    answers: int
    predicted_memory_bytes: int
    real_memory_bytes: int | None
    memory_error_pct: float | None
    predicted_load_s: float | None
    load_s: float
    load_error_pct: float | None
    predicted_pp_tok_s: float | None
    pp_tok_s: float | None
    pp_error_pct: float | None
    predicted_tg_tok_s: float | None
    tg_tok_s: float | None
    tg_error_pct: float | None


def history(store: MeasuredStore, limit: int = 50) -> list[HistoryRow]:
    """The newest `limit` loads, the newest first; empty where nothing was recorded or nothing can be read."""
    answers: defaultdict[int, list[AnswerRecord]] = defaultdict(list)
    for answer in store.answers():
        answers[answer.load_id].append(answer)
    return [_row(load, answers[load.id]) for load in store.loads(limit)]


def _row(load: LoadRecord, answers: list[AnswerRecord]) -> HistoryRow:
    pp = [(answer.predicted_pp_tok_s, answer.pp_tok_s) for answer in answers]
    tg = [(answer.predicted_tg_tok_s, answer.tg_tok_s) for answer in answers]
    real_bytes = load.real.total_bytes if load.real else None
    return HistoryRow(
        model=load.model,
        quantization=load.quantization,
        build=load.build,
        machine_id=load.machine_id,
        loaded_s=load.created_s,
        context_tok=load.context_tok,
        answers=len(answers),
        predicted_memory_bytes=load.predicted.total_bytes,
        real_memory_bytes=real_bytes,
        memory_error_pct=_error_pct(load.predicted.total_bytes, real_bytes),
        predicted_load_s=load.predicted_load_s,
        load_s=load.load_s,
        load_error_pct=_error_pct(load.predicted_load_s, load.load_s),
        predicted_pp_tok_s=_median(predicted for predicted, _measured in pp),
        pp_tok_s=_median(measured for _predicted, measured in pp),
        pp_error_pct=_median(_error_pct(*pair) for pair in pp),
        predicted_tg_tok_s=_median(predicted for predicted, _measured in tg),
        tg_tok_s=_median(measured for _predicted, measured in tg),
        tg_error_pct=_median(_error_pct(*pair) for pair in tg),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _error_pct(predicted: float | None, measured: float | None) -> float | None:
    return 100 * (predicted - measured) / measured if predicted is not None and measured else None
