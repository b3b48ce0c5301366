"""What is computed from arrivals: known answers."""

from __future__ import annotations

import pytest

from bendi.results import Answer, Energy, Repeat

FIRST = Answer(0.0, 2.1, (0.5, 1.0, 1.5, 2.0), 100, 4, "length", (1, 1, 1, 1), 50, 110.0, 2.1)
SECOND = Answer(2.1, 3.2, (1.0,), 100, 1, "length", (1,), 0, 100.0, None)
PACKED = Answer(0.0, 3.0, (1.0, 2.0, 3.0), 10, 9, "stop", (3, 3, 3))


def repeat(*answers: Answer) -> Repeat:
    return Repeat("c", 0, 0, 0.0, 4.0, answers)


def test_times_of_one_answer() -> None:
    assert FIRST.ttft_s == 0.5
    assert FIRST.tpot_s == pytest.approx(0.5)
    assert FIRST.computed_tok == 50
    assert SECOND.tpot_s is None
    assert PACKED.tpot_s == pytest.approx(2 / 6)
    assert Answer(0, 1, (), 5, 0, "stop").ttft_s is None


def test_rates_are_ratios_of_sums() -> None:
    both = repeat(FIRST, SECOND)
    assert both.pp_tok_s == pytest.approx(150 / 1.5)
    assert both.tg_tok_s == pytest.approx(3 / 1.5)
    assert both.throughput_tok_s == pytest.approx(5 / 4)
    assert both.server_pp_tok_s == pytest.approx(150 / (50 / 110 + 100 / 100))
    assert both.server_tg_tok_s == pytest.approx(2.1)
    assert both.cached_tok == 50
    assert repeat().pp_tok_s is None and repeat().tg_tok_s is None


def test_energy_by_token_is_total_over_total() -> None:
    energy = Energy("plug", "wall", ("wall",), 4.0, 100.0, 10.0)
    assert energy.net_j == pytest.approx(60.0)
    assert energy.mean_w == pytest.approx(25.0)
    assert repeat(FIRST, SECOND).joules_per_token(energy) == pytest.approx(20.0)
    missing = Energy("nvml", "none", reason="nvml_missing")
    assert missing.net_j is None and missing.mean_w is None
    assert repeat(FIRST).joules_per_token(missing) is None
