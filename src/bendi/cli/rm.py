"""`bendi rm`: deletes models that bendi brought."""

from __future__ import annotations

import argparse

from bendi.cli import output
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import Store
from bendi.store.upkeep import remove
from bendi.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help=_("models that bendi brought"))
    parser.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    store = Store(load_settings())
    removed = []
    for name in args.names:
        model = store.lookup(name)
        freed_bytes = remove(store, model)
        removed.append({"name": model.name, "freed_bytes": freed_bytes})
        if model.owned:
            output.say(_("{name}: deleted, {size} freed").format(name=model.name, size=format_size(freed_bytes)))
        else:
            output.say(_("{name}: forgotten; the file stays at {path}").format(name=model.name, path=model.path))
    if args.json:
        output.json_data(removed)
    return 0
