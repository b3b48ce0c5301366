"""Sizes from the engine's log: of a real load, of recorded ones, of forged ones."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.engines import LoadRequest, wheel
from bendi.engines.load_report import LoadReport, read_load_report
from bendi.units import MIB

RECORDED = """
0.00.003.437 I srv    load_model: loading model '/m/x.gguf'
0.00.013.715 I print_info: general.name          = a name
0.00.013.899 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.016.562 I load_tensors:   CPU_Mapped model buffer size =   400.06 MiB
0.00.016.563 I load_tensors:   CPU_Mapped model buffer size =   100.00 MiB
0.00.016.564 I load_tensors:   CPU_REPACK model buffer size =   300.50 MiB
0.00.017.181 I llama_context:        CPU  output buffer size =     0.50 MiB
0.00.018.700 I llama_kv_cache_iswa: creating non-SWA KV cache, size = 4096 cells
0.00.018.784 I llama_kv_cache:        CPU KV buffer size =    4.00 MiB
0.00.018.784 I llama_kv_cache: size =    4.00 MiB (  2048 cells,   4 layers,  1/1 seqs), K (f16):    2.00 MiB, V (f16):    2.00 MiB
0.00.018.784 I llama_kv_cache: size =    1.25 MiB (   512 cells,  20 layers,  1/1 seqs), K (f16):    0.62 MiB, V (f16):    0.62 MiB
0.00.018.790 I llama_memory_recurrent: size =   17.30 MiB (     1 cells,  48 layers,  1 seqs), R (f32):    1.00 MiB, S (f32):   16.30 MiB
0.00.018.837 I sched_reserve: reserving ...
0.00.019.837 I sched_reserve:        CPU compute buffer size =     8.64 MiB
0.00.019.838 I sched_reserve: reserving ...
0.00.019.839 I sched_reserve:      CUDA0 compute buffer size =   100.00 MiB
0.00.019.839 I sched_reserve:        CPU compute buffer size =     8.00 MiB
0.00.021.954 I srv    load_model: initializing, n_slots = 1, n_ctx_slot = 2048, kv_unified = 'false'
0.00.024.209 I srv          init: model loaded
"""  # noqa: E501
EXPECTED = LoadReport(
    kv_bytes=round(5.25 * MIB),
    state_bytes=round(17.30 * MIB),
    compute_bytes=108 * MIB,
    output_bytes=MIB // 2,
    weights_bytes_by_buffer={"CPU_Mapped": round(400.06 * MIB) + 100 * MIB, "CPU_REPACK": round(300.5 * MIB)},
)
FORGED = RECORDED.replace(" 400.06", " 999.00").replace(" 17.30", " 999.00")


def test_all_sizes() -> None:
    report = read_load_report(RECORDED.splitlines())
    assert report == EXPECTED
    assert report.weights_bytes == round(800.56 * MIB)


@pytest.mark.parametrize("name", ["model buffer", "compute buffer"])
def test_a_log_without_sizes_is_no_report(name: str) -> None:
    assert read_load_report(line for line in RECORDED.splitlines() if name not in line) is None
    assert read_load_report([]) is None


def test_a_name_that_looks_like_a_log_changes_nothing() -> None:
    hostile = RECORDED.replace("a name", f"a name\n{FORGED}")
    assert read_load_report(hostile.splitlines()) == EXPECTED
    one_line = RECORDED.replace("a name", FORGED.replace("\n", "\\n"))
    assert read_load_report(one_line.splitlines()) == EXPECTED


def test_numbers_stay_small_whatever_is_forged() -> None:
    absurd = RECORDED.replace(" 8.00 MiB", f" {'9' * 400}.00 MiB").replace(" 100.00 MiB", " 999999999.99 MiB")
    report = read_load_report(absurd.splitlines())
    assert report is not None
    assert report.weights_bytes < 2**62


@given(st.lists(st.sampled_from(RECORDED.splitlines()) | st.text(), max_size=60))
def test_any_log_can_be_read(lines: list[str]) -> None:
    report = read_load_report(lines)
    if report is not None:
        sizes = (report.kv_bytes, report.state_bytes, report.compute_bytes, report.output_bytes, report.weights_bytes)
        assert all(0 <= size < 2**62 for size in sizes)


@pytest.mark.parametrize(
    "load",
    [
        {"context_tok": 512},
        {"context_tok": 2048, "parallel": 2},
        {"context_tok": 2048, "type_k": "q8_0", "type_v": "q8_0"},
    ],
    ids=str,
)
def test_the_engine_takes_what_was_predicted(demo_model: Path, load: dict[str, object]) -> None:
    with closing(wheel.open_engine(LoadRequest(model_path=demo_model, **load))) as engine:  # type: ignore[arg-type]
        report, need = engine.info.buffers, engine.prepared.need
        assert report is not None
        assert need.exact
        for real, predicted in (
            (report.weights_bytes, need.weights_bytes),
            (report.kv_bytes, need.kv_bytes),
            (report.state_bytes, need.recurrent_state_bytes),
            (report.output_bytes, need.output_bytes),
            (report.compute_bytes, need.compute_bytes),
        ):
            # The log has two decimals, which is coarse for what is small.
            assert real == pytest.approx(predicted, rel=0.01, abs=0.01 * MIB)
