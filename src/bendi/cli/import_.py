"""`bendi import`: takes model files of this machine into the store."""

from __future__ import annotations

import argparse
from pathlib import Path

from bendi.cli import output
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import Store
from bendi.store.importing import ImportWay, import_file
from bendi.store.progress import Progress
from bendi.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="FILE", help=_("a .gguf file; of a split model, any part"))
    parser.add_argument("--name", help=_("what to call it (default: the name of the file)"))
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--link", action="store_true", help=_("share the data on disk instead of copying it"))
    way.add_argument("--in-place", action="store_true", help=_("only remember where it lies"))
    parser.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    if args.name and len(args.paths) > 1:
        raise UsageError(_("--name is for one file, and {count} were given").format(count=len(args.paths)))
    store = Store(load_settings())
    way: ImportWay = "link" if args.link else "in place" if args.in_place else "copy"
    models = []
    for text in args.paths:
        with output.progress(text) as bar:

            def show(progress: Progress, bar: output.ProgressBar = bar) -> None:
                bar.update(progress.done_bytes, progress.total_bytes)

            models.append(import_file(store, Path(text), name=args.name, way=way, on_progress=show))
        output.say(_("{name}: {size}, imported").format(name=models[-1].name, size=format_size(models[-1].size_bytes)))
    if args.json:
        output.json_data([{"name": m.name, "path": str(m.path), "size_bytes": m.size_bytes} for m in models])
    else:
        for model in models:
            output.data(model.name)
    return 0
