"""`bendi key`: keys to the server: made, listed, removed."""

from __future__ import annotations

import argparse
import time
from typing import Any

from bendi.cli import output
from bendi.cli.arguments import check_above_zero
from bendi.i18n import _
from bendi.server.keys import SCOPES, Key, KeyRing
from bendi.settings import load_settings


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar=_("ACTION"), required=True)
    adding = verbs.add_parser("add", help=_("make a key; it is shown this one time"))
    scope_help = _("infer (default): ask models; admin: also load, download and delete them")
    adding.add_argument("--scope", choices=SCOPES, default=SCOPES[0], help=scope_help)
    adding.add_argument("--rpm", type=int, metavar="N", help=_("requests per minute at most"))
    listing = verbs.add_parser("list", help=_("the keys there are, never the keys themselves"))
    removing = verbs.add_parser("rm", help=_("remove a key; it stops working at once"))
    for sub in (adding, removing):
        sub.add_argument("name", metavar="NAME", help=_("whose key it is"))
    for sub in (adding, listing, removing):
        sub.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    ring = KeyRing(load_settings().keys_file)
    {"add": _add, "list": _list, "rm": _remove}[args.verb](args, ring)
    return 0


def _add(args: argparse.Namespace, ring: KeyRing) -> None:
    check_above_zero("--rpm", args.rpm)
    key = ring.add(args.name, args.scope, args.rpm)
    if args.json:
        output.json_data({"name": args.name, "scope": args.scope, "requests_per_minute": args.rpm, "key": key})
        return
    output.data(key)
    output.say(_("Keep it now: only its hash is stored, and nobody can show it again."))


def _list(args: argparse.Namespace, ring: KeyRing) -> None:
    keys = ring.all()
    if args.json:
        output.json_data([_record(key) for key in keys])
    elif not keys:
        output.say(_("No keys: programs of this machine need none, and no others can connect."))
    else:
        columns = [_("NAME"), _("SCOPE"), _("PER MINUTE"), _("MADE"), _("USED")]
        rows = [
            [key.name, key.scope, str(key.requests_per_minute or "-"), _when(key.created_s), _when(key.used_s)]
            for key in keys
        ]
        output.table(columns, rows, right=frozenset({2}))


def _remove(args: argparse.Namespace, ring: KeyRing) -> None:
    ring.remove(args.name)
    if args.json:
        output.json_data({"removed": args.name})
    else:
        output.say(_("{name} opens nothing any more.").format(name=args.name))


def _record(key: Key) -> dict[str, Any]:
    return {name: value for name, value in vars(key).items() if name != "digest"}


def _when(time_s: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s)) if time_s is not None else "-"
