"""`bendi fit`: which models this machine, or another, can run, how well and how fast."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from bendi.advisor.advice import advice_for
from bendi.advisor.data import fit_record
from bendi.advisor.fit import SORTS, USES, Filters, FitRow, fit
from bendi.advisor.ranking import speed_for
from bendi.cli import output
from bendi.cli.arguments import check_above_zero
from bendi.cli.plan import add_conditions, calibration_line, conditions_of, machine_line
from bendi.cli.plan_text import Column, bar_legend, context_text, memory_bar, print_columns, rate_text, verdict_text
from bendi.errors import OutOfMemory, UsageError
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.units import format_size, parse_size

_SHOWN = 15


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--for", dest="use", choices=USES, default="chat", help=_("what it is for (default: chat)"))
    add("--language", metavar="CODE", help=_("only models that know this language, such as zh"))
    add("--kind", choices=("dense", "moe"), help=_("only dense models, or only mixtures of experts"))
    add("--thinking", action=argparse.BooleanOptionalAction, help=_("only models that can think, or need not"))
    add("--max-size", metavar="SIZE", help=_("largest file, such as 8GiB"))
    add("--min-tg", type=float, metavar="N", help=_("least token generation in tok/s"))
    add("--licence", "--license", metavar="TEXT", help=_("only licences whose name has this text"))
    add("--sort", choices=SORTS, default="score", help=_("what comes first (default: the best for the use)"))
    add("--all", action="store_true", help=_("all models, also those that do not fit"))
    add_conditions(parser)
    add("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    filters = _filters(args)
    advice = advice_for(load_settings(), args.machine)
    rows = fit(advice, filters)
    for note in advice.notes:
        output.say(note)
    if args.json:
        output.json_data(fit_record(rows, advice))
        return 0 if rows else OutOfMemory.exit_code
    output.data(machine_line(advice))
    output.data("")
    if not rows:
        output.data(_("No model of the catalogue fits these wishes on this machine."))
        output.say(_("Ask for less, or see everything: {command}").format(command="bendi fit --all"))
        return OutOfMemory.exit_code
    shown = rows if args.all else rows[:_SHOWN]
    print_columns(_columns(shown))
    output.data("")
    output.data(_("QUALITY: the size, in billions of parameters, of a typical model with such scores."))
    output.data(_("Memory: {legend}. ± holds for four of five runs.").format(legend=bar_legend()))
    if len(rows) > len(shown):
        output.data(_("{count} more fit: bendi fit --all").format(count=len(rows) - len(shown)))
    _print_first(rows[0])
    output.data(calibration_line(advice))
    return 0


def _filters(args: argparse.Namespace) -> Filters:
    if args.language is not None and not re.fullmatch(r"[A-Za-z]{2,3}", args.language):
        raise UsageError(
            _("{language!r} is not the code of a language.").format(language=args.language),
            hint=_("Codes are zh, en, fr, de, ja and so on."),
        )
    check_above_zero("--min-tg", args.min_tg)
    return Filters(
        use=args.use,
        language=args.language.lower() if args.language else None,
        kind=args.kind,
        thinking=args.thinking,
        max_bytes=_size(args.max_size) if args.max_size else None,
        min_tg_tok_s=args.min_tg,
        min_context_tok=args.min_ctx,
        licence=args.licence,
        everything=args.all,
        sort=args.sort,
        conditions=conditions_of(args, args.use),
    )


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(_("{text!r} is not a size.").format(text=text), hint=_("Write it as: 8GiB")) from error


def _columns(rows: Sequence[FitRow]) -> list[Column]:
    plans = [row.plan for row in rows]
    speeds = [speed_for(plan) for plan in plans]
    return [
        Column(_("MODEL"), [row.model for row in rows], 20),
        Column(_("QUANTIZATION"), [plan.quantization for plan in plans], 18),
        Column(_("QUALITY"), [f"{row.equivalent_parameters / 1e9:.2g}" for row in rows], 16, right=True),
        Column(_("FILE"), [format_size(plan.file_bytes) for plan in plans], 15, right=True),
        Column(_("MEMORY"), [memory_bar(plan, 8) for plan in plans], 10),
        Column(_("VERDICT"), ["" if plan.verdict == "fits" else verdict_text(plan) for plan in plans], 17),
        Column("PP", [rate_text(speed.pp) for speed in speeds], 12, right=True),
        Column("TG", [rate_text(speed.tg) for speed in speeds], 19, right=True),
        Column(_("CONTEXT"), [context_text(plan.settings.context_tok) for plan in plans], 13, right=True),
        Column(_("KIND"), [row.kind for row in rows], 7),
        Column(_("THINKING"), [row.thinking for row in rows], 6),
        Column(_("RELEASED"), [row.released for row in rows], 5),
        Column(_("LICENCE"), [row.licence for row in rows], 4),
    ]


def _print_first(row: FitRow) -> None:
    output.data("")
    output.data(_("First: {title} by {maker}").format(title=row.title, maker=row.maker))
    for reason in row.why:
        output.data(f"  - {reason}")
    output.data(_("To get it: {command}").format(command=row.get))
    output.data(_("To run it: {command}").format(command=row.run))
