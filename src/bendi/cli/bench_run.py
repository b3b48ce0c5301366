"""Runs a study from the terminal: predictions before, progress meanwhile, a summary afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bendi import __version__
from bendi.bench.cells import cells_of
from bendi.bench.journal import Journal
from bendi.bench.opening import Garage
from bendi.bench.prompts import collection
from bendi.bench.quantizing import make_missing, orders_of
from bendi.bench.repeats import Place, idle_for, too_short_for
from bendi.bench.studies import Run, alone
from bendi.bench.study import Care, EngineChoice, ModelChoice, Study
from bendi.bench.subjects import Files, Subject, subjects_of
from bendi.cli import output
from bendi.cli.bench_files import begun, new_path, repeats_done
from bendi.cli.bench_predictions import expectations, predictions_of, seconds_for
from bendi.cli.bench_text import print_cells, print_summary, results_record
from bendi.cli.report import write_usual_page
from bendi.energy import Found, IdleNeed, Sampler, find_meters, idle_need, reason_text
from bendi.engines import native_builds
from bendi.engines.pace import Pace
from bendi.engines.scheduling import run_promptly
from bendi.engines.tuning import new_scratch
from bendi.errors import BendiError, UsageError
from bendi.hardware import detect_cpu, detect_machine, machine_to_json
from bendi.i18n import _
from bendi.results import Cell, Prediction, StudyFacts, Workload
from bendi.settings import Settings
from bendi.store import Store
from bendi.units import format_size


@dataclass(frozen=True)
class StudyOptions:
    """`command`: what the user typed, for hints. `page`: where a report is to be written."""

    out: Path | None = None
    new: bool = False
    wait: bool = False
    dry_run: bool = False
    require_power: bool = False
    as_json: bool = False
    command: str = ""
    page: Path | None = None


def quick_study(model: str, blocks: int, prompt_tok: int, answer_tok: int, settings: Settings) -> Study:
    """One model, with the engine in use and, where that is a native build, beside it the wheel."""
    engines = [EngineChoice("bendi")]
    if not settings.engine and native_builds.chosen(settings).build is not None:
        engines.append(EngineChoice("wheel", build=native_builds.WHEEL))
    workload = Workload(f"{prompt_tok}+{answer_tok}", prompt_tok, answer_tok)
    names = [engine.label for engine in engines]
    return Study(
        title=_("{model} on this machine").format(model=model),
        models=(ModelChoice(model),),
        engines=tuple(engines),
        workloads=(workload,),
        care=Care(blocks=blocks),
        text=json.dumps({"quick": model, "blocks": blocks, "workload": workload.name, "engines": names}),
        folder=Path.cwd(),
    )


def run_study(study: Study, options: StudyOptions, settings: Settings) -> int:
    """Raises as `bench.studies`."""
    subjects = subjects_of(study, Store(settings))
    for workload in study.workloads:
        if workload.text:
            collection(workload.text, study.folder)  # what is missing is said before anything is measured
    quantizations: dict[str, list[str]] = {}
    for subject in subjects:
        quantizations.setdefault(subject.model, []).append(subject.quantization)
    cells = cells_of(study, quantizations)
    by_file = {(subject.model, subject.quantization): subject for subject in subjects}
    expected = expectations(study, cells, by_file, settings)
    meters = _meters(study, options)
    if options.dry_run:
        _show_plan(study, cells, expected, (subjects, meters), options, settings)
        return 0
    with alone(settings, wait=options.wait, on_wait=_say_waiting):
        with ExitStack() as before:
            before.callback(meters.close)
            with output.progress(_("quantizing"), unit="items") as bar:
                made = make_missing(subjects, settings, bar.update, output.say)
            by_file = {(subject.model, subject.quantization): subject for subject in made}
            journal = _journal(study, options, cells, predictions_of(study, cells, expected), settings)
            before.pop_all()  # from here on the sampler closes them
        with Sampler(meters.meters, meters.absent) as sampler:
            place = Place(study.care, study.seed, study.folder, Pace(detect_cpu().usable_cores), sampler)
            for need in too_short_for(study.care, sampler.idle_needs()):
                output.say(_too_short(study.care, need))
            _measure(place, options, Job(study, journal, by_file, settings))
        _show(journal, options)
        if options.page is not None:
            write_usual_page(journal.results, options.page, settings)
            output.say(_("Written: {path}").format(path=options.page))
    return 0 if journal.results.repeats else 1


def _show_plan(
    study: Study,
    cells: Sequence[Cell],
    expected: Mapping[str, Prediction],
    found: tuple[Sequence[Subject], Found],
    options: StudyOptions,
    settings: Settings,
) -> None:
    """What would be measured, what would be made for it, and which meters would look on."""
    subjects, meters = found
    meters.close()
    needs = [need for meter in meters.meters if (need := idle_need(meter.facts))]
    idle_s = idle_for(study.care, needs) if needs else 0.0
    seconds = seconds_for(study, cells, expected, idle_s)
    print_cells(study, cells, predictions_of(study, cells, expected), seconds, as_json=options.as_json)
    making = [order for order in orders_of(subjects, settings) if not order.is_there]
    if making:
        output.say(
            _("Made first: {names}; {size} in all.").format(
                names=", ".join(f"{each.subject.model} {each.subject.quantization}" for each in making),
                size=format_size(sum(each.size_bytes for each in making)),
            )
        )
    if needs:
        output.say(
            _("Meters: {names}. Before each engine nothing runs for {seconds:g} s, to know the power of that.").format(
                names=", ".join(need.meter for need in needs), seconds=idle_s
            )
        )
    for need in too_short_for(study.care, needs):
        output.say(_too_short(study.care, need))


def _too_short(care: Care, need: IdleNeed) -> str:
    return _(
        "idle_s = {given:g} is too short for the meter {meter}: it has something new every {every:g} s and needs "
        "{least:g} s to tell the power of doing nothing, so energy without that will be missing. Without idle_s it is "
        "{wanted:g} s."
    ).format(
        given=care.idle_s or 0.0, meter=need.meter, every=need.every_s, least=need.least_s, wanted=need.wanted_s
    )  # fmt: skip


def _meters(study: Study, options: StudyOptions) -> Found:
    """Raises UsageError where power is required and nothing shows it."""
    found = find_meters(study.energy)
    if options.require_power and all(each.facts.tier == "bound" for each in found.meters):
        found.close()
        reasons = [reason_text(each.reason) for each in found.absent]
        raise UsageError(
            " ".join([_("No meter shows what this machine uses."), *reasons]),
            hint=_("Leave out --require-power, or declare a plug in the study file: [energy] plug_url = ..."),
        )
    return found


@dataclass(frozen=True)
class Job:
    """What `_measure` needs of a study."""

    study: Study
    journal: Journal
    subjects: dict[tuple[str, str], Subject]
    settings: Settings


def _measure(place: Place, options: StudyOptions, job: Job) -> None:
    files = Files(new_scratch(job.settings.cache_dir), output.say)
    run_promptly()  # what arrives must be seen at once, also while engines keep all cores busy
    journal = job.journal
    try:
        choices = {choice.label: choice for choice in job.study.engines}
        garage = Garage(choices, job.settings, files, output.say)
        with output.progress(_("measuring"), unit="items") as bar:
            run = Run(job.study, journal, garage, place, job.subjects)
            run.on_note = output.say
            run.on_progress = bar.update
            run.run()
    except KeyboardInterrupt:
        done = repeats_done(journal.results)
        output.say("")
        output.say(
            _("Stopped after {done} repeats; they are kept. Go on: {command}").format(
                done=done, command=options.command
            )
        )
        raise
    except BendiError as error:
        if not error.hint:
            error.hint = _("What was measured is kept. Go on: {command}").format(command=options.command)
        raise
    finally:
        files.close()


def _show(journal: Journal, options: StudyOptions) -> None:
    if options.as_json:
        output.json_data(results_record(journal.results))
    else:
        print_summary(journal.results)
    output.say(_("Results: {path}").format(path=journal.path))
    if options.page is not None:
        return
    output.say(_("A page of it: {command}").format(command=f"bendi report {options.out or journal.path.stem}"))


def _journal(
    study: Study, options: StudyOptions, cells: Sequence[Cell], predictions: Sequence[Prediction], settings: Settings
) -> Journal:
    """The results file to go on with, or a new one."""
    path = options.out
    if path is not None and path.suffix != ".jsonl":
        raise UsageError(
            _("A results file ends in .jsonl, not as {path} does.").format(path=path),
            hint=f"--out {path.with_suffix('.jsonl')}",
        )
    if path is not None and path.exists():
        if options.new:
            raise UsageError(
                _("{path} exists already.").format(path=path), hint=_("Choose another name, or leave out --new.")
            )
        journal = Journal(path)
        if journal.results.facts.text != study.text:
            raise UsageError(
                _("{path} holds the results of another study.").format(path=path),
                hint=_("Choose another name for --out."),
            )
        return _continued(journal, cells)
    if path is None and not options.new and (found := begun(study.text, settings)):
        return _continued(Journal(found), cells)
    facts = StudyFacts(
        study_id=uuid4().hex,
        title=study.title,
        text=study.text,
        created_s=time.time(),
        blocks=study.care.blocks,
        seed=study.seed,
        bendi=__version__,
        machine=machine_to_json(detect_machine()),
        cells=tuple(cells),
    )
    journal = Journal(path or new_path(study.title, settings), facts)
    for prediction in predictions:
        journal.add(prediction)
    return journal


def _continued(journal: Journal, cells: Sequence[Cell]) -> Journal:
    facts = journal.results.facts
    if {cell.key for cell in cells} != {cell.key for cell in facts.cells}:
        raise UsageError(
            _("The models of this study are not the ones any more with which it was begun."),
            hint=_("Begin anew: {option}").format(option="--new"),
        )
    if done := repeats_done(journal.results):
        output.say(
            _("Going on after {done} of {total} repeats: {path}").format(
                done=done, total=len(facts.cells) * facts.blocks, path=journal.path
            )
        )
    return journal


def _say_waiting() -> None:
    output.say(_("Another study is being measured; waiting for its end."))
