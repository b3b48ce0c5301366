"""`bendi show`: what a model file of this machine says about itself, and where it came from."""

from __future__ import annotations

import argparse

from bendi.cli import output
from bendi.cli.inspect import Fact, facts_of
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import LocalModel, Store
from bendi.store.inspecting import inspect_local, inspection_record


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=_("a model of this machine: name, short name or path"))
    parser.add_argument("--template", action="store_true", help=_("print the chat template instead"))
    parser.add_argument("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    model = Store(load_settings()).resolve(args.name)
    inspection = inspect_local(model)
    if args.template:
        output.data(inspection.info.chat_template or "")
    elif args.json:
        output.json_data(inspection_record(inspection) | _record_json(model))
    else:
        output.facts([*facts_of(inspection), *_record(model)])
    return 0


def _record(model: LocalModel) -> list[Fact]:
    """What the store knows about a model beyond its file."""
    entry = model.entry
    return [
        (_("managed by"), _("bendi") if model.owned else model.origin),
        (_("came from"), entry.source if entry else ""),
        (_("revision"), entry.revision if entry else ""),
        (_("since"), entry.installed if entry else ""),
        ("sha256", model.sha256[0] or "" if model.sha256 else ""),
    ]


def _record_json(model: LocalModel) -> dict[str, object]:
    entry = model.entry
    return {
        "path": str(model.path),
        "parts": [str(path) for path in model.parts],
        "origin": model.origin,
        "owned": model.owned,
        "source": entry.source if entry else None,
        "installed": entry.installed if entry else None,
    }
