"""`bendi tune`: finds by measuring with which settings a model is fastest here; they are used from then on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from bendi.cli import output
from bendi.cli.tune_text import print_list, print_report
from bendi.engines.protocol import KV_TYPES
from bendi.engines.tuning import BUDGET_S, LEAST_BUDGET_S, MOST_BUDGET_S, TuneRequest, tune
from bendi.engines.tuning_report import TuningReport, from_json, to_json
from bendi.errors import BendiError, NotFoundError, StoreError, UsageError
from bendi.formats import read_gguf_split
from bendi.hardware import detect_machine
from bendi.i18n import _
from bendi.measured import TuningRow, TuningStore, machine_id, model_key
from bendi.planner.plan import WORKLOADS
from bendi.settings import Settings, load_settings
from bendi.store import Store


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = _("bendi tune MODEL [options]")
    add("model", nargs="?", default="", metavar=_("MODEL"), help=_("a model of this machine: name, short name or path"))
    add("--for", dest="use", choices=tuple(WORKLOADS), default="chat", help=_("what it is for (default: chat)"))
    seconds_help = _("how long to measure at most (default: what this model needs, {least:.0f} to {most:.0f})")
    seconds_help = seconds_help.format(least=BUDGET_S, most=MOST_BUDGET_S)
    add("--seconds", type=float, metavar="N", help=seconds_help)
    kv_help = _("tune for this type of the KV cache, as in `bendi run --kv`; it is never chosen by itself")
    add("--kv", choices=KV_TYPES, default="f16", help=kv_help)
    add("--show", action="store_true", help=_("show what was found, of one model or of all, and measure nothing"))
    add("--forget", action="store_true", help=_("load the model with the usual settings again"))
    add("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    if args.show and args.forget:
        raise UsageError(_("--show and --forget exclude each other."), hint=f"bendi tune --show {args.model}".strip())
    actions: dict[str, Callable[[argparse.Namespace, Settings], int]] = {"show": _show, "forget": _forget}
    action = "show" if args.show else "forget" if args.forget else ""
    if not args.model and action != "show":
        raise UsageError(_("Which model?"), hint=f"bendi tune{' --forget' * args.forget} demo")
    return actions[action](args, settings) if action else _tune(args, settings)


def _tune(args: argparse.Namespace, settings: Settings) -> int:
    if args.seconds is not None and not args.seconds >= LEAST_BUDGET_S:
        raise UsageError(
            _("{seconds:g} seconds are too short to measure anything.").format(seconds=args.seconds),
            hint=f"bendi tune {args.model} --seconds {BUDGET_S:.0f}",
        )
    model = Store(settings).resolve(args.model)
    output.say(
        _("Measuring with {model}; other programs that are busy now make it less exact.").format(model=args.model)
    )
    request = TuneRequest(model.path, args.model, args.use, args.kv, args.seconds)
    with output.progress(_("tuning"), unit="percent") as bar:
        report = tune(request, settings, lambda done, label: bar.update(100 * done, 100, label))
    with closing(TuningStore(settings.measured_file)) as store:
        row = TuningRow(
            report.machine, report.model_key, report.build, report.kv_type, report.model, to_json(report)
        )  # fmt: skip
        kept = store.save(row)
        _say_all(store.notices)
    _print(report, as_json=args.json)
    if kept and report.gained and not args.json:
        output.say(
            _("{model} is loaded with these settings from now on. Back to the usual ones: {command}").format(
                model=args.model, command=f"bendi tune --forget {args.model}"
            )
        )
    return 0


def _show(args: argparse.Namespace, settings: Settings) -> int:
    machine = machine_id(detect_machine())
    with closing(TuningStore(settings.measured_file)) as store:
        rows = [row for row in store.tunings() if row.machine_id == machine]
        _say_all(store.notices)
    if args.model:
        rows = _rows_of(rows, args.model, settings)
    reports = [report for row in rows if (report := _read(row)) is not None]
    if args.model and not reports:
        raise UsageError(
            _("{model} was not tuned on this machine.").format(model=args.model), hint=f"bendi tune {args.model}"
        )
    if args.json:
        output.json_data([_as_json(report) for report in reports])
    elif not reports:
        output.say(_("No model was tuned on this machine yet: {command}").format(command="bendi tune MODEL"))
    elif args.model:
        print_report(reports[0])
    else:
        print_list(reports)
    return 0


def _forget(args: argparse.Namespace, settings: Settings) -> int:
    machine = machine_id(detect_machine())
    with closing(TuningStore(settings.measured_file)) as store:
        rows = _rows_of([row for row in store.tunings() if row.machine_id == machine], args.model, settings)
        forgotten = sum(store.forget(machine, key) for key in {row.model_key for row in rows})
        _say_all(store.notices)
    if not rows:
        raise UsageError(
            _("{model} was not tuned on this machine.").format(model=args.model), hint="bendi tune --show"
        )  # fmt: skip
    if rows and not forgotten:
        raise StoreError(_("The stored settings could not be removed."), hint="bendi doctor")
    if args.json:
        output.json_data({"forgotten": forgotten})
    else:
        output.say(_("{model} is loaded with the usual settings again.").format(model=args.model))
    return 0


def _rows_of(rows: list[TuningRow], name: str, settings: Settings) -> list[TuningRow]:
    """Those of the model that `name` means; of one that is not there any more, those tuned under that name. Raises
    NotFoundError where there is neither."""
    try:
        key = model_key(read_gguf_split(Store(settings).resolve(name).path))
    except NotFoundError:
        named = [row for row in rows if row.model == name]
        if not named:
            raise
        return named
    return [row for row in rows if row.model_key == key]


def _read(row: TuningRow) -> TuningReport | None:
    try:
        return from_json(row.text)
    except BendiError as error:
        output.say(f"{row.model}: {error.message}")
        return None


def _print(report: TuningReport, *, as_json: bool) -> None:
    if as_json:
        output.json_data(_as_json(report))
    else:
        print_report(report)


def _as_json(report: TuningReport) -> dict[str, Any]:
    return {**asdict(report), "gained": report.gained}


def _say_all(notices: list[str]) -> None:
    for notice in notices:
        output.say(notice)
