"""The energy of a window from readings whose true energy is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import AVERAGE, BOTH, BURST, COUNTER, POWER, STEADY, WALL, times, trace

from bendi.energy import combined, energy_of, with_idle
from bendi.energy.fake import PowerOverTime
from bendi.energy.meter import MeterFacts, Sample
from bendi.energy.windows import Track
from bendi.results import Energy


@pytest.mark.parametrize("facts", [COUNTER, POWER, BOTH, WALL], ids=lambda facts: facts.name)
def test_steady_power(facts: MeterFacts) -> None:
    energy = energy_of(facts, trace(facts, STEADY, times(0, 100, facts.period_s)), 15.03, 75.03)
    assert energy.gross_j == pytest.approx(250 * 60, rel=0.01)
    assert (energy.meter, energy.tier, energy.covers, energy.reason) == (facts.name, facts.tier, facts.covers, "")
    assert energy.window_s == pytest.approx(60)


@pytest.mark.parametrize("facts", [COUNTER, POWER, BOTH], ids=lambda facts: facts.name)
@pytest.mark.parametrize("shift_s", [0.0, 0.017, 0.049])
def test_a_burst_is_counted_whole(facts: MeterFacts, shift_s: float) -> None:
    """The window is the burst itself: the worst case for the edges. True: 300 W for 30 s."""
    track = trace(facts, BURST, times(shift_s, 60, facts.period_s))
    energy = energy_of(facts, track, 10.0, 40.0)
    assert energy.gross_j == pytest.approx(9000, rel=0.01)
    assert energy.flags == ()


def test_a_burst_at_the_wall() -> None:
    """A plug with one value a second is off by at most a second of the step: 280 J of 9000."""
    energy = energy_of(WALL, trace(WALL, BURST, times(0.4, 60, 1.0)), 10.0, 40.0)
    assert energy.gross_j == pytest.approx(9000, abs=280)
    assert energy.flags == ("short_window",)


def test_window_around_the_burst_has_no_edges_to_miss() -> None:
    for facts in (COUNTER, POWER, AVERAGE, WALL):
        energy = energy_of(facts, trace(facts, BURST, times(0, 60, facts.period_s)), 5.0, 50.0)
        assert energy.gross_j == pytest.approx(9000 + 15 * 20, rel=0.01), facts.name


@given(
    begin_s=st.floats(5, 60),
    length_s=st.floats(20, 120),
    steps=st.lists(st.tuples(st.floats(0, 250), st.floats(1, 900)), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_counter_and_integral_agree_with_any_power(
    begin_s: float, length_s: float, steps: list[tuple[float, float]]
) -> None:
    """Each edge of each may be off by the two refreshes and the period around it, at the largest power there is."""
    power = PowerOverTime([(0.0, 100.0), *sorted(steps)])
    at_s = times(0, begin_s + length_s + 2, 0.05)
    true_j = power.energy_j(begin_s, begin_s + length_s)
    largest_w = max(watts for _from_s, watts in power.steps)
    for facts, edges in ((COUNTER, 2), (POWER, 2 + len(steps))):
        energy = energy_of(facts, trace(facts, power, at_s), begin_s, begin_s + length_s)
        assert energy.gross_j == pytest.approx(true_j, abs=0.25 * edges * largest_w)


def test_repeated_readings_are_one() -> None:
    """A value that is new every second, read twenty times a second: the same as read once a second."""
    facts = replace(POWER, power_refresh_s=1.0)
    ramp = PowerOverTime([(float(second), 10.0 * second) for second in range(100)])
    often = energy_of(facts, trace(facts, ramp, times(0, 99, 0.05)), 20.0, 60.0)
    seldom = energy_of(facts, trace(facts, ramp, times(0, 99, 1.0)), 20.0, 60.0)
    assert often.gross_j == pytest.approx(seldom.gross_j, rel=1e-6)
    assert often.gross_j == pytest.approx(sum(10.0 * (second + 0.5) for second in range(20, 60)))


def test_late_readings_count_with_their_own_times() -> None:
    """Every reading comes up to two periods late: the counter and the integral do not mind."""
    at_s = [time_s + 0.1 * ((7 * number) % 10) / 10 for number, time_s in enumerate(times(0, 60, 0.1))]
    for facts in (COUNTER, POWER):
        energy = energy_of(facts, trace(facts, BURST, at_s), 10.0, 40.0)
        assert energy.gross_j == pytest.approx(9000, rel=0.01), facts.name


def test_a_gap_of_two_seconds_is_bridged_and_said() -> None:
    at_s = [time_s for time_s in times(0, 60, 0.05) if not 20 < time_s < 22]
    power = energy_of(POWER, trace(POWER, BURST, at_s), 10.0, 40.0)
    assert power.gross_j == pytest.approx(9000, rel=0.01)
    assert power.flags == ("late_samples",)
    counter = energy_of(COUNTER, trace(COUNTER, BURST, at_s), 10.0, 40.0)
    assert counter.gross_j == pytest.approx(9000, rel=0.01)
    assert counter.flags == ()  # it counts by itself


def test_a_long_gap_ends_an_integral_and_not_a_counter() -> None:
    at_s = [time_s for time_s in times(0, 60, 0.05) if not 20 < time_s < 25]
    assert energy_of(POWER, trace(POWER, BURST, at_s), 10.0, 40.0).reason == "sampling_gap"
    assert energy_of(COUNTER, trace(COUNTER, BURST, at_s), 10.0, 40.0).gross_j == pytest.approx(9000, rel=0.01)


@pytest.mark.parametrize("facts", [COUNTER, POWER], ids=lambda facts: facts.name)
def test_a_gap_at_an_edge_ends_both(facts: MeterFacts) -> None:
    at_s = [time_s for time_s in times(0, 60, 0.05) if not 8 < time_s < 13]
    energy = energy_of(facts, trace(facts, BURST, at_s), 10.0, 40.0)
    assert (energy.gross_j, energy.reason) == (None, "sampling_gap")


def test_a_short_window_allows_shorter_gaps() -> None:
    at_s = [time_s for time_s in times(0, 20, 0.05) if not 6 < time_s < 8]
    assert energy_of(POWER, trace(POWER, STEADY, at_s), 5.0, 10.0).reason == "sampling_gap"


def test_gaps_outside_of_the_window_do_not_matter() -> None:
    at_s = [time_s for time_s in times(0, 60, 0.05) if not (2 < time_s < 9 or 45 < time_s < 55)]
    assert energy_of(POWER, trace(POWER, BURST, at_s), 10.0, 40.0).flags == ()


@pytest.mark.parametrize("facts", [COUNTER, POWER], ids=lambda facts: facts.name)
@pytest.mark.parametrize("window", [(-5.0, 20.0), (40.0, 70.0)])
def test_readings_must_reach_over_both_edges(facts: MeterFacts, window: tuple[float, float]) -> None:
    energy = energy_of(facts, trace(facts, STEADY, times(0, 60, 0.05)), *window)
    assert (energy.gross_j, energy.reason) == (None, "not_bracketed")


def test_reset_in_the_window_is_no_negative_energy() -> None:
    track = trace(COUNTER, STEADY, times(0, 60, 0.05), reset_at_s=30.0)
    assert energy_of(COUNTER, track, 10.0, 40.0).reason == "counter_reset"
    for window in ((5.0, 25.0), (35.0, 55.0)):
        assert energy_of(COUNTER, track, *window).gross_j == pytest.approx(250 * 20, rel=0.01)


def test_a_counter_that_falls_without_saying_so() -> None:
    samples = [Sample(time_s, 100 * time_s if time_s < 30 else 100 * (time_s - 30)) for time_s in times(0, 60, 0.1)]
    assert energy_of(COUNTER, Track(samples), 10.0, 40.0).reason == "counter_reset"
    # A fall that ends above where the window began is one as well.
    samples = [Sample(time_s, 100 * time_s - (500 if time_s > 30 else 0)) for time_s in times(0, 60, 0.1)]
    assert energy_of(COUNTER, Track(samples), 10.0, 40.0).reason == "counter_reset"


def test_counter_against_integral() -> None:
    at_s = times(0, 60, 0.05)
    for factor, flags in ((1.0, ()), (1.04, ()), (0.96, ()), (1.08, ("counter_vs_integral",)),
                          (0.57, ("counter_vs_integral",))):  # fmt: skip
        energy = energy_of(BOTH, trace(BOTH, STEADY, at_s, factor=factor), 10.0, 40.0)
        assert energy.gross_j == pytest.approx(250 * 30 * factor, rel=0.01)  # what is preferred is shown
        assert energy.flags == flags, factor


def test_no_cross_check_where_its_own_edges_would_fail_it() -> None:
    """An average of a second sees half a second less of a burst: in 30 s within 5%, in 5 s not, and then not compared.

    The counter of a plug with steps of a watt-hour says nothing of a minute.
    """
    facts = replace(BOTH, averaged_s=1.0)
    assert energy_of(facts, trace(facts, BURST, times(0, 60, 0.05)), 10.0, 40.0).flags == ()
    short = PowerOverTime([(0.0, 20.0), (10.0, 300.0), (15.0, 20.0)])
    assert energy_of(facts, trace(facts, short, times(0, 60, 0.05)), 10.0, 15.0).flags == ("short_window",)
    wall = energy_of(WALL, trace(WALL, BURST, times(0, 90, 1.0), factor=0.0), 10.0, 80.0)
    assert "counter_vs_integral" not in wall.flags


def test_readings_that_cannot_be() -> None:
    at_s = times(0, 60, 0.05)
    limited = replace(POWER, most_w=200.0)
    assert energy_of(limited, trace(limited, STEADY, at_s), 10, 40).reason == "implausible"
    limited = replace(COUNTER, most_w=200.0)
    assert energy_of(limited, trace(limited, STEADY, at_s), 10, 40).reason == "implausible"
    for bad in (-1.0, math.nan, math.inf):
        samples = [Sample(time_s, None, bad if time_s == 20.0 else 100.0) for time_s in map(float, range(60))]
        assert energy_of(replace(POWER, period_s=1.0), Track(samples), 10, 40).reason == "implausible"


def test_what_is_doubtful_is_shown_with_its_doubt() -> None:
    at_s = times(0, 60, 0.05)
    low = replace(COUNTER, least_w=300.0)
    energy = energy_of(low, trace(low, STEADY, at_s), 10, 40)
    assert (energy.gross_j, energy.flags) == (pytest.approx(7500, rel=0.01), ("low",))
    assert energy_of(POWER, trace(POWER, STEADY, at_s), 10, 40).flags == ("constant",)
    assert energy_of(AVERAGE, trace(AVERAGE, BURST, at_s), 5, 15).flags == ("averaged_power",)
    modelled = replace(COUNTER, flags=("modelled",))
    assert energy_of(modelled, trace(modelled, STEADY, at_s), 10, 40).flags == ("modelled",)


@pytest.mark.parametrize(("facts", "least_s"), [(COUNTER, 1.0), (POWER, 1.0), (WALL, 10.0)])
def test_windows_of_ten_values_or_none(facts: MeterFacts, least_s: float) -> None:
    track = trace(facts, STEADY, times(0, 60, facts.period_s))
    assert energy_of(facts, track, 20.0, 20.0 + 0.99 * least_s).reason == "window_too_short"
    energy = energy_of(facts, track, 20.0, 20.0 + 1.01 * least_s)
    assert energy.gross_j is not None and "short_window" in energy.flags


def test_no_time_at_all() -> None:
    energy = energy_of(COUNTER, trace(COUNTER, STEADY, times(0, 9, 0.1)), 5.0, 4.0)
    assert (energy.reason, energy.window_s) == ("window_too_short", 0.0)


def test_a_meter_that_fails_tells_why_itself() -> None:
    def broken(time_s: float) -> str:
        return "plug_unreachable" if 20 < time_s < 30 else ""

    track = trace(WALL, STEADY, times(0, 100, 1.0), error_at=broken)
    assert energy_of(WALL, track, 10.0, 40.0).reason == "plug_unreachable"
    assert energy_of(WALL, track, 40.0, 90.0).gross_j == pytest.approx(250 * 50, rel=0.01)
    gone = trace(WALL, STEADY, times(0, 100, 1.0), error_at=lambda time_s: "plug_refused" if time_s > 35 else "")
    assert energy_of(WALL, gone, 10.0, 40.0).reason == "plug_refused"
    assert energy_of(WALL, Track([], [(12.0, "meter_failed")]), 10.0, 40.0).reason == "meter_failed"
    assert energy_of(WALL, Track(), 10.0, 40.0).reason == "no_samples"


def test_idle_is_taken_off() -> None:
    track = trace(COUNTER, BURST, times(0, 60, 0.05))
    windows = [[energy_of(COUNTER, track, 1.0, 9.0)], [energy_of(COUNTER, track, 45.0, 55.0)]]
    (energy,) = with_idle([energy_of(COUNTER, track, 10.0, 40.0)], windows)
    assert energy.idle_w == pytest.approx(20, rel=0.01)
    assert energy.net_j == pytest.approx(9000 - 600, rel=0.01)
    assert energy.flags == ()


def idle(watts: float, seconds: float = 10.0, meter: str = "counter", flags: tuple[str, ...] = ()) -> Energy:
    return Energy(meter, "counter", ("gpu board",), seconds, watts * seconds, flags=flags)


def test_doubts_about_idle() -> None:
    busy = Energy("counter", "counter", ("gpu board",), 30.0, 9000.0, flags=("low",))
    (energy,) = with_idle([busy], [[idle(20, 10)], [idle(50, 20)]])
    assert (energy.idle_w, energy.flags) == (40.0, ("low", "idle_drift"))  # weighted by time
    (energy,) = with_idle([busy], [[idle(400)]])
    assert (energy.idle_w, energy.flags) == (400.0, ("low", "idle_above_load"))
    (energy,) = with_idle([busy], [[idle(20, flags=("counter_vs_integral", "short_window"))]])
    assert energy.flags == ("low", "counter_vs_integral")
    (energy,) = with_idle([busy], [[idle(20, meter="another"), Energy("counter", "counter", reason="no_samples")]])
    assert (energy.idle_w, energy.flags) == (None, ("low", "idle_unknown"))


def test_idle_of_what_was_not_measured() -> None:
    missing = Energy("counter", "counter", reason="counter_reset")
    declared = Energy("declared", "declared", ("wall",), 10.0, 1000.0, idle_w=30.0)
    assert with_idle([missing, declared], [[idle(20), idle(20, meter="declared")]]) == (missing, declared)


def test_one_figure_of_several_meters() -> None:
    gpu = Energy("nvml", "counter", ("gpu board",), 10.0, 3000.0, 20.0)
    cpu = Energy("rapl", "counter", ("cpu package", "dram"), 10.0, 500.0, 10.0, flags=("low",))
    amd = Energy("amdgpu", "sampled", ("cpu package", "gpu"), 10.0, 700.0, 5.0)
    plug = Energy("plug", "wall", ("wall",), 10.0, 4200.0, 60.0)
    said = Energy("declared", "declared", ("wall",), 10.0, 4000.0)
    most = Energy("bound", "bound", ("gpu board",), 10.0, 9000.0)
    absent = Energy("any", "none", reason="no_meter")
    assert combined([gpu, cpu, plug, said]) == plug
    both = combined([gpu, cpu, said, most])
    assert both == Energy("nvml + rapl", "counter", ("gpu board", "cpu package", "dram"), 10.0, 3500.0, 30.0,
                          flags=("low",))  # fmt: skip
    assert combined([amd, cpu]) == cpu  # both count the processor: the better one
    dedicated = replace(amd, covers=("gpu board",))
    mixed = combined([dedicated, cpu])
    assert mixed is not None and (mixed.tier, mixed.gross_j) == ("sampled", 1200.0)
    assert combined([said, most]) == said
    assert combined([most]) == most
    assert combined([absent]) is None and combined([]) is None


def test_a_sum_with_a_missing_part_is_missing() -> None:
    gpu = Energy("nvml", "counter", ("gpu board",), 10.0, 3000.0, 20.0)
    cpu = Energy("rapl", "counter", ("cpu package",), 10.0, reason="counter_reset")
    both = combined([gpu, cpu])
    assert both is not None and (both.gross_j, both.reason, both.idle_w) == (None, "counter_reset", None)
