"""`bendi report`: what a study found, as one page, pictures, tables, or in the terminal."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bendi import report
from bendi.bench.journal import read_results
from bendi.bench.study_file import parse_study
from bendi.cli import output
from bendi.cli.bench_files import results_path
from bendi.energy import CloudPrice, CostOptions, Tariff, cloud_prices
from bendi.errors import ConfigError, UsageError
from bendi.i18n import _
from bendi.report import ReportOptions
from bendi.results import Results
from bendi.settings import Settings, load_settings

FORMATS = ("html", "md", "csv", "repeats", "svg", "png", "text")
_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".csv": "csv"}
_WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = _("bendi report RESULTS [options]")
    add = parser.add_argument
    results_help = _("a results file, a name from `bendi bench list`, or `last`")
    add("results", nargs="?", default="last", metavar=_("RESULTS"), help=results_help)
    add("--out", type=Path, metavar=_("FILE"), help=_("where to write it; for svg and png a folder"))
    add(
        "--format", choices=FORMATS, help=_("html (default), md, csv, repeats (csv of every repeat), svg, png, or text")
    )
    add("--style", choices=("full", "paper"), default="full",
        help=_("paper: the tables of published comparisons, with their formula beside what was measured"))  # fmt: skip
    add("--statistic", choices=("median", "mean"), default="median", help=_("of the paper style"))
    add("--baseline", default="", metavar=_("ENGINE"), help=_("the engine that others are compared with"))
    add("--narrow", action="store_true", help=_("pictures for a telephone"))
    add("--price-per-kwh", type=float, metavar="N", help=_("what electricity costs"))
    add("--currency", metavar="USD", help=_("of that price"))
    add(
        "--cloud", action="append", default=[], metavar=_("MODEL"), help=_("a model in the cloud to compare costs with")
    )


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    path = results_path(args.results, settings)
    results = read_results(path)
    options = _options(args, results, settings)
    kind = args.format or (_SUFFIXES.get(args.out.suffix.lower(), "html") if args.out else "html")
    if args.style == "paper":
        return _text(args, report.paper(results, options, args.statistic))
    if kind in ("svg", "png"):
        return _pictures(args, results, options, kind, path)
    if kind == "html":
        target = args.out or Path(f"{path.stem}.html")
        report.write_page(results, options, target)
        output.data(str(target))
        return 0
    if kind == "text":
        width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH)
        return _text(args, report.terminal(results, width, options))
    if kind == "md":
        return _text(args, report.markdown(results, options))
    return _text(args, report.csv(results) if kind == "csv" else report.csv_of_repeats(results))


def write_usual_page(results: Results, path: Path, settings: Settings) -> None:
    """The page as `bendi report` makes it when nothing else is said. Raises DataError and UsageError."""
    cost = _cost_of(results)
    report.write_page(
        results, ReportOptions(cost=cost, cloud=_cloud(cost.cloud, cloud_prices(settings.config_dir))), path
    )


def _text(args: argparse.Namespace, text: str) -> int:
    if args.out is None:
        output.data(text, end="" if text.endswith("\n") else "\n")
    else:
        report.write_whole(args.out, text.encode())
        output.data(str(args.out))
    return 0


def _pictures(args: argparse.Namespace, results: Results, options: ReportOptions, kind: str, path: Path) -> int:
    folder = args.out or Path(f"{path.stem}-{kind}")
    written = report.write_figures(results, options, folder, [kind], narrow=args.narrow)
    if kind == "png" and report.english_for_want_of_a_font():
        output.say(_("This machine has no font for Chinese: the pictures are in English."))
    for each in written:
        output.data(str(each))
    return 0


def _options(args: argparse.Namespace, results: Results, settings: Settings) -> ReportOptions:
    """Prices of the study file, unless the command line says others. Raises UsageError."""
    engines = {cell.engine for cell in results.facts.cells}
    if args.baseline and args.baseline not in engines:
        raise UsageError(
            _("No engine of this study is called {name!r}.").format(name=args.baseline),
            hint=_("It has: {names}").format(names=", ".join(sorted(engines))),
        )
    cost = _cost_of(results)
    if args.currency and args.price_per_kwh is None:
        raise UsageError(_("--currency says nothing without --price-per-kwh."))
    if args.price_per_kwh is not None:
        if not args.price_per_kwh >= 0:
            raise UsageError(_("--price-per-kwh takes a price, not {value}.").format(value=args.price_per_kwh))
        cost = replace(cost, tariff=Tariff(args.currency or "USD", args.price_per_kwh))
    known = cloud_prices(settings.config_dir)
    return ReportOptions(baseline=args.baseline, cost=cost, cloud=_cloud(args.cloud or cost.cloud, known))


def _cost_of(results: Results) -> CostOptions:
    """As the study file says that is kept with the results; nothing where there was none."""
    try:
        return parse_study(results.facts.text, Path(), "study").cost
    except ConfigError:
        return CostOptions()


def _cloud(names: tuple[str, ...] | list[str], known: Mapping[str, CloudPrice]) -> tuple[CloudPrice, ...]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            _("No price is known of {names}.").format(names=", ".join(unknown)),
            hint=_("Known: {names}").format(names=", ".join(known)),
        )
    return tuple(known[name] for name in names)
