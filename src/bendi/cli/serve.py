"""`bendi serve`: the models of this machine for programs, over HTTP."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bendi.cli import output
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.server.listening import Place
from bendi.server.middleware import Log, no_log
from bendi.server.serving import Start, serve
from bendi.settings import LOGS, Settings, load_settings
from bendi.units import format_duration, parse_duration

_CLIENTS = (("OpenAI", "/v1"), ("Ollama", ""), ("Anthropic", ""))


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help=_("load these first and keep them; all others come when asked for"))
    add("--host", help=_("the address to listen at; without it, only this machine can connect"))
    add("--port", type=int, metavar="N", help=_("default: 23634; 0: any that is free"))
    add("--tls-cert", type=Path, metavar="FILE", help=_("certificate for HTTPS (PEM)"))
    add("--tls-key", type=Path, metavar="FILE", help=_("key of the certificate (PEM)"))
    add("--allow-plain-http", action="store_true", help=_("let others connect without TLS"))
    add("--name", action="append", metavar="NAME", help=_("a further name of this server; may be repeated"))
    origin_help = _("a web page of elsewhere that may use the server, such as https://host; may be repeated")
    add("--origin", action="append", metavar="URL", help=origin_help)
    keep_help = _("how long a model stays loaded after its last request: 5m, 1h, never")
    add("--keep-alive", metavar="TIME", help=keep_help)
    add("--no-page", action="store_true", help=_("no web page, only the interfaces for programs"))
    add("--log", choices=LOGS, help=_("how to log requests on standard error"))


def run(args: argparse.Namespace) -> int:
    settings = _settings(args, load_settings())
    place = Place(settings.serve_host, settings.serve_port, args.tls_cert, args.tls_key, args.allow_plain_http)
    if args.port is not None:
        if not 0 <= args.port <= 65535:
            raise UsageError(_("A port is a number from 0 to 65535."))
        place = replace(place, port=args.port)
    page = not args.no_page
    start = Start(place, tuple(args.models), lambda url: _tell_ready(url, page), _log(settings.serve_log), page)
    return serve(settings, start)


def _settings(args: argparse.Namespace, settings: Settings) -> Settings:
    """The settings, with what the command line says instead."""
    changes: dict[str, Any] = {}
    if args.host:
        changes["serve_host"] = args.host.strip("[]")
    if args.name:
        changes["serve_names"] = tuple(args.name)
    if args.origin:
        changes["serve_origins"] = tuple(args.origin)
    if args.log:
        changes["serve_log"] = args.log
    if args.keep_alive:
        try:
            changes["serve_keep_alive_s"] = parse_duration(args.keep_alive)
        except ValueError as error:
            raise UsageError(
                _("{text!r} is no time.").format(text=args.keep_alive), hint=_("Such as 90s, 5m, 1h30m or never.")
            ) from error
    return replace(settings, **changes)


def _tell_ready(url: str, page: bool) -> None:
    rows = [(_("{client} clients").format(client=client), url + path) for client, path in _CLIENTS]
    output.facts([(_("In a browser"), url + "/"), *rows] if page else rows)
    output.data(_("Ctrl-C ends the server."))


def _log(how: str) -> Log:
    if how == "none":
        return no_log
    if how == "json" or (how == "auto" and not output.is_terminal(sys.stderr)):
        return _log_json
    return _log_text


def _log_json(record: Mapping[str, Any]) -> None:
    _write(json.dumps({"time_s": round(time.time(), 3), **record}, ensure_ascii=False, default=str))


def _log_text(record: Mapping[str, Any]) -> None:
    now = time.strftime("%H:%M:%S")
    if record["event"] != "request":
        rest = " ".join(f"{name}={value}" for name, value in record.items() if name != "event")
        _write(f"{now} {record['event']} {rest}".rstrip())
        return
    parts = [now, str(record["status"]), record["method"], record["route"], format_duration(record["duration_s"])]
    if "models" in record:
        parts.append(",".join(record["models"]))
        parts.append(_("{prompt}+{answer} tokens").format(prompt=record["prompt_tok"], answer=record["completion_tok"]))
    if record["owner"]:
        parts.append(f"({record['owner']})")
    _write("  ".join(parts))
    if "body" in record:
        _write(record["body"])


def _write(line: str) -> None:
    # Nobody's answer fails because nobody reads the log.
    with contextlib.suppress(OSError, ValueError):
        output.say(line)
