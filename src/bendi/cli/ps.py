"""`bendi ps`: what the running server has loaded."""

from __future__ import annotations

import argparse
from typing import Any

from bendi.cli import output
from bendi.i18n import _
from bendi.server.running_server import ask_server
from bendi.settings import load_settings
from bendi.units import format_duration, format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help=_("the list as JSON"))


def run(args: argparse.Namespace) -> int:
    state = ask_server(load_settings(), "GET", "/api/bendi/ps", timeout_s=30.0)
    if args.json:
        output.json_data(state)
        return 0
    models = state["models"]
    if not models:
        output.say(_("No model is loaded; the first request loads one."))
        return 0
    columns = (_("NAME"), _("FOR"), _("MEMORY"), _("CONTEXT"), _("BUSY"), _("WAITING"), _("UNLOADED"))
    output.table(columns, [_row(model) for model in models], right=frozenset({2, 3, 4, 5}))
    return 0


def _row(model: dict[str, Any]) -> list[str]:
    kinds = {"text": _("text"), "embedding": _("embeddings"), "rerank": _("reranking")}
    ready = model["state"] == "ready"
    return [
        model["model"],
        kinds[model["kind"]],
        format_size(model["memory_bytes"]),
        str(model["context_tok"]) if model["context_tok"] else "",
        f"{model['busy']}/{model['slots']}" if model["slots"] else "",
        str(model["waiting"]),
        _unloaded(model) if ready else _state(model["state"]),
    ]


def _state(state: str) -> str:
    return _("is being loaded") if state == "loading" else _("is being unloaded")


def _unloaded(model: dict[str, Any]) -> str:
    if model["pinned"]:
        return _("never (pinned)")
    if model["expires_s"] is None:
        return _("when memory is short")
    if model["busy"]:
        return _("{time} after its last answer").format(time=format_duration(model["expires_s"]))
    return _("in {time}").format(time=format_duration(model["expires_s"]))
