"""What was measured before moves the next plan."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bendi.advisor.learned import Learned
from bendi.measured import AnswerRecord, Buffers, LoadRecord, MeasuredStore
from bendi.planner.memory import MemoryNeed
from bendi.planner.plan import WORKLOADS, EngineSettings, Plan, SpeedAt
from bendi.planner.speed import Rate

MACHINE, BUILD, KEY = "here", "a build", "a model"
PLAN = Plan(
    model="m", quantization="Q4_K_M", file_bytes=1, build=BUILD, settings=EngineSettings(4096),
    memory=MemoryNeed(1, 1, 0, 1, 1, True), shares=(), verdict="fits", workload=WORKLOADS["chat"],
    speeds=(SpeedAt(0, Rate(100.0, 0.2), Rate(10.0, 0.2)), SpeedAt(2048, Rate(80.0, 0.2), Rate(8.0, 0.2))),
    ttft_s=2.0, request_s=42.0, load_warm_s=1.0, load_cold_s=2.0, error=0.2, calibrated=True,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in which token generation was half as fast as predicted, eight times."""
    path = tmp_path / "measured.sqlite3"
    with closing(MeasuredStore(path)) as store:
        store.save_calibration(MACHINE, BUILD, "{}")
        load = LoadRecord(
            model_key=KEY, model="m", architecture="llama", quantization="Q4_K_M", build=BUILD, machine_id=MACHINE,
            context_tok=4096, parallel=1, type_k="f16", type_v="f16", threads=2, load_s=1.0,
            predicted=Buffers(1, 1, 0, 1, 1), real=None,
        )  # fmt: skip
        load_id = store.add_load(load)
        for _answer in range(8):
            store.add_answer(
                AnswerRecord(
                    load_id=load_id, prompt_tok=100, cached_tok=0, completion_tok=100, depth_tok=150, pp_tok_s=100.0,
                    tg_tok_s=5.0, predicted_pp_tok_s=100.0, predicted_tg_tok_s=10.0,
                )
            )  # fmt: skip
    return path


def test_the_same_model_is_planned_slower(path: Path) -> None:
    plan = Learned(path, MACHINE, BUILD).applied(PLAN, KEY)
    assert 5.0 <= plan.speeds[0].tg.tok_s < 8.0
    assert plan.speeds[0].pp.tok_s == pytest.approx(100.0)
    assert plan.ttft_s == pytest.approx(2.0)
    assert plan.request_s - plan.ttft_s == pytest.approx(40.0 * 10.0 / plan.speeds[0].tg.tok_s)


def test_other_models_move_less(path: Path) -> None:
    learned = Learned(path, MACHINE, BUILD)
    same, other = learned.applied(PLAN, KEY), learned.applied(replace(PLAN, quantization="Q8_0"), "another")
    assert same.speeds[0].tg.tok_s < other.speeds[0].tg.tok_s < 10.0


@pytest.mark.parametrize("machine, build", [("another", BUILD), (MACHINE, "another build")])
def test_other_machines_and_builds_say_nothing(path: Path, machine: str, build: str) -> None:
    assert Learned(path, machine, build).applied(PLAN, KEY) == PLAN


def test_nothing_measured_changes_nothing(tmp_path: Path) -> None:
    assert Learned(None).applied(PLAN) == PLAN
    assert Learned(tmp_path / "absent.sqlite3", MACHINE, BUILD).applied(PLAN) == PLAN
    without = replace(PLAN, speeds=())
    assert Learned(None).applied(without) == without


def test_loading_is_learned(path: Path) -> None:
    with closing(MeasuredStore(path)) as store:
        for number in range(10):
            load = LoadRecord(
                model_key=f"model {number}", model="m", architecture="llama", quantization="Q8_0", build=BUILD,
                machine_id=MACHINE, context_tok=4096, parallel=1, type_k="f16", type_v="f16", threads=2, load_s=3.0,
                predicted=Buffers(1, 1, 0, 1, 1), real=None, predicted_load_s=1.0, predicted_cold_load_s=9.0,
            )  # fmt: skip
            store.add_load(load)
            store.add_load(replace(load, load_s=20.0))  # from the disk
    plan = Learned(path, MACHINE, BUILD).applied(PLAN)
    assert 2.0 < plan.load_warm_s <= 3.0
    assert plan.load_cold_s - PLAN.load_cold_s == pytest.approx(plan.load_warm_s - PLAN.load_warm_s)
    assert plan.load_error < PLAN.load_error
