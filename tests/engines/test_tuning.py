"""The search for faster settings: on made-up machines, where the truth is known, and one short real run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bendi.engines import LoadRequest, open_recorded_engine
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.paired import speedup
from bendi.engines.prepare import prepare, worker_config
from bendi.engines.registry import wheel_build
from bendi.engines.tuning import TuneRequest, tune
from bendi.engines.tuning_bench import EngineBench, Subject
from bendi.engines.tuning_options import Situation, options
from bendi.engines.tuning_report import (
    Answers,
    Sample,
    Shape,
    Trial,
    Tuned,
    TuningReport,
    from_json,
    to_json,
)  # fmt: skip
from bendi.engines.tuning_search import LEAST_GAIN, Option, Search
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, OutOfMemory, StoreError, UsageError
from bendi.hardware import Cpu, detect_core_cpus, detect_machine
from bendi.measured import TuningRow, TuningStore, machine_id, model_key
from bendi.planner.plan import WORKLOADS
from bendi.settings import Settings, load_settings

CHAT = WORKLOADS["chat"]
DEFAULT = Tuned()
OPTIONS = (
    Option("threads", "4", {"threads": 4}),
    Option("flash_attention", "off", {"flash_attention": False}),
    Option("repack", "off", {"repack": False}),
    Option("batch_tok", "256", {"batch_tok": 256}),
)
Truth = Callable[[Tuned], float]


@dataclass
class MadeUpBench:
    """A machine of which the truth is known. `slowness`: how many times as long requests take with some settings.

    `noise`: of every sample, at most; `luck`: of every start of an engine, at most. `busy`: how many times as long
    everything takes while something else runs, in one pair of `busy_every`. `broken`: settings that do not work.
    """

    slowness: Truth
    noise: float = 0.0
    luck: float = 0.0
    busy: float = 1.0
    busy_every: int = 0
    broken: Callable[[Tuned], bool] = lambda _tuned: False
    seed: int = 0
    budget_s: float = 200.0
    most_s: float = 0.0
    notices_busy: bool = True
    now_s: float = 0.0
    started: list[Tuned] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._running: dict[Tuned, float] = {}
        self._samples = 0

    def start(self, tuned: Tuned) -> None:
        if self.broken(tuned):
            raise EngineCrashed("it died")
        if tuned not in self._running:
            self._running[tuned] = exp(self._chance.uniform(-self.luck, self.luck))
            self.started.append(tuned)
            self.now_s += 2.0

    def sample(self, tuned: Tuned) -> Sample:
        self.start(tuned)
        pair = self._samples // 2
        self._samples += 1
        taken_s = self.slowness(tuned) * self._running[tuned] * exp(self._chance.uniform(-self.noise, self.noise))
        if self.busy_every and pair % self.busy_every == 0:
            # It begins or ends in the middle, so only one of both is slow.
            taken_s *= self.busy if self._chance.random() < 0.5 else 1.0
        self.now_s += taken_s
        return Sample(taken_s / 1000, taken_s / 100)

    def keep(self, *tuned: Tuned) -> None:
        self._running = {one: luck for one, luck in self._running.items() if one in tuned}

    def quiet(self) -> bool:
        last_pair = (self._samples - 1) // 2
        return not (self.notices_busy and self.busy_every and self._samples and last_pair % self.busy_every == 0)

    def left_s(self) -> float:
        return self.budget_s - self.now_s

    def ask_for(self, left_s: float) -> None:
        self.budget_s = max(self.budget_s, min(self.now_s + left_s, self.most_s))

    def cost_s(self, pairs: int, starts: int) -> float:
        return 2.0 * pairs + 2.0 * starts


def times(**factors: float) -> Truth:
    """Requests take so many times as long with each setting that differs from the default."""

    def slowness(tuned: Tuned) -> float:
        total = 1.0
        for name, factor in factors.items():
            if getattr(tuned, name) != getattr(DEFAULT, name):
                total *= factor
        return total

    return slowness


def search(bench: MadeUpBench) -> tuple[Tuned, tuple[Trial, ...], Trial | None]:
    found = Search(bench, CHAT, lambda _setting, _value: None).run(DEFAULT, OPTIONS)
    return found.chosen, found.trials, found.final


def test_what_is_faster_is_found_one_change_at_a_time() -> None:
    bench = MadeUpBench(times(threads=0.8, flash_attention=0.9, repack=1.5), noise=0.02)
    chosen, trials, final = search(bench)
    assert chosen == Tuned(threads=4, flash_attention=False)
    assert [trial.verdict for trial in trials] == ["faster", "faster", "slower", "not faster"]
    assert trials[1].against == Tuned(threads=4), "each is compared with the best so far"
    assert trials[2].pairs == 2, "what is clearly slower is not measured for long"
    assert final is not None and final.speed is not None
    assert (final.speed.low or 9) < 1 / (0.8 * 0.9) < (final.speed.high or 0)
    assert bench.started.count(DEFAULT) == 4, "the last comparison has processes of its own"
    assert bench.left_s() >= 0


def test_nothing_is_changed_without_a_gain() -> None:
    chosen, trials, final = search(MadeUpBench(times(threads=1.1), noise=0.01))
    assert (chosen, final) == (DEFAULT, None)
    assert {trial.verdict for trial in trials} == {"slower", "not faster"}


def test_a_gain_that_is_not_worth_it() -> None:
    chosen, _trials, _final = search(MadeUpBench(times(threads=1 / (1 + LEAST_GAIN / 2))))
    assert chosen == DEFAULT


@hypothesis_settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.fixed_dictionaries(
        {name: st.floats(0.6, 1.6) for name in ("threads", "flash_attention", "repack", "batch_tok")}
    ),
    st.floats(0, 0.1), st.integers(0, 10**6), st.floats(20, 400), st.integers(0, 4),
)  # fmt: skip
def test_it_never_ends_slower_than_the_default(
    factors: dict[str, float], noise: float, seed: int, budget_s: float, busy_every: int
) -> None:
    truth = times(**factors)
    bench = MadeUpBench(truth, noise=noise, seed=seed, budget_s=budget_s, busy=1.8, busy_every=busy_every)
    chosen, trials, final = search(bench)
    assert truth(chosen) <= truth(DEFAULT)
    assert (final is not None and final.verdict == "faster") == (chosen != DEFAULT)
    assert len(trials) == len(OPTIONS)


@pytest.mark.parametrize("notices_busy", [True, False])
def test_equal_settings_are_rarely_taken_for_faster(notices_busy: bool) -> None:
    """Also where every process is fast or slow by luck, and where nobody notices what else is running."""
    taken = 0
    for seed in range(300):
        bench = MadeUpBench(lambda _tuned: 1.0, 0.03, 0.015, 1.6, 5, seed=seed, notices_busy=notices_busy)
        taken += search(bench)[0] != DEFAULT
    assert taken <= 300 * 0.05


def test_luck_of_one_process_is_not_taken_for_speed() -> None:
    lucky = iter([1.0, 0.8, *[1.0] * 50])
    bench = MadeUpBench(lambda _tuned: 1.0)
    begin = bench.start

    def start(tuned: Tuned) -> None:
        known = tuned in bench._running
        begin(tuned)
        if not known:
            bench._running[tuned] = next(lucky)

    bench.start = start  # type: ignore[method-assign]
    chosen, trials, final = search(bench)
    assert trials[0].verdict == "faster"
    assert final is not None and final.verdict == "not faster"
    assert chosen == DEFAULT


def test_pairs_beside_which_something_ran_are_taken_again() -> None:
    bench = MadeUpBench(times(threads=0.9), noise=0.01, busy=3.0, busy_every=3)
    found = Search(bench, CHAT, lambda _setting, _value: None).run(DEFAULT, OPTIONS[:1])
    assert found.chosen == Tuned(threads=4)
    assert found.trials[0].retaken > 0
    assert 0 < found.disturbed < found.pairs


def test_what_does_not_work_is_passed_over() -> None:
    truth = times(threads=0.5, flash_attention=0.8)
    chosen, trials, _final = search(MadeUpBench(truth, broken=lambda tuned: tuned.threads == 4))
    assert chosen == Tuned(flash_attention=False)
    assert (trials[0].verdict, trials[0].reason) == ("failed", "it died")


def test_a_default_that_does_not_work_is_an_error() -> None:
    with pytest.raises(EngineError):
        search(MadeUpBench(times(), broken=lambda tuned: tuned == DEFAULT))


def test_what_breaks_in_the_last_comparison_is_not_chosen() -> None:
    bench = MadeUpBench(times(threads=0.7))
    bench.broken = lambda tuned: tuned.threads == 4 and tuned not in bench._running and tuned in bench.started
    chosen, _trials, final = search(bench)
    assert final is not None and final.verdict == "failed" and final.reason
    assert chosen == DEFAULT


def test_the_budget_is_kept() -> None:
    bench = MadeUpBench(times(threads=0.9, batch_tok=0.5), budget_s=45.0)
    chosen, trials, _final = search(bench)
    assert chosen == Tuned(threads=4)
    assert [trial.verdict for trial in trials[1:]] == ["no time"] * 3
    assert bench.left_s() > -5


@pytest.mark.parametrize("busy_every", [0, 5])
def test_a_budget_that_may_grow_is_enough_for_every_change(busy_every: int) -> None:
    bench = MadeUpBench(times(threads=0.9, batch_tok=0.5), busy=1.3, busy_every=busy_every, budget_s=20.0, most_s=900.0)
    chosen, trials, final = search(bench)
    assert final is not None and "no time" not in [trial.verdict for trial in trials]
    assert chosen == Tuned(threads=4, batch_tok=256)
    assert bench.left_s() > -5 and bench.budget_s < 200


def test_a_budget_grows_no_further_than_it_may() -> None:
    bench = MadeUpBench(times(threads=0.9, batch_tok=0.5), budget_s=20.0, most_s=45.0)
    search(bench)
    assert bench.budget_s == 45.0 and bench.left_s() > -5


RATIOS = st.lists(st.floats(0.5, 2), min_size=1, max_size=14)


@given(RATIOS)
def test_intervals(ratios: list[float]) -> None:
    ones = [1.0] * len(ratios)
    found, turned = speedup(ratios, ones), speedup(ones, ratios)
    assert turned.middle == pytest.approx(1 / found.middle)
    if len(ratios) < 6:
        assert found.low is found.high is None and not found.certain
        return
    assert found.low is not None and found.high is not None and turned.high is not None
    assert min(ratios) <= found.low * (1 + 1e-9) and found.high <= max(ratios) * (1 + 1e-9)
    assert found.low <= found.middle * (1 + 1e-9) and found.middle <= found.high * (1 + 1e-9)
    assert turned.high == pytest.approx(1 / found.low)


def test_intervals_leave_out_what_the_tables_say() -> None:
    """Walsh averages outside of the interval on each side, for 6 to 12 pairs, two-sided level 0.05: Hollander, Wolfe
    and Chicken, table A.4."""
    for pairs, dropped in ((6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (11, 10), (12, 13)):
        logs = [1.5**number / 1e3 for number in range(pairs)]
        averages = sorted((a + b) / 2 for at, a in enumerate(logs) for b in logs[at:])
        found = speedup([exp(value) for value in logs], [1.0] * pairs)
        assert found.low == pytest.approx(exp(averages[dropped]))
        assert found.high == pytest.approx(exp(averages[-1 - dropped]))


SITUATION = Situation(
    cpu=Cpu(physical_cores=8, logical_cores=8, usable_cores=8, performance_cores=8),
    default=DEFAULT, shape=Shape(1500, 150, 32), pp_tok_s=100.0, kv_type="f16",
)  # fmt: skip


def tried(situation: Situation) -> list[tuple[str, str]]:
    return [(option.setting, option.value) for option in options(situation)]


def test_what_is_tried() -> None:
    found = tried(SITUATION)
    assert ("threads", "8") not in found, "the engine takes all cores by itself"
    assert found[0] == ("threads", "6")
    assert ("threads", "4, 8 for prompts") in found
    assert found[-2:] == [("flash_attention", "off"), ("repack", "off")]
    assert ("threads", "8") in tried(replace(SITUATION, default=Tuned(threads=4)))


def test_what_makes_no_difference_is_not_tried() -> None:
    names = {setting for setting, _value in tried(replace(SITUATION, free_threads=False, repacked=False))}
    assert names == {"flash_attention"}
    assert tried(replace(SITUATION, free_threads=False, repacked=False, kv_type="q8_0")) == []


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        (Cpu(physical_cores=8, logical_cores=8, usable_cores=8, performance_cores=8), set()),
        (Cpu(physical_cores=8, logical_cores=16, usable_cores=8, performance_cores=8), {"keep_to_cores"}),
        (Cpu(physical_cores=8, logical_cores=8, usable_cores=8, performance_cores=4), {"keep_to_cores"}),
        (Cpu(physical_cores=8, logical_cores=8, usable_cores=8, performance_cores=8, numa_nodes=2), {"spread_numa"}),
    ],
)
def test_where_threads_run_is_tried_where_there_is_a_choice(cpu: Cpu, expected: set[str]) -> None:
    names = {setting for setting, _value in tried(replace(SITUATION, cpu=cpu))}
    assert names & {"keep_to_cores", "spread_numa"} == expected


def test_batches_are_as_long_as_a_cancelled_prompt_may_wait() -> None:
    long = replace(SITUATION, shape=Shape(0, 1024, 32), free_threads=False, repacked=False)
    assert ("batch_tok", "1024") not in tried(long)
    assert ("batch_tok", "256") in tried(long)
    assert ("batch_tok", "1024") in tried(replace(long, pp_tok_s=2000.0))


def test_other_builds_come_first() -> None:
    assert options(replace(SITUATION, builds=("wheel",)))[0].applied(DEFAULT) == Tuned(engine="wheel")


def test_what_the_user_says_wins() -> None:
    places = Tuned(keep_to_cores=True, spread_numa=True).applied(LoadRequest(Path("x")))
    assert (places.keep_to_cores, places.spread_numa) == (True, True)
    tuned = Tuned(threads=4, prompt_threads=8, flash_attention=False, repack=False, batch_tok=256)
    load = tuned.applied(LoadRequest(Path("x")))
    assert (load.threads, load.prompt_threads, load.flash_attention) == (4, 8, False)
    assert (load.repack, load.batch_tok) == (False, 256)
    said = LoadRequest(Path("x"), threads=2, flash_attention=True, repack=True, batch_tok=128)
    assert tuned.applied(said) == said


def test_the_worker_is_told(demo_model: Path) -> None:
    load = Tuned(3, 5, False, False, 256).applied(LoadRequest(demo_model, 512))
    prepared = prepare(load)
    config = worker_config(load, prepared)
    assert (config.threads, config.prompt_threads, config.batch_tok) == (3, 5, 256)
    assert (config.flash_attention, config.repack) == (False, False)
    assert (prepared.setup.n_ubatch, prepared.setup.flash_attention) == (256, False)


def test_threads_are_told_where_to_run(demo_model: Path) -> None:
    load = Tuned(keep_to_cores=True, spread_numa=True).applied(LoadRequest(demo_model, 512))
    config = worker_config(load, prepare(load))
    assert config.spread_numa
    assert config.cpus == list(detect_core_cpus())
    assert len(worker_config(replace(load, threads=1), prepare(load)).cpus) == min(1, len(config.cpus))


TRIAL = Trial(
    "threads", "4", Tuned(threads=4), DEFAULT, "faster", 6, 1, 100.0, 10.0, 90.0, 9.0, speedup([1.2] * 6, [1.0] * 6)
)  # fmt: skip
REPORT = TuningReport(
    model="demo", model_key="k", machine="m", build="b", kv_type="f16", workload="chat", shape=Shape(1500, 150, 32),
    default=DEFAULT, chosen=Tuned(threads=1, batch_tok=256),
    trials=(TRIAL, replace(TRIAL, verdict="no time", speed=None)), final=replace(TRIAL, setting="", value=""),
    answers=Answers(0.0, 0.0, True), measured_at="2026-11-21", took_s=100.0,
)  # fmt: skip


def test_reports_come_back() -> None:
    for report in (REPORT, replace(REPORT, final=None, answers=None, chosen=DEFAULT)):
        assert from_json(to_json(report)) == report
    assert REPORT.gained


@pytest.mark.parametrize(
    "change", [{"schema": 0}, {"workload": "x"}, {"chosen": {}, "final": 3}, {"chosen": {"threads": -1}}, {"shape": []}]
)
def test_reports_that_cannot_be_used(change: dict[str, object]) -> None:
    with pytest.raises(StoreError):
        from_json(json.dumps(json.loads(to_json(REPORT)) | change))
    for batch_tok in (0, 512.0, "512", 10**9):
        chosen = {"chosen": {"batch_tok": batch_tok}}
        with pytest.raises(StoreError):
            from_json(json.dumps(json.loads(to_json(REPORT)) | chosen))


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def save(settings: Settings, report: TuningReport, demo_model: Path, **other: str) -> None:
    row = {
        "machine_id": machine_id(detect_machine()), "model_key": model_key(prepare(LoadRequest(demo_model)).headers),
        "build": wheel_build(), "kv_type": "f16", "model": "demo", "text": to_json(report),
    }  # fmt: skip
    with closing(TuningStore(settings.measured_file)) as store:
        assert store.save(TuningRow(**(row | other)))


def setup_of(load: LoadRequest, settings: Settings) -> tuple[int, int, str]:
    """Batch and threads that an engine was loaded with, and what was said."""
    notices: list[str] = []
    with closing(open_recorded_engine(load, settings, name="demo", on_notice=notices.append)) as engine:
        assert isinstance(engine, LlamaServerEngine)
        config = engine.worker._config
        return engine.prepared.setup.n_ubatch, config.threads, " ".join(notices)


def test_tuned_settings_are_used(demo_model: Path, settings: Settings) -> None:
    save(settings, REPORT, demo_model)
    load = LoadRequest(demo_model, 512)
    assert setup_of(load, settings) == (256, 1, "")
    assert setup_of(replace(load, threads=2, batch_tok=128), settings) == (128, 2, ""), "what is asked for wins"
    assert setup_of(replace(load, type_k="q8_0", type_v="q8_0"), settings)[0] == 512, "tuned for another KV type"


@pytest.mark.parametrize(
    "other", [{"build": "xllamacpp 1"}, {"machine_id": "0"}, {"model_key": "0"}, {"text": "{nonsense"}], ids=str
)
def test_what_was_tuned_elsewhere_is_not_used(other: dict[str, str], demo_model: Path, settings: Settings) -> None:
    save(settings, REPORT, demo_model, **other)
    assert setup_of(LoadRequest(demo_model, 512), settings) == (512, 0, "")


def test_settings_that_do_not_work_any_more(demo_model: Path, settings: Settings) -> None:
    save(settings, replace(REPORT, chosen=Tuned(engine="gone", batch_tok=256)), demo_model)
    batch_tok, _threads, notice = setup_of(LoadRequest(demo_model, 512), settings)
    assert batch_tok == 512
    assert "gone" in notice and "bendi tune --forget demo" in notice
    assert setup_of(LoadRequest(demo_model, 512), replace(settings, engine="wheel")) == (512, 0, "")


@pytest.fixture
def bench(demo_model: Path, settings: Settings, tmp_path: Path) -> Iterator[EngineBench]:
    load = LoadRequest(demo_model, 1024)
    prepared = prepare(load)
    subject = Subject(load, prepared, CHAT, prepared.info.vocab_size)
    with closing(EngineBench(subject, settings, tmp_path, 20.0)) as opened:
        yield opened


def test_the_real_bench(bench: EngineBench) -> None:
    bench.settle(DEFAULT)
    assert bench.shape.prompt_tok == CHAT.prompt_tok and bench.shape.depth_tok > 200
    other = Tuned(flash_attention=False, threads=1)
    bench.start(other)
    for tuned in (DEFAULT, other):
        sample = bench.sample(tuned)
        assert 0 < sample.prompt_token_s < sample.answer_token_s < 1
    answers = bench.answers(DEFAULT, other)
    assert answers is not None and answers.kl is not None and answers.logprob is not None
    # Without flash attention it rounds otherwise: about as much as is tolerated of another build.
    assert 0 < answers.kl < 0.02 and 0 < answers.logprob < 2
    same = bench.answers(DEFAULT, DEFAULT)
    assert same is not None and same.tolerable and same.kl == 0
    assert bench.cost_s(6, 1) > 0 and bench.left_s() < 20


def test_an_engine_that_is_killed_fails_alone(bench: EngineBench) -> None:
    bench.settle(DEFAULT)
    killed = Tuned(threads=1)
    bench.start(killed)
    engine = bench._engines[killed]
    os.kill(int(engine.info.details["pid"]), signal.SIGKILL)
    with pytest.raises(EngineError):
        bench.sample(killed)
    bench.keep(DEFAULT)
    assert bench.sample(DEFAULT).answer_token_s > 0


def test_a_real_search(demo_model: Path, settings: Settings) -> None:
    said: list[str] = []
    report = tune(
        TuneRequest(demo_model, "demo", budget_s=15.0), settings, lambda _done, label: said.append(label)
    )  # fmt: skip
    assert report.trials and report.build == wheel_build() and report.workload == "chat"
    assert (report.final is not None and report.final.verdict == "faster") == report.gained
    assert report.took_s < 25
    assert from_json(to_json(report)) == report
    assert "flash attention: off" in said
    assert list(settings.cache_dir.iterdir()) == [], "nothing is left behind"
    assert not settings.measured_file.exists(), "keeping is not its business"


def test_what_cannot_be_tuned(demo_model: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(EngineUnsupported):
        tune(TuneRequest(demo_model, "demo"), replace(settings, engine="fake"))
    with pytest.raises(UsageError) as caught:
        tune(TuneRequest(demo_model, "demo", budget_s=1.0), settings)
    assert "bendi tune demo --seconds " in caught.value.hint
    with pytest.raises(OutOfMemory) as full:
        tune(TuneRequest(larger_than_memory(demo_model, tmp_path), "large"), settings)
    assert "larger than memory" in full.value.message and "bendi plan large" in full.value.hint


def larger_than_memory(demo_model: Path, folder: Path) -> Path:
    """The built-in model with a hole of a tebibyte behind it."""
    path = folder / "large.gguf"
    shutil.copy(demo_model, path)
    os.truncate(path, 1 << 40)
    return path
