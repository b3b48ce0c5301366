"""`bendi plan`: how a model would run on this machine or another, in every quantization, before anything is loaded."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from bendi.advisor.advice import Advice, advice_for
from bendi.advisor.data import SCHEMA, plain, plans_record
from bendi.advisor.plans import ModelPlans, Offer, PlanRequest, plans_of
from bendi.advisor.ranking import speed_for
from bendi.cli import output
from bendi.cli.arguments import check_above_zero, folded
from bendi.cli.plan_text import (
    Column,
    bar_legend,
    context_text,
    kv_text,
    memory_bar,
    print_columns,
    rate_text,
    share_lines,
    terminal_columns,
    verdict_text,
)
from bendi.errors import OutOfMemory, UsageError
from bendi.i18n import _
from bendi.measured import HistoryRow, MeasuredStore, history
from bendi.planner.plan import WORKLOADS, Workload
from bendi.planner.subject import Conditions
from bendi.settings import Settings, load_settings
from bendi.store import Store
from bendi.store.inspecting import InspectOptions
from bendi.store.names import typed
from bendi.units import format_duration, format_size

KV_TYPES = ("f16", "q8_0", "q4_0")
_WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL",
        help=_("a short name, hf:org/repo[:Q4_K_M], ms:org/repo, ollama:name:tag, an address, or a path"))  # fmt: skip
    add("--for", dest="use", choices=tuple(WORKLOADS), default="chat", help=_("what it is for (default: chat)"))
    add("--quant", metavar="Q4_K_M,...", help=_("only these quantizations"))
    add_conditions(parser)
    add("--remote", action="store_true", help=_("look at its source, even if it is on this machine"))
    add("--from", dest="source", choices=("hf", "ms"), help=_("where to look for a short name"))
    add("--history", action="store_true", help=_("how far earlier predictions were off on this machine"))
    add("--json", action="store_true", help=_("as JSON"))
    add("--command", action="store_true", help=_("only the commands that get it and run it"))


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """What `plan` and `fit` let one ask of a plan."""
    add = parser.add_argument
    add("--prompt", type=int, metavar="N", help=_("tokens of a prompt"))
    add("--answer", type=int, metavar="N", help=_("tokens of an answer"))
    add("--context", type=int, metavar="N", help=_("context length in tokens (default: what fits)"))
    add("--min-ctx", type=int, metavar="N", help=_("shortest context that will do"))
    add("--kv", choices=KV_TYPES, help=_("type of the KV cache"))
    add("--parallel", type=int, metavar="N", default=1, help=_("conversations at once, each with that context"))
    add("--threads", type=int, metavar="N", help=_("CPU threads"))
    add("--no-spill", action="store_true", help=_("only what need not be read from the disk while it answers"))
    add("--machine", metavar="FILE|SPEC", help=_("another machine: a file, or such as 'ram=32GiB,gpu=RTX 4090'"))


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    _check(args)
    if args.history:
        return _history(args, settings)
    conditions = conditions_of(args, args.use)
    advice = advice_for(settings, args.machine)
    quantizations = tuple(part.strip().upper() for part in (args.quant or "").split(",") if part.strip())
    with output.progress(_("header")) as bar:
        look = InspectOptions(
            remote=args.remote,
            source=args.source,
            note=output.say,
            on_bytes=lambda count: bar.update(count, None),
        )
        plans = plans_of(Store(settings), args.model, advice, PlanRequest(conditions, quantizations, look))
    for note in (*advice.notes, *plans.notes):
        output.say(note)
    if args.json:
        output.json_data(plans_record(plans, advice))
    elif args.command:
        _print_commands(plans)
    else:
        _print(plans, advice)
    return 0 if plans.recommended else OutOfMemory.exit_code


def conditions_of(args: argparse.Namespace, use: str) -> Conditions:
    """Raises UsageError for numbers that cannot be, and for flags that contradict each other."""
    for flag in ("prompt", "answer", "context", "min_ctx", "parallel", "threads"):
        check_above_zero("--" + flag.replace("_", "-"), getattr(args, flag))
    workload = _workload(args, WORKLOADS.get(use, WORKLOADS["chat"]))
    if args.context and args.min_ctx and args.context < args.min_ctx:
        raise UsageError(_("--context {context} is below --min-ctx {least}.").format(
            context=args.context, least=args.min_ctx
        ))  # fmt: skip
    asked = (args.prompt or 0) + (args.answer or 0)
    if args.context and asked > args.context:
        raise UsageError(
            _("A prompt and an answer of {asked} tokens do not fit in a context of {context}.").format(
                asked=asked, context=args.context
            )
        )
    return Conditions(
        workload=workload,
        context_tok=args.context,
        min_context_tok=args.min_ctx or (0 if args.context else workload.context_tok),
        type_k=args.kv,
        type_v=args.kv,
        parallel=args.parallel,
        no_spill=args.no_spill,
        threads=args.threads,
    )


def _workload(args: argparse.Namespace, usual: Workload) -> Workload:
    if args.prompt is None and args.answer is None:
        return usual
    return replace(
        usual,
        depth_tok=0 if args.prompt else usual.depth_tok,
        prompt_tok=args.prompt or usual.prompt_tok,
        answer_tok=args.answer or usual.answer_tok,
    )


def _check(args: argparse.Namespace) -> None:
    if args.json and args.command:
        raise UsageError(_("--json and --command exclude each other."))
    if args.history and (args.machine or args.remote or args.command):
        raise UsageError(_("--history tells what happened on this machine: it goes with --json only."))
    if args.model is None and not args.history:
        raise UsageError(_("Which model?"), hint=_("bendi fit shows what this machine can run; bendi plan MODEL one."))


def _print_commands(plans: ModelPlans) -> None:
    best = plans.recommended
    if best is None:
        output.say(_("No quantization of {name} fits.").format(name=plans.name))
        return
    for command in (best.get, best.run):
        if command:
            output.data(command)


def _print(plans: ModelPlans, advice: Advice) -> None:
    output.data(f"{plans.title}  ({plans.name})" if plans.title != plans.name else plans.name)
    output.data(machine_line(advice))
    output.data("")
    print_columns(_columns(plans.offers))
    output.data("")
    output.data(_("Memory: {legend}. ± holds for four of five runs.").format(legend=bar_legend()))
    load_error = max((offer.plan.load_error for offer in plans.offers), default=0.0)
    output.data(_("Load: with the file in memory already - from the disk, ±{error:.0%}.").format(error=load_error))
    best = plans.recommended
    if best is not None:
        _print_best(best)
    else:
        output.data(_("No quantization of {name} fits.").format(name=plans.name))
        for reason in plans.offers[-1].plan.reasons:
            _print_folded(reason)
        output.data(_("What fits: {command}").format(command="bendi fit"))
    if plans.others:
        listed = ", ".join(f"{label} ({format_size(size)})" for label, size in plans.others)
        _print_folded(_("Also there, to be planned by name: {listed}").format(listed=listed))
    output.data(calibration_line(advice))


def machine_line(advice: Advice) -> str:
    """Which machine plans are for."""
    machine = advice.machine
    parts = [
        machine.cpu.model or machine.cpu.architecture or _("unknown CPU"),
        _("{count} cores").format(count=machine.cpu.usable_cores),
        _("{size} memory for models").format(size=format_size(machine.memory.usable_bytes)),
        *(
            f"{gpu.name} {format_size(gpu.memory_total_bytes)}" if gpu.memory_total_bytes else gpu.name
            for gpu in machine.gpus
        ),
    ]
    return ("" if advice.here else _("Another machine: ")) + ", ".join(parts)


def calibration_line(advice: Advice) -> str:
    """Whether speeds were measured, and what to do if not."""
    if advice.measured:
        return _("Speeds were measured on this machine on {date}.").format(date=advice.calibration.measured_at[:10])
    if not advice.here:
        return _("Speeds are derived from specifications: nobody has measured that machine.")
    return _("Speeds are derived from specifications. To measure this machine (one minute): bendi calibrate")


def _columns(offers: Sequence[Offer]) -> list[Column]:
    plans = [offer.plan for offer in offers]
    from_where = {"here": _("here"), "there": _("at its source"), "unchecked": "", "to_make": _("to be made")}
    near = [speed_for(plan) for plan in plans]
    return [
        Column("", ["*" if offer.recommended else "" for offer in offers], 20),
        Column(_("QUANTIZATION"), [plan.quantization for plan in plans], 21),
        Column(_("FILE"), [format_size(plan.file_bytes) for plan in plans], 15, right=True),
        Column(_("WHERE"), [from_where[offer.availability] for offer in offers], 4),
        Column(_("MEMORY"), [memory_bar(plan) for plan in plans], 12),
        Column(_("VERDICT"), [verdict_text(plan) for plan in plans], 18),
        Column(_("CONTEXT"), [context_text(plan.settings.context_tok) for plan in plans], 14, right=True),
        Column("KV", [kv_text(plan) for plan in plans], 9),
        Column("PP", [rate_text(speed.pp) for speed in near], 13, right=True),
        Column("TG", [rate_text(speed.tg) for speed in near], 17, right=True),
        Column("TTFT", [_time(plan.ttft_s) for plan in plans], 10, right=True),
        Column(_("REQUEST"), [_time(plan.request_s) for plan in plans], 8, right=True),
        Column(_("LOAD"), [_load(offer) for offer in offers], 5, right=True),
    ]


def _time(seconds: float) -> str:
    return format_duration(seconds) if seconds else ""


def _load(offer: Offer) -> str:
    return " - ".join(_time(seconds) for seconds in (offer.plan.load_warm_s, offer.plan.load_cold_s) if seconds)


def _print_best(best: Offer) -> None:
    plan = best.plan
    workload = plan.workload
    output.data("")
    output.data(
        _(
            "* {quantization} suits {use} best: {depth} tokens before, a prompt of {prompt}, an answer of {answer}."
        ).format(
            quantization=plan.quantization,
            use=workload.name,
            depth=workload.depth_tok,
            prompt=workload.prompt_tok,
            answer=workload.answer_tok,
        )
    )
    for line in share_lines(plan):
        output.data("  " + line)
    for reason in dict.fromkeys((*plan.reasons, *best.reasons)):
        _print_folded(reason)
    speeds = ", ".join(
        _("at {depth}: PP {pp}, TG {tg}").format(
            depth=context_text(speed.depth_tok), pp=rate_text(speed.pp), tg=rate_text(speed.tg)
        )
        for speed in plan.speeds
    )
    _print_folded(_("tok/s by tokens before: {speeds}").format(speeds=speeds))
    output.data("")
    if best.availability == "to_make":
        output.data(_("This quantization must be made first, from the unquantized model."))
    for label, command in ((_("To get it: {command}"), best.get), (_("To run it: {command}"), best.run)):
        if command:
            output.data(label.format(command=command))


def _print_folded(text: str) -> None:
    for at, line in enumerate(folded(text, (terminal_columns() or _WIDTH) - 4)):
        output.data(("  - " if at == 0 else "    ") + line)


def _history(args: argparse.Namespace, settings: Settings) -> int:
    with closing(MeasuredStore(settings.measured_file)) as store:
        rows = [row for row in history(store) if (args.model or "").casefold() in row.model.casefold()]
        for notice in store.notices:
            output.say(notice)
    if args.json:
        output.json_data({"schema": SCHEMA, "history": plain(tuple(rows))})
    elif rows:
        _print_history(rows)
    else:
        hint = typed(args.model) if args.model else "demo"
        output.say(_("Nothing was recorded yet. Every load and answer is: {command}").format(
            command=f"bendi run {hint}"
        ))  # fmt: skip
    return 0


def _print_history(rows: Sequence[HistoryRow]) -> None:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:+.0f} %"

    def rate(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    print_columns([
        Column(_("LOADED"), [time.strftime("%Y-%m-%d %H:%M", time.localtime(row.loaded_s)) for row in rows], 9),
        Column(_("MODEL"), [row.model for row in rows], 20),
        Column(_("QUANTIZATION"), [row.quantization for row in rows], 6),
        Column(_("CONTEXT"), [context_text(row.context_tok) for row in rows], 5, right=True),
        Column(_("ANSWERS"), [str(row.answers) for row in rows], 4, right=True),
        Column(_("MEMORY"), [percent(row.memory_error_pct) for row in rows], 15, right=True),
        Column(_("LOAD"), [percent(row.load_error_pct) for row in rows], 13, right=True),
        Column("PP tok/s", [rate(row.pp_tok_s) for row in rows], 7, right=True),
        Column("PP", [percent(row.pp_error_pct) for row in rows], 16, right=True),
        Column("TG tok/s", [rate(row.tg_tok_s) for row in rows], 8, right=True),
        Column("TG", [percent(row.tg_error_pct) for row in rows], 17, right=True),
    ])  # fmt: skip
    output.data("")
    output.data(_("Percent: how far the prediction was above (+) or below (-) what was measured."))
