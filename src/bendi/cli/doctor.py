"""`bendi doctor`: what a bug report needs, and what could ever leave this machine. Connects nowhere unless asked."""

from __future__ import annotations

import argparse
import platform
import shutil
import sqlite3
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from bendi import __version__
from bendi.cli import output
from bendi.cli.machine_text import machine_lines
from bendi.engines.registry import DEFAULT, ENGINES
from bendi.engines.sandbox import landlock_version
from bendi.engines.wheel import NEEDED_ISA
from bendi.errors import ConfigError
from bendi.hardware import Machine, detect_machine, machine_to_json
from bendi.i18n import _, language
from bendi.settings import Settings, load_settings
from bendi.units import format_duration, format_size

_REACH_TIMEOUT_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help=_("print the report as JSON"))
    parser.add_argument(
        "--online", action="store_true", help=_("also try whether the model sources can be reached (opens connections)")
    )


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    if args.online and settings.offline:
        raise ConfigError(
            _("BENDI_OFFLINE (or `offline` in config.toml) forbids connections."),
            hint=_("Unset BENDI_OFFLINE to use --online."),
        )
    machine = detect_machine()
    report: dict[str, Any] = {
        "versions": _versions(),
        "language": language(),
        "machine": machine_to_json(machine),
        "engine": _engine(machine, settings),
        "folders": _folders(settings),
        "egress": _egress(settings),
        "problems": [],
    }
    if args.online:
        report["reachability"] = [_reach(name, url) for name, url in _sources(settings)]
    report["problems"] = _problems(report)
    if args.json:
        output.json_data(report)
    else:
        _print(report, machine)
    return 1 if report["problems"] else 0


def _versions() -> dict[str, str]:
    return {
        "bendi": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "xllamacpp": _package_version("xllamacpp"),
        "sqlite": sqlite3.sqlite_version,
        "httpx": _package_version("httpx"),
    }


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _engine(machine: Machine, settings: Settings) -> dict[str, Any]:
    needed = NEEDED_ISA.get(machine.cpu.architecture, frozenset())
    landlock = landlock_version()
    return {
        "name": settings.engine or DEFAULT,
        "known": list(ENGINES),
        "needs": sorted(needed),
        "missing": sorted(needed - machine.cpu.isa),
        "sandbox": f"landlock {landlock}" if landlock else "none",
    }


def _folders(settings: Settings) -> list[dict[str, Any]]:
    rows = [*(("models", path) for path in settings.models_dirs)]
    rows += [("state", settings.state_dir), ("cache", settings.cache_dir), ("config", settings.config_dir)]
    found = []
    for use, path in rows:
        nearest = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        found.append(
            {
                "use": use,
                "path": str(path),
                "exists": path.is_dir(),
                "writable": _can_write(nearest),
                "free_bytes": shutil.disk_usage(nearest).free,
            }
        )
    return found


def _can_write(folder: Path) -> bool:
    probe = folder / f".bendi-probe-{time.time_ns()}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError:
        return False
    return True


def _sources(settings: Settings) -> list[tuple[str, str]]:
    return [
        ("hf", settings.hf_endpoint),
        ("ms", settings.ms_endpoint),
        ("ollama", settings.ollama_registry),
    ]


def _egress(settings: Settings) -> list[dict[str, str]]:
    """Every way in which bytes can leave this machine. There are no others: no telemetry, no update check."""
    if settings.offline:
        return []
    rows = [
        ("bendi pull hf:…", settings.hf_endpoint, _("the model's name, and your token if HF_TOKEN is set")),
        ("bendi pull ms:…", settings.ms_endpoint, _("the model's name, and your token if one is set")),
        ("bendi pull ollama:…", settings.ollama_registry, _("the model's name")),
        ("bendi pull https://…", _("the host you type"), _("the address you type")),
        ("bendi doctor --online", _("the hosts above"), _("an empty request")),
    ]
    return [{"command": command, "host": host, "sends": sends} for command, host, sends in rows]


def _reach(name: str, url: str) -> dict[str, Any]:
    started_s = time.monotonic()
    try:
        # Any answer will do: only the way there is tried.
        status = httpx.head(url, timeout=_REACH_TIMEOUT_S, follow_redirects=False).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return {"source": name, "url": url, "reached": False, "why": str(error) or type(error).__name__}
    return {"source": name, "url": url, "reached": True, "status": status, "seconds": time.monotonic() - started_s}


def _problems(report: dict[str, Any]) -> list[str]:
    found = []
    engine = report["engine"]
    if engine["missing"]:
        found.append(
            _("The engine of this installation needs {missing}, which this CPU does not have.").format(
                missing=", ".join(engine["missing"]).upper()
            )
        )
    if not report["versions"]["xllamacpp"]:
        found.append(_("The engine is not installed: pip install xllamacpp"))
    if engine["name"] not in engine["known"]:
        found.append(_("The engine {name!r} that the settings name does not exist.").format(name=engine["name"]))
    for folder in report["folders"]:
        if not folder["writable"]:
            found.append(_("{path} cannot be written.").format(path=folder["path"]))
        elif folder["free_bytes"] < 1024**3:
            found.append(
                _("{path} has only {free} free.").format(path=folder["path"], free=format_size(folder["free_bytes"]))
            )
    return found


def _print(report: dict[str, Any], machine: Machine) -> None:
    versions, engine = report["versions"], report["engine"]
    output.data("bendi {bendi}, Python {python}, xllamacpp {xllamacpp}, {system}".format(**versions))
    for line in machine_lines(machine):
        output.data(line)
    output.data(_("Engine  {name}; sandbox: {sandbox}").format(name=engine["name"], sandbox=engine["sandbox"]))
    output.data("")
    output.table(
        [_("folder"), _("path"), _("free"), ""],
        [
            [f["use"], f["path"], format_size(f["free_bytes"]), "" if f["writable"] else _("cannot be written")]
            for f in report["folders"]
        ],
        right=frozenset({2}),
    )
    output.data("")
    if report["egress"]:
        output.data(_("What can leave this machine, and only when you type it:"))
        rows = [[row["command"], row["host"], row["sends"]] for row in report["egress"]]
        output.table([_("command"), _("to"), _("what is sent")], rows)
    else:
        output.data(_("Offline: nothing can leave this machine through bendi."))
    for row in report.get("reachability", ()):
        took = format_duration(row["seconds"]) if row["reached"] else row["why"]
        output.data(f"{row['url']}: " + (_("reached in {time}") if row["reached"] else "{time}").format(time=took))
    output.data("")
    for problem in report["problems"]:
        output.data(_("Problem: {problem}").format(problem=problem))
    if not report["problems"]:
        output.data(_("No problems found."))
