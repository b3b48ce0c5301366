"""`bendi mv`: moves the model store to another folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bendi.cli import output
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store.moving import move_store
from bendi.store.names import typed
from bendi.store.progress import Progress
from bendi.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help=_("where the models shall be from now on"))
    parser.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    again = f"bendi mv {typed(args.folder)}"
    with output.progress(_("moving")) as bar:

        def show(progress: Progress) -> None:
            bar.update(progress.done_bytes, progress.total_bytes, progress.file)

        try:
            moved = move_store(load_settings(), Path(args.folder), show)
        except KeyboardInterrupt:
            output.say("")
            output.say(_("Every model is still there. To go on: {command}").format(command=again))
            raise
    output.say(
        _("{count} models ({size}) are now in {path}").format(
            count=moved.models, size=format_size(moved.size_bytes), path=moved.new_root
        )
    )
    if moved.stayed:
        output.say(
            _("{count} models in {path} are not bendi's: they stayed, and are still found there").format(
                count=moved.stayed, path=moved.old_root
            )
        )
    if moved.in_use:
        output.say(
            _("{count} old files are in use and could not be deleted yet; later: {command}").format(
                count=len(moved.in_use), command=again
            )
        )
    if args.json:
        output.json_data(
            {
                "from": str(moved.old_root),
                "to": str(moved.new_root),
                "models": moved.models,
                "size_bytes": moved.size_bytes,
                "stayed": moved.stayed,
                "in_use": [str(path) for path in moved.in_use],
            }
        )
    return 0
