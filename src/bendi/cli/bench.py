"""`bendi bench`: studies of speed and energy: run them, go on with them, list and compare what they found."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from bendi.bench.journal import read_results, write_sqlite
from bendi.bench.study_file import read_study
from bendi.cli import output
from bendi.cli.bench_compare import print_comparison
from bendi.cli.bench_files import results_path
from bendi.cli.bench_run import StudyOptions, quick_study, run_study
from bendi.cli.bench_text import print_found, print_list
from bendi.engines.peer_found import Places, found_engines
from bendi.errors import NotFoundError, UsageError
from bendi.i18n import _
from bendi.settings import Settings, load_settings

ACTIONS = ("run", "model", "preset", "engines", "list", "compare", "export")
DEFAULT_ACTION = "model"
"""`bendi bench MODEL` means `bendi bench model MODEL`."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(default_action=DEFAULT_ACTION)
    verbs = parser.add_subparsers(dest="verb", metavar=_("ACTION"), required=True)
    running = verbs.add_parser("run", help=_("measure what a study file says; goes on where it was left"))
    running.add_argument("study", type=Path, metavar=_("FILE"), help=_("a study file; `bendi bench preset` has some"))
    quick = verbs.add_parser("model", help=_("measure one model with this machine's engines: `bendi bench MODEL`"))
    quick.add_argument("model", metavar=_("MODEL"), help=_("a model of this machine: name, short name or path"))
    quick.add_argument("--blocks", type=int, default=5, metavar="N", help=_("independent repeats (default 5)"))
    quick.add_argument("--prompt", type=int, default=256, metavar="N", help=_("tokens of a prompt"))
    quick.add_argument("--answer", type=int, default=32, metavar="N", help=_("tokens of an answer"))
    for action in (running, quick):
        add = action.add_argument
        add("--dry-run", action="store_true", help=_("only show what would be measured, and how long it would take"))
        add("--out", type=Path, metavar=_("FILE"), help=_("the results file (default: in the state folder)"))
        add("--report", type=Path, metavar=_("FILE"), help=_("also write the page of `bendi report` there"))
        add("--new", action="store_true", help=_("begin anew, even if this study was begun before"))
        add("--wait", action="store_true", help=_("wait for another study to end"))
        add("--require-power", action="store_true", help=_("fail where no meter shows what it takes"))
    presets = verbs.add_parser("preset", help=_("show a study file to begin with"))
    presets.add_argument(
        "name", nargs="?", default="", metavar=_("NAME"), help=_("which one; without it all are listed")
    )
    engines = verbs.add_parser("engines", help=_("which engines can take part here, and how to get the others"))
    engines.add_argument("--interpreter", type=Path, action="append", default=[], metavar=_("PYTHON"),
                         help=_("a Python of another environment to look into"))  # fmt: skip
    listing = verbs.add_parser("list", help=_("the studies that were run here"))
    comparing = verbs.add_parser("compare", help=_("what really differs between two results files"))
    comparing.add_argument("first", metavar="A", help=_("a results file, or a name from `bendi bench list`"))
    comparing.add_argument("second", metavar="B", help=_("another one"))
    exporting = verbs.add_parser("export", help=_("write results as a SQLite database"))
    exporting.add_argument("results", metavar=_("RESULTS"), help=_("a results file, or a name from `bendi bench list`"))
    exporting.add_argument("out", type=Path, metavar=_("FILE"), help=_("the database to be written"))
    for action in (running, quick, engines, listing, comparing):
        action.add_argument("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    actions: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "run": _run,
        "model": _model,
        "preset": _preset,
        "engines": _engines,
        "list": _list,
        "compare": _compare,
        "export": _export,
    }
    return actions[args.verb](args, settings)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    return run_study(read_study(args.study), _options(args, "bendi bench run", str(args.study)), settings)


def _model(args: argparse.Namespace, settings: Settings) -> int:
    for flag in ("blocks", "prompt", "answer"):
        if getattr(args, flag) < 1:
            raise UsageError(
                _("{flag} takes a number above zero, not {value}.").format(flag=f"--{flag}", value=getattr(args, flag))
            )
    study = quick_study(args.model, args.blocks, args.prompt, args.answer, settings)
    return run_study(study, _options(args, "bendi bench", args.model), settings)


def _options(args: argparse.Namespace, verb: str, subject: str) -> StudyOptions:
    """What the user typed is told again where a study is broken off: other numbers would be another study."""
    typed = [verb, shlex.quote(subject)]
    for name in ("blocks", "prompt", "answer", "out"):
        if getattr(args, name, None) is not None:
            typed += [f"--{name}", shlex.quote(str(getattr(args, name)))]
    return StudyOptions(
        out=args.out,
        new=args.new,
        wait=args.wait,
        dry_run=args.dry_run,
        require_power=args.require_power,
        as_json=args.json,
        command=" ".join(typed),
        page=args.report,
    )


def preset_names() -> list[str]:
    folder = files("bendi").joinpath("assets", "studies")
    return sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """Raises NotFoundError."""
    if name not in preset_names():
        raise NotFoundError(
            _("There is no preset {name!r}.").format(name=name),
            hint=_("There are: {names}").format(names=", ".join(preset_names())),
        )
    return files("bendi").joinpath("assets", "studies", f"{name}.toml").read_text("utf-8")


def _preset(args: argparse.Namespace, _settings: Settings) -> int:
    if args.name:
        output.data(preset_text(args.name), end="")
        return 0
    for name in preset_names():
        output.data(name)
    output.say(_("Take one: {command}").format(command="bendi bench preset quantizations > study.toml"))
    return 0


def _engines(args: argparse.Namespace, settings: Settings) -> int:
    return print_found(found_engines(settings, Places(interpreters=tuple(args.interpreter))), as_json=args.json)


def _list(args: argparse.Namespace, settings: Settings) -> int:
    return print_list(settings, as_json=args.json)


def _compare(args: argparse.Namespace, settings: Settings) -> int:
    first, second = (read_results(results_path(text, settings)) for text in (args.first, args.second))
    return print_comparison(first, second, as_json=args.json)


def _export(args: argparse.Namespace, settings: Settings) -> int:
    write_sqlite(read_results(results_path(args.results, settings)), args.out)
    output.say(_("Written: {path}").format(path=args.out))
    return 0
