"""Finds, by measuring, the settings with which one model is fastest on this machine."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bendi.engines import native_builds
from bendi.engines.prepare import Prepared, prepare
from bendi.engines.protocol import LoadRequest
from bendi.engines.registry import engine_build
from bendi.engines.tuned import best_threads
from bendi.engines.tuning_bench import MOST_ANSWER_TOK, MOST_PROMPT_TOK, SPARE_TOK, EngineBench, Subject, middle_tok
from bendi.engines.tuning_options import SETTINGS, Situation, options
from bendi.engines.tuning_report import Tuned, TuningReport
from bendi.engines.tuning_search import Found, Search
from bendi.errors import EngineUnsupported, OutOfMemory, StoreError, UsageError
from bendi.hardware import detect_cpu, detect_machine, detect_memory
from bendi.i18n import _
from bendi.measured import machine_id, model_key
from bendi.planner.layers import model_work
from bendi.planner.memory_setup import CELLS
from bendi.planner.plan import WORKLOADS, Workload
from bendi.settings import Settings
from bendi.units import format_size

BUDGET_S = 120.0
MOST_BUDGET_S = 900.0
"""Unless told otherwise a search may take the first, or what trying every change takes with this model, up to the
second."""
LEAST_BUDGET_S = 10.0
_LEAST_VOCABULARY = 400
_SCRATCH = "tune-"
_ROUND_S = 10

OnProgress = Callable[[float, str], None]
"""Told the fraction of the budget that is over, and what is being measured."""


@dataclass(frozen=True)
class TuneRequest:
    """`name`: of the model, for people. `workload`: one of `planner.plan.WORKLOADS`. `kv_type`: of keys and values, as
    the model will be loaded. `budget_s`: None for as long as this model needs."""

    path: Path
    name: str
    workload: str = "chat"
    kv_type: str = "f16"
    budget_s: float | None = None


def tune(request: TuneRequest, settings: Settings, on_progress: OnProgress | None = None) -> TuningReport:
    """Measures; keeps nothing.

    Raises ModelFileError; OutOfMemory when the model does not fit; UsageError when the budget is too short for this
    model; EngineError when the engine does not work with the default settings; StoreError without room on the disk.
    """
    report = on_progress or (lambda _fraction, _label: None)
    started_s = time.monotonic()
    if settings.engine == "fake":
        raise EngineUnsupported(_("The fake engine computes nothing that could be faster."), hint="BENDI_ENGINE=wheel")
    report(0.0, _("loading"))
    subject = subject_of(request, settings)
    machine = machine_id(detect_machine())
    folder = new_scratch(settings.cache_dir)
    try:
        budget_s, most_s = (BUDGET_S, MOST_BUDGET_S) if request.budget_s is None else (request.budget_s,) * 2
        with closing(EngineBench(subject, settings, folder, budget_s, most_s)) as bench:
            run = _Run(request, settings, subject, bench, report)
            return run.report(machine, started_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Run:
    request: TuneRequest
    settings: Settings
    subject: Subject
    bench: EngineBench
    on_progress: OnProgress

    def report(self, machine: str, started_s: float) -> TuningReport:
        request, bench = self.request, self.bench
        default = Tuned(threads=0 if self.settings.threads else best_threads(self.settings) or 0)
        try:
            bench.settle(default)
        except OutOfMemory as error:
            raise _does_not_fit(error.message, request.name) from error
        search = Search(bench, self.subject.workload, self._step)
        self._check_budget(search, started_s)
        found = search.run(default, options(self._situation(default)))
        answers = bench.answers(default, found.chosen) if found.chosen != default else None
        if answers is not None and answers.kl is None:
            found = replace(found, chosen=default)  # it answers nothing that could be compared
        return TuningReport(
            model=request.name,
            model_key=model_key(self.subject.prepared.headers),
            machine=machine,
            build=bench.build,
            kv_type=request.kv_type,
            workload=request.workload,
            shape=bench.shape,
            default=default,
            chosen=found.chosen,
            trials=found.trials,
            final=found.final,
            answers=answers,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            took_s=round(time.monotonic() - started_s, 1),
            disturbed_share=_disturbed_share(found),
        )

    def _situation(self, default: Tuned) -> Situation:
        return Situation(
            cpu=detect_cpu(),
            default=default,
            shape=self.bench.shape,
            pp_tok_s=self.bench.pp_tok_s,
            kv_type=self.request.kv_type,
            builds=_other_builds(self.settings),
            free_threads=self.settings.threads is None,
            repacked=self.subject.prepared.repack,
        )

    def _step(self, setting: str, value: str) -> None:
        done = 1 - self.bench.left_s() / self.bench.budget_s
        label = f"{_(SETTINGS[setting])}: {value}" if setting else _("the best against the default")
        self.on_progress(min(max(done, 0.0), 0.99), label)

    def _check_budget(self, search: Search, started_s: float) -> None:
        """Raises UsageError when not even one change can be tried."""
        if search.needed_s() <= self.bench.left_s():
            return
        needed_s = time.monotonic() - started_s + 1.5 * search.needed_s()
        seconds = max(math.ceil(needed_s / _ROUND_S), math.ceil(self.bench.budget_s / _ROUND_S) + 1) * _ROUND_S
        raise UsageError(
            _("{seconds:g} seconds are too short to tune this model.").format(seconds=self.bench.budget_s),
            hint=f"bendi tune {self.request.name} --seconds {seconds}",
        )


def _disturbed_share(found: Found) -> float:
    return found.disturbed / found.pairs if found.pairs else 0.0


def subject_of(request: TuneRequest, settings: Settings) -> Subject:
    """What is to be timed. Raises ModelFileError, OutOfMemory, EngineUnsupported."""
    workload = WORKLOADS[request.workload]
    load = LoadRequest(
        model_path=request.path,
        threads=settings.threads,
        memory_limit_bytes=settings.worker_memory_bytes,
        type_k=request.kv_type,
        type_v=request.kv_type,
    )
    load, prepared = _prepared(load, workload, request.name)
    usable_bytes = detect_memory().usable_bytes
    if prepared.weights_bytes > usable_bytes:
        text = _("{model} is larger than memory ({size} of {usable}): the disk decides how fast it is.").format(
            model=request.name, size=format_size(prepared.weights_bytes), usable=format_size(usable_bytes)
        )
        raise _does_not_fit(text, request.name)
    vocab_size = model_work(*prepared.headers).vocab_size
    if vocab_size < _LEAST_VOCABULARY:
        raise EngineUnsupported(_("This model knows too few tokens to be measured."), hint="bendi list")
    return Subject(load, prepared, workload, vocab_size)


def _prepared(load: LoadRequest, workload: Workload, name: str) -> tuple[LoadRequest, Prepared]:
    """With a context that has room for what is timed."""
    try:
        first = prepare(load)
        wanted_tok = middle_tok(workload) + MOST_PROMPT_TOK + MOST_ANSWER_TOK + SPARE_TOK
        wanted_tok = -(-wanted_tok // CELLS) * CELLS
        load = replace(load, context_tok=min(wanted_tok, first.info.context_length or wanted_tok, first.context_tok))
        return load, prepare(load)
    except OutOfMemory as error:
        raise _does_not_fit(error.message, name) from error


def _does_not_fit(message: str, name: str) -> OutOfMemory:
    return OutOfMemory(message, hint=_("See what fits: {command}").format(command=f"bendi plan {name}"))


def _other_builds(settings: Settings) -> list[str]:
    """Proven builds besides the one in use, where the user leaves the choice to us."""
    if settings.engine is not None:
        return []
    used = engine_build(settings)
    proven = [build for build in native_builds.all_builds(settings) if native_builds.state_of(build) == "proven"]
    others = [build.build_id for build in proven if build.engine_name != used]
    return [*([native_builds.WHEEL] if used else []), *others]


def new_scratch(cache_dir: Path) -> Path:
    """A new private folder. Removes those of searches that were killed. Raises StoreError."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        for left in cache_dir.glob(f"{_SCRATCH}*-*"):
            owner = left.name.removeprefix(_SCRATCH).split("-")[0]
            if owner.isdigit() and not _runs(int(owner)):
                shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-", dir=cache_dir))
    except OSError as error:
        raise StoreError(
            _("Nothing can be written in {folder}: {error}").format(folder=cache_dir, error=error),
            hint=_("Make room, or set BENDI_CACHE to another folder."),
        ) from error


def _runs(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False
