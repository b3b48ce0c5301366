"""What one repeat holds, with the real engine and the built-in model: conversations, long texts, several answers at
once; and the meters beside it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from bendi.bench.cells import cells_of
from bendi.bench.journal import Journal
from bendi.bench.opening import Garage
from bendi.bench.repeats import Place, too_short_for
from bendi.bench.studies import Run
from bendi.bench.study import Care, EngineChoice, ModelChoice, Study
from bendi.bench.subjects import Files, subjects_of
from bendi.energy import MeterFacts, Sample, Sampler, idle_need
from bendi.energy import windows as windows_module
from bendi.energy.fake import FakeMeter, PowerOverTime
from bendi.results import Cache, Repeat, Results, StudyFacts, Workload
from bendi.settings import load_settings
from bendi.store import Store

FAST = MeterFacts("fast", "counter", ("wall",), 0.005, counter_refresh_s=0.002)
CARE = Care(blocks=2, warm_up_least=1, warm_up_most=2, check=False)


def measured(
    workload: Workload, folder: Path, *, concurrency: int = 1, cache: Cache = "fresh", place: Place | None = None
) -> Results:
    settings = replace(load_settings(), engine="wheel")
    study = Study(
        "s", (ModelChoice("demo"),), (EngineChoice("e"),), (workload,), concurrency=(concurrency,), cache=(cache,),
        care=place.care if place else CARE, folder=folder,
    )  # fmt: skip
    (subject,) = subjects_of(study, Store(settings))
    cells = cells_of(study, {"demo": [subject.quantization]})
    journal = Journal(folder / "r.jsonl", StudyFacts("id", "s", "", 0.0, study.care.blocks, 1, "0", {}, cells))
    garage = Garage({each.label: each for each in study.engines}, settings, Files(folder / "f", print))
    subjects = {(subject.model, subject.quantization): subject}
    Run(study, journal, garage, place or Place(study.care, 1, folder), subjects).run()
    assert not journal.results.failures
    return journal.results


def check_together(repeat: Repeat, concurrency: int) -> None:
    """Never more answers at the same time than asked for, and several where several were: a thread that the system lets
    wait may miss the others, whose answers take a few hundredths of a second."""
    edges = sorted([(a.started_s, 1) for a in repeat.answers] + [(a.ended_s, -1) for a in repeat.answers])
    most = now = 0
    for _time_s, change in edges:
        now += change
        most = max(most, now)
    assert min(concurrency, 2) <= most <= concurrency


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_conversation_finds_its_turns_in_the_cache(concurrency: int, tmp_path: Path) -> None:
    """Every turn holds all turns before it, and computes only what is new. There are as many conversations as the
    engine holds: one more may take the place of another between two of its turns."""
    requests = 2 if concurrency == 1 else 1
    results = measured(Workload("talk", 48, 32, turns=3, requests=requests), tmp_path, concurrency=concurrency)
    assert len(results.repeats) == 2
    for repeat in results.repeats:
        assert len(repeat.answers) == 3 * requests * concurrency
        check_together(repeat, concurrency)
        for place, answer in enumerate(repeat.answers):
            assert answer.completion_tok == 32 and answer.cached_tok is not None
            if place % 3:
                before = repeat.answers[place - 1]
                assert answer.started_s >= before.ended_s
                assert answer.prompt_tok > before.prompt_tok + before.completion_tok
                # But for the last tokens, which the next turn may read otherwise.
                assert answer.cached_tok >= before.prompt_tok - 8
                assert 24 < answer.computed_tok < 48 + 32 + 48
            else:
                assert 24 < answer.prompt_tok < 96 and answer.cached_tok < 16


@pytest.mark.parametrize("text", ["built-in", "built-in-zh", ""])
def test_texts_are_about_as_long_as_asked(text: str, tmp_path: Path) -> None:
    """From the first repeat on, whatever a token of the model is in that language; also where the collection is shorter
    than the prompt."""
    if text:
        results = measured(Workload("long", 1500, 4, text=text), tmp_path)
        wanted = 1500
    else:
        results = measured(Workload("talk", 200, 4, turns=2), tmp_path)
        wanted = 200
    for repeat in results.repeats:
        assert abs(repeat.answers[0].prompt_tok - wanted) < 0.2 * wanted
        assert (repeat.answers[0].cached_tok or 0) < 16


def test_prompts_do_not_depend_on_how_long_it_took_to_warm_up(tmp_path: Path) -> None:
    asked = []
    for number, most in enumerate((1, 4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = Place(replace(CARE, warm_up_most=most, steady_cv=0.001), 1, folder)
        results = measured(Workload("w", 100, 4, text="built-in"), folder, place=place)
        assert {repeat.warmed_up for repeat in results.repeats} <= {1, 2, 3, 4}
        asked.append([(a.prompt_tok, a.text_sha256) for repeat in results.repeats for a in repeat.answers])
    assert asked[0] == asked[1]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_deep_context_is_there_before_the_window(concurrency: int, tmp_path: Path) -> None:
    """In each of the conversations that the engine holds at once."""
    results = measured(Workload("deep", 32, 64, depth_tok=512, requests=2), tmp_path, concurrency=concurrency)
    for repeat in results.repeats:
        assert len(repeat.answers) == 2 * concurrency
        check_together(repeat, concurrency)
        assert {answer.prompt_tok for answer in repeat.answers} == {544}
        assert all((answer.cached_tok or 0) >= 512 for answer in repeat.answers)


@pytest.mark.parametrize("cache", ["fresh", "warm"])
def test_many_at_once_with_and_without_a_cache(cache: Cache, tmp_path: Path) -> None:
    results = measured(Workload("q", 128, 64), tmp_path, concurrency=4, cache=cache)
    for repeat in results.repeats:
        check_together(repeat, 4)
        cached = [answer.cached_tok or 0 for answer in repeat.answers]
        assert max(cached) == 0 if cache == "fresh" else min(cached) > 100


class Counting(FakeMeter):
    reads = 0

    def sample(self) -> Sample:
        self.reads += 1
        return super().sample()


def test_readings_are_let_go_after_each_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a study of any length there are never more of them than one repeat needs."""
    monkeypatch.setattr(windows_module, "LEAST_IDLE_S", 0.2)
    meter = Counting(FAST, PowerOverTime([(0.0, 100.0)]), time.monotonic)
    with Sampler([meter]) as sampler:
        place = Place(replace(CARE, blocks=6), 1, tmp_path, meters=sampler)
        results = measured(Workload("w", 64, 32, requests=20), tmp_path, place=place)
        ((_facts, track),) = sampler.tracks()
    assert len(results.repeats) == 6
    for repeat in results.repeats:
        (energy,) = repeat.energy
        assert energy.gross_j == pytest.approx(100 * repeat.window_s, rel=0.1)
        assert energy.idle_w == pytest.approx(100, rel=0.1)
    assert len(track.samples) < meter.reads / 4


def test_idle_time_is_that_of_the_slowest_meter(tmp_path: Path) -> None:
    plug = MeterFacts("plug", "wall", ("wall",), 1.0, counter_refresh_s=60.0, power_refresh_s=1.0, prefers="power")
    declared = MeterFacts("declared", "declared", ("wall",), 1.0, power_refresh_s=0.0, prefers="power")
    steady = PowerOverTime([(0.0, 10.0)])

    def place(care: Care, *facts: MeterFacts) -> Place:
        return Place(care, 1, tmp_path, meters=Sampler([FakeMeter(each, steady, time.monotonic) for each in facts]))

    assert place(Care(), FAST, plug, declared).idle_s == 12.0
    assert place(Care(), FAST).idle_s == 5.0
    assert place(Care(), declared).idle_s == 0.0
    assert Place(Care(), 1, tmp_path).idle_s == 0.0
    short = Care(idle_s=5.0)
    needs = [need for facts in (FAST, plug) if (need := idle_need(facts))]
    assert place(short, FAST, plug).idle_s == 5.0 and [need.meter for need in too_short_for(short, needs)] == ["plug"]
    assert not too_short_for(Care(idle_s=10.0), needs) and not too_short_for(Care(idle_s=0.0), needs)


def test_an_idle_time_in_which_no_meter_tells_anything_is_not_waited_for_again(tmp_path: Path) -> None:
    slow = MeterFacts("slow", "wall", ("wall",), 0.05, power_refresh_s=1.0, prefers="power")
    with Sampler([FakeMeter(slow, PowerOverTime([(0.0, 10.0)]), time.monotonic)]) as sampler:
        place = Place(Care(idle_s=0.1), 1, tmp_path, meters=sampler)
        place.idle()
        assert place.idle_s == 0.0
