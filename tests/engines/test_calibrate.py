"""Calibration: the arithmetic on made-up machines, and one real run, as short as it may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.engines import calibrate as calibration_module
from bendi.engines.bandwidth import disk_read_bytes_s, memory_read_bytes_s
from bendi.engines.calibrate import calibrate
from bendi.engines.pace import Look, Pace
from bendi.engines.probes import ProbeResult, Timed, Times, dense_config
from bendi.engines.rates_from_probes import solve_again_s, solve_attention, solve_far, solve_nonnegative
from bendi.errors import StoreError
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.calibration import AttentionRates
from bendi.planner.layers import model_work
from bendi.settings import load_settings

RATES = st.floats(0.01, 100)


@given(RATES, RATES, RATES)
def test_rates_are_found_again(head: float, query: float, cache: float) -> None:
    rows = []
    for heads, kv_heads, length in ((16, 16, 128), (28, 4, 128), (32, 8, 64), (8, 2, 256)):
        numbers = (heads, 2 * heads * length, 2 * kv_heads * length)
        slope = heads * head + numbers[1] * query + numbers[2] * cache
        rows.append([number / slope for number in numbers])
    found = solve_nonnegative(rows)
    for row in rows:
        assert sum(a * x for a, x in zip(row, found, strict=True)) == pytest.approx(1, rel=1e-4)


@given(st.lists(st.lists(st.floats(0, 1e9), min_size=3, max_size=3), min_size=3, max_size=6))
def test_rates_are_never_negative(rows: list[list[float]]) -> None:
    assert min(solve_nonnegative(rows)) >= 0


def test_attention_of_a_made_up_machine() -> None:
    """A machine whose attention costs 2 ns a query number in token generation, and a tenth of it in prompts."""
    results = []
    for heads in ((16, 16, 128), (28, 4, 128), (32, 8, 64), (8, 2, 256)):
        work = model_work(blueprint_from_config(dense_config(8, 256, 256, heads), "x").header())
        slope_s = work.attention[0].query_numbers * 2e-9
        grown_s = 1000 * 8 * slope_s
        results.append(
            ProbeResult(
                work, "a build", 0.1, 64, Timed(Times((0.1,)), Times((0.2,))),
                (Timed(Times((0.1 + grown_s,)), Times((0.2 + 64 * grown_s / 10,)), 1000),),
            )
        )  # fmt: skip
    rates = solve_attention(results)
    assert rates.generation_query_s == pytest.approx(2e-9)
    assert rates.prompt_query_s == pytest.approx(2e-10)
    assert rates.generation_head_s == pytest.approx(0, abs=1e-12)


@given(st.floats(1, 2), st.sampled_from(((14, 2, 64), (32, 8, 128))))
def test_what_is_far_is_found_again(slower: float, heads: tuple[int, int, int]) -> None:
    """A machine with a cache for 512 Ki numbers a core; predictions with what was found are its times."""
    work = model_work(blueprint_from_config(dense_config(2, 256, 256, heads), "x").header())
    near_numbers = 1 << 19
    near_tok = near_numbers // (2 * heads[2])
    part = work.attention[0]

    def prompt_s(tok: int) -> float:
        return 0.2 + 64 * 2 * 1e-8 * (tok + (slower - 1) * max(tok - near_tok, 0))

    def timed(tok: int) -> Timed:
        return Timed(Times((0.1,)), Times((prompt_s(tok),)), tok)

    result = ProbeResult(work, "a build", 0.1, 64, timed(0), (timed(near_tok), timed(near_tok + 4096)))
    rates = AttentionRates(
        0.0, 0.0, 0.0, 0.0, 1e-8 / part.query_numbers, near_numbers=near_numbers, prompt_far=solve_far([[result]])
    )
    for tok in (100, near_tok, 9000, 20000):
        assert 128 * rates.prompt_s(part, tok) == pytest.approx(prompt_s(tok) - 0.2, rel=1e-3)


@given(st.floats(1e-12, 1e-10), st.sampled_from(((14, 2, 64), (32, 8, 128), (16, 16, 128))))
def test_what_is_read_again_is_found_again(again_s: float, heads: tuple[int, int, int]) -> None:
    work = model_work(blueprint_from_config(dense_config(2, 256, 256, heads), "x").header())
    part, near_numbers = work.attention[0], 1 << 19
    near_tok = near_numbers // (2 * heads[2])
    rates = AttentionRates(0.0, 1e-11, 0.0, 0.0, 0.0, again_s, near_numbers)

    def timed(tok: int) -> Timed:
        return Timed(Times((0.1 + 2 * rates.generation_s(part, tok),)), Times((0.2,)), tok)

    result = ProbeResult(work, "a build", 0.1, 64, timed(0), (timed(near_tok), timed(near_tok + 4096)))
    if heads[0] > heads[1]:
        assert solve_again_s([result]) == pytest.approx(again_s, rel=1e-3)
    else:
        assert rates.generation_s(part, 8000) == pytest.approx(8000 * part.query_numbers * 1e-11), "nothing is shared"


def test_pace_notices_work_that_takes_longer() -> None:
    pace = Pace(1)
    look = pace.look()
    compute_s, memory_s = look
    assert pace.slowness(look._replace(compute_s=10 * compute_s)) > 1
    assert pace.slowness(look, look._replace(memory_s=100 * memory_s)) > 1
    assert pace.slowness(Look(0.0, 0.0)) == 0


def test_memory_is_faster_than_a_disk_and_slower_than_light(tmp_path: Path) -> None:
    assert 1e8 < memory_read_bytes_s(1) < 1e13
    assert disk_read_bytes_s(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_without_room_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration_module, "_NEEDED_BYTES", 1 << 60)
    with pytest.raises(StoreError, match="disk space"):
        calibrate(load_settings(), "here")


def test_the_verb_measures_and_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest real run: fixed costs, attention, layers and the first types."""
    monkeypatch.setenv("BENDI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENDI_STATE", str(tmp_path / "state"))
    command = [sys.executable, "-m", "bendi", "calibrate", "--json"]
    done = subprocess.run([*command, "--seconds", "20"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert {"Q8_0"} <= set(measured["cpu"]["types"])
    for rates in measured["cpu"]["types"].values():
        assert rates["generation_bytes_s"] > 1e8 and rates["prompt_weights_s"] > 1e8
        assert rates["source"] == "measured"
    assert measured["cpu"]["attention"]["f16"]["prompt_query_s"] > 0
    assert 1 <= measured["noise"] < 3
    assert list((tmp_path / "cache").iterdir()) == []
    again = subprocess.run([*command, "--show"], capture_output=True, text=True, timeout=60)
    assert json.loads(again.stdout) == measured


def test_the_verb_says_when_nothing_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENDI_STATE", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "bendi", "calibrate", "--show"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "bendi calibrate" in done.stderr


def test_too_short_a_time_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bendi", "calibrate", "--seconds", "1"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "--seconds 20" in done.stderr
