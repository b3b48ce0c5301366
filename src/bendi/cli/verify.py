"""`bendi verify`: compares models with the hashes they came with."""

from __future__ import annotations

import argparse

from bendi.cli import output
from bendi.errors import HashMismatch
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import Store
from bendi.store.names import typed
from bendi.store.progress import Progress
from bendi.store.upkeep import Verification, verify


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=_("which models (default: all of this machine)"))
    parser.add_argument("--json", action="store_true", help=_("the results as JSON"))


def run(args: argparse.Namespace) -> int:
    store = Store(load_settings())
    models = [store.lookup(name) for name in args.names] if args.names else store.models()
    results: list[Verification] = []
    for model in models:
        with output.progress(model.name) as bar:

            def show(progress: Progress, bar: output.ProgressBar = bar) -> None:
                bar.update(progress.done_bytes, progress.total_bytes)

            results.append(verify(model, show))
    bad = [result for result in results if not result.ok]
    if args.json:
        output.json_data([_as_json(result) for result in results])
    else:
        output.table((_("NAME"), _("RESULT")), [(result.model.name, _verdict(result)) for result in results])
    for result in bad:
        if result.model.owned:
            name = result.model.name
            output.say(_("To repair it: {command}").format(command=f"bendi pull --force {typed(name)}"))
    return HashMismatch.exit_code if bad else 0


def _verdict(result: Verification) -> str:
    if result.problems:
        return "; ".join(result.problems)
    return _("good") if result.hashed else _("readable (nobody promised a hash for it)")


def _as_json(result: Verification) -> dict[str, object]:
    return {
        "name": result.model.name,
        "path": str(result.model.path),
        "ok": result.ok,
        "hashed": result.hashed,
        "problems": list(result.problems),
    }
