"""Costs that can be worked out by hand."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from bendi.energy import (
    CloudPrice,
    CostOptions,
    Hardware,
    Metered,
    Speed,
    Tariff,
    TariffPeriod,
    break_even,
    cost_curve,
    cost_per_mtok,
    published,
    published_wh_per_token,
)
from bendi.energy.cost import HOURS_PER_MONTH, HOURS_PER_YEAR

FLAT = Tariff("EUR", 0.30)
NIGHT = Tariff("EUR", 0.30, (TariffPeriod(22, 6, 0.15),))
GPU = Hardware(price=8766.0, life_years=5, idle_w=50.0)
"""A year has 8766 hours: 0.20 for each hour of its life."""
ANSWER = Speed(wh_per_tok=0.002, tok_s=50.0)
"""A million tokens are 2 kWh and 5.5556 hours."""
PROMPT = Speed(wh_per_tok=0.0001, tok_s=1000.0)
CLOUD = CloudPrice("some", 0.5, 10.0, "https://example.org", "2026-07-24")


def test_energy_alone() -> None:
    answer = cost_per_mtok(ANSWER, CostOptions(FLAT))
    assert answer.cost is not None
    assert answer.cost.energy == pytest.approx(0.60)
    assert answer.cost.total == answer.cost.energy


def test_hardware_and_waiting() -> None:
    """Used a tenth of the time: 55.56 hours of its life, 50 of which it waits at 50 W, 2.5 kWh."""
    answer = cost_per_mtok(ANSWER, CostOptions(FLAT, GPU, utilisation=0.1))
    assert answer.cost is not None
    assert answer.cost.hardware == pytest.approx(0.2 * 1e6 / 50 / 3600 * 10)
    assert answer.cost.waiting == pytest.approx(0.05 * 50 * 0.30)
    assert answer.cost.total == pytest.approx(0.60 + 11.1111 + 0.75, rel=1e-4)


def test_resale() -> None:
    half = cost_per_mtok(ANSWER, CostOptions(FLAT, replace(GPU, resale=4383.0), utilisation=1.0))
    assert half.cost is not None
    assert half.cost.hardware == pytest.approx(0.1 * 1e6 / 50 / 3600)
    assert half.cost.waiting == 0


def test_curve() -> None:
    curve = cost_curve(ANSWER, CostOptions(FLAT, GPU), (0.01, 0.1, 1.0))
    totals = [answer.cost.total for _share, answer in curve if answer.cost is not None]
    assert [share for share, _answer in curve] == [0.01, 0.1, 1.0]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] - 0.6 > 90 * (totals[2] - 0.6)


@pytest.mark.parametrize(
    ("speed", "options", "reason"),
    [
        (ANSWER, CostOptions(), "no_price"),
        (Speed(None, 50.0), CostOptions(FLAT), "no_energy"),
        (Speed(0.002, None), CostOptions(FLAT, GPU), "no_speed"),
    ],
)
def test_no_cost_without_its_parts(speed: Speed, options: CostOptions, reason: str) -> None:
    answer = cost_per_mtok(speed, options)
    assert (answer.cost, answer.reason) == (None, reason)


def test_energy_needs_no_speed() -> None:
    assert cost_per_mtok(Speed(0.002, None), CostOptions(FLAT)).cost is not None


def test_time_of_use() -> None:
    assert [NIGHT.price_at(0, hour) for hour in (0, 5.99, 6, 12, 21.99, 22, 23.5)] == [
        0.15, 0.15, 0.30, 0.30, 0.30, 0.15, 0.15]  # fmt: skip
    assert FLAT.mean_price() == pytest.approx(0.30)
    assert NIGHT.mean_price() == pytest.approx((16 * 0.30 + 8 * 0.15) / 24)
    assert NIGHT.mean_price(9, 17) == pytest.approx(0.30)
    assert NIGHT.mean_price(23, 5) == pytest.approx(0.15)
    assert NIGHT.mean_price(20, 0) == pytest.approx((2 * 0.30 + 2 * 0.15) / 4)
    assert NIGHT.mean_price(5, 7) == pytest.approx(0.225)


def test_days_of_the_week() -> None:
    weekend = Tariff("EUR", 0.30, (TariffPeriod(0, 24, 0.10, days=(5, 6)), TariffPeriod(22, 6, 0.15)))
    assert [weekend.price_at(day, 12) for day in range(7)] == [0.30] * 5 + [0.10] * 2
    assert weekend.price_at(4, 23) == 0.15 and weekend.price_at(5, 2) == 0.10  # the first that holds
    assert weekend.mean_price() == pytest.approx((5 * (16 * 0.30 + 8 * 0.15) + 2 * 24 * 0.10) / 7 / 24)
    options = CostOptions(weekend, hours=(22.0, 6.0))
    answer = cost_per_mtok(ANSWER, options)
    assert answer.cost is not None
    assert answer.cost.energy == pytest.approx(2 * (5 * 0.15 + 2 * 0.10) / 7)


def test_break_even() -> None:
    """Four prompt tokens for each answer token. Cloud: 12 USD, 10.80 EUR. Here: 2.4 kWh are 0.72, and waiting."""
    options = CostOptions(FLAT, GPU, utilisation=0.5, usd=0.9)
    answer = break_even(PROMPT, ANSWER, CLOUD, options, prompt_per_answer=4)
    busy_h = (4 / 1000 + 1 / 50) * 1e6 / 3600
    saved = 12 * 0.9 - 2.4 * 0.30 - 0.05 * busy_h * 0.30
    assert answer.saved_per_mtok == pytest.approx(saved)
    assert answer.answer_mtok == pytest.approx(8766 / saved)
    assert answer.months == pytest.approx(8766 / saved * busy_h / 0.5 / HOURS_PER_MONTH)
    assert answer.within_life == (answer.months <= 60)
    assert (answer.cloud, answer.reason) == (CLOUD, "")


def test_break_even_beyond_the_life_of_the_hardware() -> None:
    options = CostOptions(FLAT, GPU, utilisation=0.01, usd=0.9)
    answer = break_even(PROMPT, ANSWER, CLOUD, options, 4)
    assert answer.within_life is False
    assert break_even(PROMPT, ANSWER, CLOUD, replace(options, utilisation=1.0), 4).within_life is True


def test_no_break_even() -> None:
    options = CostOptions(FLAT, GPU, usd=0.9)
    cheap = replace(CLOUD, input_usd=0.01, output_usd=0.05)
    answer = break_even(PROMPT, ANSWER, cheap, options, 4)
    assert (answer.answer_mtok, answer.reason) == (None, "no_saving")
    assert answer.saved_per_mtok is not None and answer.saved_per_mtok < 0
    for changed, speed, reason in (
        (replace(options, usd=None), ANSWER, "no_exchange_rate"),
        (replace(options, hardware=None), ANSWER, "no_price"),
        (replace(options, tariff=None), ANSWER, "no_price"),
        (options, replace(ANSWER, wh_per_tok=None), "no_energy"),
        (options, replace(ANSWER, tok_s=None), "no_speed"),
    ):
        assert break_even(PROMPT, speed, CLOUD, changed, 4).reason == reason
    dollars = CostOptions(Tariff("USD", 0.14), GPU)
    assert break_even(PROMPT, ANSWER, CLOUD, dollars, 4).reason == ""


def test_hours() -> None:
    assert HOURS_PER_YEAR == 8766
    assert GPU.price_per_hour == pytest.approx(0.2)


def test_published_formula() -> None:
    assert published_wh_per_token(360.0, 50.0) == pytest.approx(0.002)
    values = [published_wh_per_token(power_w, 50.0) for power_w in (350, 360, 370, 380, 400)]
    repeats = [Metered(power_w, 50.0, 4000.0, 500) for power_w in (350.0, 360.0, 370.0, 380.0, 400.0)]
    answer = published(repeats)
    assert answer.values == pytest.approx(values)
    assert answer.median == pytest.approx(values[2])
    assert (answer.first_quartile, answer.third_quartile) == (pytest.approx(values[1]), pytest.approx(values[3]))
    assert answer.iqr == pytest.approx(values[3] - values[1])
    assert answer.mean == pytest.approx(statistics.mean(values))
    assert answer.std == pytest.approx(statistics.stdev(values))
    assert answer.metered == pytest.approx(8 / 3600)
    assert answer.difference == pytest.approx(values[2] / (8 / 3600) - 1)


def test_the_meter_gives_all_energy_over_all_tokens() -> None:
    answer = published([Metered(100.0, 10.0, 1000.0, 100), Metered(100.0, 10.0, 1000.0, 300)])
    assert answer.metered == pytest.approx(2000 / 400 / 3600)  # and not the mean of both ratios


def test_published_without_one_or_the_other() -> None:
    single = published([Metered(360.0, 50.0)])
    assert (single.median, single.std, single.metered, single.difference) == (pytest.approx(0.002), None, None, None)
    assert single.iqr == 0
    empty = published([Metered(None, 50.0, 100.0, 10), Metered(100.0, None)])
    assert (empty.median, empty.iqr, empty.reason) == (None, None, "no_energy")
    assert empty.metered == pytest.approx(10 / 3600)
    assert published([]).reason == "no_energy"
