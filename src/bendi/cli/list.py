"""`bendi list`: the models of this machine, wherever they lie."""

from __future__ import annotations

import argparse

from bendi.cli import output
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import LocalModel, Store
from bendi.store.export import catalogue_records, model_record
from bendi.store.journal import arrived_bytes
from bendi.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", default="", metavar="TEXT", help=_("only models whose name has this text"))
    parser.add_argument("--catalogue", action="store_true", help=_("the short names that can be pulled instead"))
    parser.add_argument("--paths", action="store_true", help=_("also show where they are"))
    parser.add_argument("--json", action="store_true", help=_("the list as JSON"))


def run(args: argparse.Namespace) -> int:
    store = Store(load_settings())
    if args.catalogue:
        return _catalogue(store, args)
    wanted = args.text.casefold()
    models = [model for model in (*store.models(), store.resolve("demo")) if wanted in model.name.casefold()]
    if args.json:
        output.json_data([model_record(model) for model in models])
        return 0
    columns = [_("NAME"), _("SIZE"), _("QUANTIZATION"), _("FROM")] + ([_("PATH")] if args.paths else [])
    rows = [
        [model.name, _size(model), model.label, _origin(model)] + ([str(model.path)] if args.paths else [])
        for model in models
    ]
    if rows:
        output.table(columns, rows, right=frozenset({1}))
    if len(models) <= 1 and not wanted:
        output.say(_("To get more: bendi pull qwen3:4b. The short names: bendi list --catalogue"))
    return 0


def _size(model: LocalModel) -> str:
    if model.complete:
        return format_size(model.size_bytes)
    return _("{done} of {total}").format(done=format_size(_arrived(model)), total=format_size(model.size_bytes))


def _arrived(model: LocalModel) -> int:
    return sum(path.stat().st_size if path.is_file() else arrived_bytes(path) for path in model.parts)


def _origin(model: LocalModel) -> str:
    names = {
        "bendi": "bendi",
        "demo": _("built in"),
        "registered": _("import, in place"),
        "folder": _("your folder"),
        "lmstudio": "LM Studio",
        "hub cache": _("hub cache"),
        "ollama": "Ollama",
    }
    origin = names.get(model.origin, model.origin)
    return origin if model.complete else _("{origin}, incomplete").format(origin=origin)


def _catalogue(store: Store, args: argparse.Namespace) -> int:
    records = catalogue_records(store.catalogue, args.text)
    if args.json:
        output.json_data(records)
        return 0
    rows = [(str(record["name"]), "  ".join(record["sources"])) for record in records]
    output.table((_("NAME"), _("SOURCES")), rows)
    return 0
