"""`bendi stop`: unloads models of the running server, at once."""

from __future__ import annotations

import argparse

from bendi.cli import output
from bendi.errors import UsageError
from bendi.i18n import _, ngettext
from bendi.server.running_server import ask_server
from bendi.settings import load_settings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=_("loaded models; `bendi ps` shows them"))
    parser.add_argument("--all", action="store_true", help=_("all loaded models"))
    parser.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    if args.all == bool(args.names):
        raise UsageError(
            _("Say which model to stop, or all."),
            hint=_("{one} or {all}; what is loaded: {ps}").format(
                one="bendi stop NAME", all="bendi stop --all", ps="bendi ps"
            ),
        )
    settings = load_settings()
    bodies = [{"all": True}] if args.all else [{"model": name} for name in args.names]
    stopped = sum(ask_server(settings, "POST", "/api/bendi/stop", body)["stopped"] for body in bodies)
    if args.json:
        output.json_data({"stopped": stopped})
    else:
        output.say(ngettext("{count} model unloaded", "{count} models unloaded", stopped).format(count=stopped))
    return 0
