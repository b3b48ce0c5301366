"""What was kept comes back, and says how wrong predictions were."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measurements import BUILD, LOAD, MACHINE, answer

from bendi.measured import AnswerRecord, LoadRecord, MeasuredStore, Ratio, history
from bendi.measured import store as store_module
from bendi.measured.residual import ratio_between, ratio_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MeasuredStore]:
    opened = MeasuredStore(tmp_path / "state" / "measured.sqlite3")
    yield opened
    assert opened.notices == []
    opened.close()


def as_given(record: LoadRecord) -> LoadRecord:
    return replace(record, id=0, created_s=0.0)


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path / "state" / "measured.sqlite3")
    assert store.calibrations() == store.loads() == store.answers() == history(store) == []
    assert store.calibration(MACHINE, BUILD) is None
    assert store.residuals(MACHINE, BUILD).n == 0
    assert list(tmp_path.iterdir()) == []


def test_records_come_back(store: MeasuredStore) -> None:
    first = store.add_load(LOAD)
    unknown = replace(LOAD, real=None, predicted_load_s=None, predicted_cold_load_s=None, model="模型")
    second = store.add_load(unknown)
    assert [as_given(load) for load in store.loads()] == [unknown, LOAD]
    assert [load.id for load in store.loads()] == [second, first]
    assert store.loads()[0].created_s > 1.7e9
    kept = store.add_answer(answer(first, 0.5))
    store.add_answer(AnswerRecord(second, 3, 2, 1, 3, None, None))
    assert replace(store.answers(first)[0], id=0, created_s=0.0) == answer(first, 0.5)
    assert store.answers(first)[0].id == kept
    assert [(row.load_id, row.pp_tok_s) for row in store.answers()] == [(second, None), (first, 150.0)]


def test_the_file_is_private(store: MeasuredStore, tmp_path: Path) -> None:
    store.add_load(LOAD)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {0o600}


def test_calibrations(store: MeasuredStore) -> None:
    store.save_calibration(MACHINE, BUILD, "first")
    store.save_calibration(MACHINE, "engine 2", "other")
    store.save_calibration(MACHINE, BUILD, "second")
    assert store.calibration(MACHINE, BUILD) == "second"
    assert store.calibration("another machine", BUILD) is None
    assert [row.text for row in store.calibrations()] == ["second", "other"]


def test_names_that_are_not_text_are_kept_as_far_as_they_are(store: MeasuredStore) -> None:
    store.add_load(replace(LOAD, model="a\udcffb"))
    assert store.loads()[0].model == "a?b"


def test_the_oldest_rows_make_room(store: MeasuredStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEPT_ROWS", 10)
    old = store.add_load(LOAD)
    store.add_answer(answer(old))
    for _ in range(10):
        newest = store.add_load(LOAD)
    assert len(store.loads(100)) == 10
    assert store.answers() == [], "an answer goes with its load"
    assert store.add_answer(answer(old)) == 0
    ids = [store.add_answer(answer(newest)) for _ in range(25)]
    assert [row.id for row in store.answers(limit=100)] == ids[:-11:-1]


def test_residuals_by_model_quantization_and_build(store: MeasuredStore) -> None:
    store.save_calibration(MACHINE, BUILD, "c")
    loads = {
        name: store.add_load(replace(LOAD, model_key=name, quantization=quantization))
        for name, quantization in (("a", "Q4_K_M"), ("b", "Q4_K_M"), ("c", "Q8_0"))
    }
    for ratio in (0.8, 0.9, 1.0):
        store.add_answer(answer(loads["a"], ratio, 0.5))
    for _ in range(50):
        store.add_answer(answer(loads["b"], 1.1))
    store.add_answer(answer(loads["c"], 2.0))
    model, quantization, build = store.residual_levels(MACHINE, BUILD, "a", "Q4_K_M")
    assert (model.pp.n, model.tg.n) == (3, 3)
    assert model.pp.median == pytest.approx(0.9) and model.tg == Ratio(3, 0.5, 0.0)
    assert quantization.pp.n == 2 and quantization.pp.median == pytest.approx(1.0), "each model counts once"
    assert build.pp.n == 3 and build.pp.median == pytest.approx(1.1)
    assert store.residuals("another", BUILD).n == store.residuals(MACHINE, "another").n == 0


def test_answers_before_the_calibration_do_not_count(store: MeasuredStore) -> None:
    store.save_calibration(MACHINE, BUILD, "first")
    load_id = store.add_load(LOAD)
    store.add_answer(answer(load_id))
    assert store.residuals(MACHINE, BUILD).n == 1
    store.save_calibration(MACHINE, BUILD, "second")
    assert store.residuals(MACHINE, BUILD).n == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_tok": 100, "cached_tok": 90, "completion_tok": 3},
        {"predicted_pp_tok_s": None, "predicted_tg_tok_s": None},
        {"pp_tok_s": None, "tg_tok_s": None},
        {"predicted_pp_tok_s": 0.0, "predicted_tg_tok_s": 1e-9},
    ],
)
def test_answers_that_say_nothing_do_not_count(store: MeasuredStore, changes: dict[str, float]) -> None:
    store.save_calibration(MACHINE, BUILD, "c")
    store.add_answer(replace(answer(store.add_load(LOAD)), **changes))
    assert store.residuals(MACHINE, BUILD, "k").n == 0


def test_history(store: MeasuredStore) -> None:
    load_id = store.add_load(LOAD)
    store.add_load(replace(LOAD, real=None, predicted_load_s=None))
    for ratio in (0.5, 0.5, 2.0):
        store.add_answer(answer(load_id, ratio, 1.25))
    newest, oldest = history(store)
    assert (newest.answers, newest.pp_tok_s, newest.memory_error_pct, newest.load_error_pct) == (0, None, None, None)
    assert (oldest.model, oldest.quantization, oldest.answers) == ("qwen3:4b", "Q4_K_M", 3)
    assert (oldest.predicted_memory_bytes, oldest.real_memory_bytes) == (1234, 1334)
    assert oldest.memory_error_pct == pytest.approx(-100 * 100 / 1334)
    assert oldest.load_error_pct == pytest.approx(-50)
    assert (oldest.predicted_pp_tok_s, oldest.pp_tok_s, oldest.pp_error_pct) == (300.0, 150.0, pytest.approx(100))
    assert (oldest.predicted_tg_tok_s, oldest.tg_tok_s, oldest.tg_error_pct) == (20.0, 25.0, pytest.approx(-20))
    assert [row.loaded_s for row in history(store, 1)] == [newest.loaded_s]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_a_summary_is_always_plausible(ratios: list[float]) -> None:
    ratio = ratio_of(ratios)
    assert 0 <= ratio.n <= len(ratios)
    assert 1 / 50 <= ratio.median <= 50
    assert ratio.spread >= 0 and math.isfinite(ratio.spread)
    assert ratio_between({"one": ratios}).n == (1 if ratio.n else 0)


@given(st.lists(st.floats(0.1, 10), min_size=1), st.floats(0.5, 2))
def test_a_summary_scales_with_what_it_summarises(ratios: list[float], factor: float) -> None:
    scaled, ratio = ratio_of(factor * ratio for ratio in ratios), ratio_of(ratios)
    assert scaled.median == pytest.approx(factor * ratio.median)
    assert scaled.spread == pytest.approx(ratio.spread, abs=1e-9)
