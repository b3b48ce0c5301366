"""The programs that build: cmake and ninja of the system, or of their wheels, at locked versions and hashes.

Wheels come from the package index that the user's pip is set to, mirrors included. They live in an environment of their
own below the cache and are found again there.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree, which

from bendi.engines.native_compiler import Compiler, zig_compiler
from bendi.errors import DownloadError, EngineError, HashMismatch
from bendi.i18n import _
from bendi.store.disk import make_folder, store_error, write_atomic

LOCK_FILE = Path(__file__).with_name("native_tools.lock")
_LEAST = {"cmake": (3, 19), "ninja": (1, 8)}
_NUMBERS = re.compile(r"\d+(?:\.\d+)+")
_PIP_S = 1800.0
_COMPLETE = "complete"


@dataclass(frozen=True)
class BuildTools:
    """Programs by their paths."""

    cmake: str
    ninja: str


def find_tools(folder: Path, offline: bool, path: str | None = None) -> BuildTools:
    """cmake and ninja of the system, else from wheels below `folder`. `path`: where programs are looked for.

    Raises DownloadError when they must be fetched and cannot be, HashMismatch when they are not what is expected.
    """
    found = {name: _good_enough(name, which(name, path=path)) for name in _LEAST}
    missing = [name for name, program in found.items() if not program]
    if missing:
        programs = installed(folder, missing, offline) / ("Scripts" if os.name == "nt" else "bin")
        found |= {name: str(programs / name) for name in missing}
    return BuildTools(found["cmake"], found["ninja"])


def fetch_zig(folder: Path, offline: bool) -> Compiler:
    """The compiler of the ziglang wheel, installed below `folder`. Raises as `find_tools`, or EngineError."""
    place = installed(folder, ["ziglang"], offline)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return zig_compiler([str(python), "-P", "-m", "ziglang"], place)


def installed(folder: Path, names: Sequence[str], offline: bool) -> Path:
    """An environment below `folder` with the locked wheels of `names`; installs it where it is not there yet."""
    text = locked(names)
    place = folder / f"{'-'.join(names)}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    if (place / _COMPLETE).is_file():
        return place
    if offline:
        raise offline_error(", ".join(names))
    rmtree(place, ignore_errors=True)
    make_folder(place.parent)
    try:
        venv.create(place, with_pip=True, symlinks=os.name != "nt")
        requirements = place / "requirements.txt"
        requirements.write_text(text, "utf-8")
    except (OSError, subprocess.CalledProcessError) as error:
        raise EngineError(
            _("An environment for the build tools could not be made: {error}").format(error=error),
            hint=_("Install them instead; on Debian: apt-get install python3-venv cmake ninja-build"),
        ) from error
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run_pip([str(python)], ["install", "--only-binary", ":all:", "--require-hashes", "-r", str(requirements)])
    write_atomic(place / _COMPLETE, b"")
    return place


def locked(names: Sequence[str]) -> str:
    """The lines of the lock file for `names`."""
    kept: list[str] = []
    wanted = False
    for line in LOCK_FILE.read_text("utf-8").splitlines():
        if not line.startswith((" ", "#")):
            wanted = line.split("==")[0] in names
        if wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


def python_with_pip(folder: Path) -> list[str]:
    """A Python that has pip: this one, else one of an environment made for it below `folder`."""
    try:
        if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, timeout=60).returncode == 0:
            return [sys.executable]
    except (OSError, subprocess.TimeoutExpired):
        pass
    place = folder / "pip"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        if not python.exists():
            venv.create(place, with_pip=True, symlinks=os.name != "nt")
    except (OSError, subprocess.CalledProcessError) as error:
        raise EngineError(
            _("This Python has no pip, which fetches the source: {error}").format(error=error),
            hint=_("Install it; on Debian: apt-get install python3-pip python3-venv"),
        ) from error
    return [str(python)]


def run_pip(python: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Runs pip with the user's own settings. Raises HashMismatch or DownloadError with pip's last words."""
    command = [*python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_PIP_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        raise store_error(error, Path(command[0])) from error
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            _("The package index did not finish within {seconds:.0f} seconds.").format(seconds=_PIP_S),
            hint=_("Type the same command again, or choose a nearer mirror: pip config set global.index-url URL"),
        ) from error
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace")
    last = " ".join(line for line in said.splitlines() if line.startswith("ERROR"))[-400:] or said[-400:]
    if "DO NOT MATCH THE HASHES" in said:
        raise HashMismatch(
            _("The package index has something else than what was expected."),
            hint=_("Nothing of it was used. Choose another mirror: pip config set global.index-url URL"),
        )
    raise DownloadError(
        _("pip could not fetch what the build needs: {said}").format(said=last.strip()),
        hint=_("Look at the network and at `pip config list`; then type the same command again."),
    )


def offline_error(what: str) -> DownloadError:
    return DownloadError(
        _("bendi is set to work offline, and {what} is not on this machine yet.").format(what=what),
        hint=_("For this command only: BENDI_OFFLINE=0 bendi engine build"),
    )


def _good_enough(name: str, program: str | None) -> str:
    if not program:
        return ""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    numbers = _NUMBERS.search(done.stdout.decode("utf-8", "replace"))
    if done.returncode or not numbers:
        return ""
    return program if tuple(int(part) for part in numbers[0].split(".")) >= _LEAST[name] else ""
