"""Meters read in threads, in real time; what they show is computed, so the answers are known."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from traces import COUNTER, POWER, WALL, Clock, times, track_of

from bendi.energy import (
    EnergyOptions,
    MeterFacts,
    MeterFailed,
    Sample,
    Sampler,
    combined,
    energy_of,
    find_meters,
    idle_need,
    with_idle,
)
from bendi.energy.fake import FakeMeter, PowerOverTime
from bendi.energy.found import Absent
from bendi.energy.plugs import find_plug
from bendi.energy.sampler import _Reader
from bendi.energy.windows import Track, looks_back_s
from plug_server import Answer, Plug, shelly2

FAST_COUNTER = replace(COUNTER, period_s=0.1, counter_refresh_s=0.02)
FAST_POWER = replace(POWER, period_s=0.1, power_refresh_s=0.02)


def steady(facts: MeterFacts, power_w: float = 150.0) -> FakeMeter:
    return FakeMeter(facts, PowerOverTime([(0.0, power_w)]), time.monotonic)


def test_windows_of_several_meters() -> None:
    meters = [steady(FAST_COUNTER), steady(FAST_POWER, 80.0)]
    with Sampler(meters, [Absent("rapl", "rapl_permission")]) as sampler:
        begin_s = sampler.mark()
        time.sleep(1.0)
        end_s = sampler.mark()
        counter, power, absent = sampler.energy(begin_s, end_s)
        assert [facts.name for facts, _track in sampler.tracks()] == ["counter", "power"]
    assert counter.gross_j == pytest.approx(150 * (end_s - begin_s), rel=0.01)
    assert power.gross_j == pytest.approx(80 * (end_s - begin_s), rel=0.01)
    assert (absent.meter, absent.tier, absent.gross_j, absent.reason) == ("rapl", "none", None, "rapl_permission")
    assert absent.window_s == counter.window_s == end_s - begin_s
    assert all(meter.closed for meter in meters)


def test_counter_and_power_beside_each_other() -> None:
    facts = replace(FAST_COUNTER, name="nvml", power_refresh_s=0.02)
    with Sampler([FakeMeter(facts, PowerOverTime([(0.0, 150.0)]), time.monotonic, factor=0.8)]) as sampler:
        begin_s = sampler.mark()
        time.sleep(1.0)
        counter, power = energies = sampler.energy(begin_s, sampler.mark())
    assert (counter.meter, counter.tier, counter.flags) == ("nvml", "counter", ("short_window", "counter_vs_integral"))
    assert (power.meter, power.tier) == ("nvml power", "sampled")
    assert counter.mean_w == pytest.approx(120, rel=0.01)
    assert power.mean_w == pytest.approx(150, rel=0.01)
    assert combined(energies) == counter


def test_idle_before_and_after() -> None:
    begin_s = time.monotonic() + 0.6
    power = PowerOverTime([(0.0, 30.0), (begin_s, 200.0), (begin_s + 1.0, 30.0)])
    with Sampler([FakeMeter(replace(FAST_COUNTER, period_s=0.05), power, time.monotonic)]) as sampler:
        time.sleep(max(begin_s + 1.7 - time.monotonic(), 0))
        before, busy, after = (
            sampler.energy(begin_s + low, begin_s + high) for low, high in ((-0.5, -0.1), (0, 1), (1.1, 1.6))
        )
    (energy,) = with_idle(busy, [before, after])
    assert energy.gross_j == pytest.approx(200, rel=0.05)
    assert energy.idle_w == pytest.approx(30, rel=0.01)
    assert energy.net_j == pytest.approx(170, rel=0.06)


class Moody(FakeMeter):
    """Fails as it is told to."""

    error: BaseException | None = None

    def sample(self) -> Sample:
        if self.error is not None:
            raise self.error
        return super().sample()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MeterFailed("plug_unreachable"), "plug_unreachable"), (ZeroDivisionError("of a library"), "meter_failed")],
)
def test_a_meter_that_fails_in_the_middle_takes_no_other_with_it(error: BaseException, reason: str) -> None:
    moody = Moody(FAST_POWER, PowerOverTime([(0.0, 80.0)]), time.monotonic)
    with Sampler([moody, steady(FAST_COUNTER)]) as sampler:
        begin_s = sampler.mark()
        time.sleep(0.2)
        moody.error = error
        time.sleep(0.5)
        end_s = sampler.mark()
        failed, counter = sampler.energy(begin_s, end_s)
        assert (failed.gross_j, failed.reason) == (None, reason)
        assert counter.gross_j == pytest.approx(150 * (end_s - begin_s), rel=0.02)
        moody.error = None
        time.sleep(0.1)
        begin_s = sampler.mark()
        time.sleep(0.6)
        again, _counter = sampler.energy(begin_s, sampler.mark())
        assert again.gross_j is not None  # it came back


def test_a_meter_that_never_answers_in_time() -> None:
    """The others are read at their period, and what is asked for at the end does not wait for ever."""
    answers = threading.Event()

    class Slow(FakeMeter):
        def sample(self) -> Sample:
            answers.wait(20.0)
            return super().sample()

    slow = Slow(FAST_POWER, PowerOverTime([(0.0, 80.0)]), time.monotonic)
    releasing = threading.Timer(1.0, answers.set)
    releasing.start()
    with Sampler([slow, steady(FAST_COUNTER)]) as sampler:  # entered when the first reading is there
        assert answers.is_set()
        answers.clear()
        begin_s = sampler.mark()
        time.sleep(0.6)
        end_s = sampler.mark()
        threading.Timer(0.2, answers.set).start()
        late, counter = sampler.energy(begin_s, end_s)
    releasing.join()
    assert counter.gross_j == pytest.approx(150 * (end_s - begin_s), rel=0.02)
    assert late.reason == "sampling_gap"


def test_readings_are_forgotten() -> None:
    with Sampler([steady(FAST_COUNTER)]) as sampler:
        time.sleep(0.5)
        middle_s = sampler.mark()
        time.sleep(0.3)
        (whole,) = sampler.energy(middle_s, end_s := sampler.mark())
        sampler.forget(middle_s)
        ((_facts, track),) = sampler.tracks()
        # Kept are those that tell where the edge lies between two values of the counter.
        before = [sample for sample in track.samples if sample.time_s < middle_s - 2 * FAST_COUNTER.period_s]
        assert len(before) <= 1
        (energy,) = sampler.energy(middle_s, end_s)
        assert energy.gross_j == whole.gross_j is not None


def test_a_slow_counter_keeps_what_its_edges_need() -> None:
    """Of a value that is new only now and then, the time at which it became so is what counts."""
    assert looks_back_s(WALL) == 120.0
    assert looks_back_s(FAST_POWER) == FAST_POWER.period_s
    facts = replace(WALL, counter_refresh_s=7.0, prefers="counter")
    clock = Clock(1000.0)
    reader = _Reader(FakeMeter(facts, PowerOverTime([(0.0, 100.0), (1300.0, 200.0)]), clock), clock)
    for second in range(400):
        clock.now_s = 1000.0 + second
        reader._read()
    whole = energy_of(facts, reader.track(), 1300.0, 1390.0)
    reader.forget(1300.0)
    track = reader.track()
    assert 1284.0 <= track.samples[0].time_s <= 1286.0
    assert energy_of(facts, track, 1300.0, 1390.0) == whole
    assert whole.gross_j is not None
    late = Track([sample for sample in track.samples if sample.time_s >= 1299.0], track.failures)
    assert energy_of(facts, late, 1300.0, 1390.0) != whole


def test_how_long_nothing_must_run() -> None:
    need = idle_need(WALL)
    assert need is not None and (need.meter, need.every_s, need.least_s, need.wanted_s) == ("wall", 1.0, 10.0, 12.0)
    # It is enough: as long as it says, and not a reading less.
    clock = Clock()
    track = track_of(FakeMeter(WALL, PowerOverTime([(0.0, 42.0)]), clock), clock, times(0.0, 20.0, 1.0))
    assert energy_of(WALL, track, 3.3, 3.3 + need.wanted_s).mean_w == pytest.approx(42.0)
    assert energy_of(WALL, track, 3.3, 3.3 + need.least_s - 0.1).reason == "window_too_short"
    slow = idle_need(WALL, reading_s=3.0)
    assert slow is not None and slow.wanted_s == 36.0
    fast = idle_need(FAST_COUNTER)
    assert fast is not None and fast.wanted_s == 5.0
    for tier in ("declared", "bound"):
        assert idle_need(replace(WALL, tier=tier)) is None  # type: ignore[arg-type]


def test_a_plug_that_answers_slowly_needs_longer() -> None:
    """What counts is how often it really answers, not how often it is asked."""

    def answer(path: str) -> Answer:
        time.sleep(0.25)
        return 200, shelly2(60.0, 1.0), {}

    with Plug(answer) as plug:
        meter, _reason = find_plug(plug.url, "shelly2")
        assert meter is not None
        quick = replace(meter.facts, period_s=0.1, power_refresh_s=0.1)
        meter.facts = quick  # type: ignore[misc]
        with Sampler([meter]) as sampler:
            time.sleep(1.6)
            (need,) = sampler.idle_needs()
    assert 0.25 <= need.every_s < 1.0 and need.least_s == pytest.approx(1.0)


def test_no_meters() -> None:
    with Sampler((), [Absent("any", "no_meter")]) as sampler:
        (energy,) = sampler.energy(1.0, 2.0)
    assert (energy.tier, energy.gross_j, energy.reason, energy.window_s) == ("none", None, "no_meter", 1.0)


def test_what_the_user_declares() -> None:
    found = find_meters(EnergyOptions(declared_w=120.0, declared_idle_w=20.0, hardware=False))
    with Sampler(found.meters, found.absent) as sampler:
        begin_s = sampler.mark()
        time.sleep(0.05)
        end_s = sampler.mark()
        (energy,) = sampler.energy(begin_s, end_s)
    assert energy.gross_j == pytest.approx(120 * (end_s - begin_s))
    assert energy.net_j == pytest.approx(100 * (end_s - begin_s))


def test_this_machine() -> None:
    """Whatever it has: each row has a figure or a known reason."""
    found = find_meters()
    with Sampler(found.meters, found.absent) as sampler:
        begin_s = sampler.mark()
        time.sleep(1.5)
        energies = sampler.energy(begin_s, sampler.mark())
    assert energies
    for energy in energies:
        assert (energy.gross_j is None) == bool(energy.reason)
