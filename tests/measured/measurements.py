"""Records to keep in tests, and programs that keep them in processes of their own."""

from __future__ import annotations

from bendi.measured import AnswerRecord, Buffers, LoadRecord

MACHINE, BUILD = "0123456789abcdef", "engine 1"

LOAD = LoadRecord(
    model_key="k",
    model="qwen3:4b",
    architecture="qwen3",
    quantization="Q4_K_M",
    build=BUILD,
    machine_id=MACHINE,
    context_tok=4096,
    parallel=1,
    type_k="f16",
    type_v="q8_0",
    threads=8,
    predicted=Buffers(1000, 200, 0, 30, 4),
    real=Buffers(1100, 200, 0, 30, 4),
    load_s=2.0,
    predicted_load_s=1.0,
    predicted_cold_load_s=3.0,
)


def answer(load_id: int, pp_ratio: float = 1.0, tg_ratio: float = 1.0) -> AnswerRecord:
    """An answer whose rates are so many times what was predicted."""
    return AnswerRecord(
        load_id=load_id,
        prompt_tok=100,
        cached_tok=0,
        completion_tok=50,
        depth_tok=125,
        pp_tok_s=300.0 * pp_ratio,
        tg_tok_s=20.0 * tg_ratio,
        predicted_pp_tok_s=300.0,
        predicted_tg_tok_s=20.0,
    )


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from measurements import LOAD, answer
from bendi.measured import MeasuredStore
store = MeasuredStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
load_id = store.add_load(LOAD)
for number in range(int(sys.argv[2])):
    print(store.add_answer(answer(load_id)), flush=True)
print("notices", store.notices)
"""
"""Keeps one load and some answers after a line on standard input; prints their ids, then the notices."""
