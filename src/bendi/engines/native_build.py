"""Builds llama.cpp on this machine: source, tools, compiler, configuration, compiling, installation.

It can be stopped at any moment, by Ctrl-C, by a kill or by a full disk, and goes on where it stopped: the work folder
of a build is kept until the build is installed, and ninja knows which files are finished.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bendi.engines import native_builds
from bendi.engines.child_program import run_lines
from bendi.engines.native_builds import Manifest, NativeBuild, Program, engines_folder
from bendi.engines.native_compiler import Compiler, Defect, defects_of, find_compiler, write_remedies
from bendi.engines.native_kernels import Kernel, cmake_text, digest, kernels_for
from bendi.engines.native_recipe import FLAGS, RECIPES, TARGETS, Configuration, all_options, gpu_options, isa_flags
from bendi.engines.native_source import SOURCE, source, source_folder
from bendi.engines.native_tools import BuildTools, fetch_zig, find_tools
from bendi.errors import EngineError, StoreError, UsageError
from bendi.hardware import detect_cpu, detect_gpus, detect_memory
from bendi.i18n import _
from bendi.settings import Settings
from bendi.store.disk import hash_file, make_folder, require_space, store_error, write_atomic
from bendi.store.lock import locked
from bendi.units import GIB, MIB

WORK_BYTES = 1 * GIB
"""What objects and programs take while a build is made."""
_JOB_BYTES = 1.5 * GIB
"""Memory that one compiler process may take: the largest file of the server needs about this much."""
_RESERVE_BYTES = 256 * MIB
_LINE = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_CONFIGURED, _SECONDS = ".configured", ".seconds"
_KEPT_LINES = 60

OnProgress = Callable[[float, float, str], None]
"""Done, of how many, and what is being done."""


@dataclass(frozen=True)
class Job:
    """A build that can begin. `work`: its folder, kept until it is installed."""

    configuration: Configuration
    compiler: Compiler
    repairs: tuple[Defect, ...]
    tools: BuildTools
    kernels: tuple[Kernel, ...]
    work: Path


def build(
    settings: Settings,
    recipe: str,
    on_progress: OnProgress | None = None,
    targets: Sequence[str] = TARGETS,
    *,
    again: bool = False,
) -> NativeBuild:
    """The native build of `recipe` for this machine: the one that is there, or a new one, which is not tested yet.

    `again`: build even when it is there. Raises UsageError for an unknown recipe, StoreError (full disk, another bendi
    building), DownloadError, HashMismatch, EngineError when it cannot be configured or compiled.
    """
    report = on_progress or (lambda _done, _total, _what: None)
    if recipe not in RECIPES:
        raise UsageError(
            _("There is no recipe {name!r}.").format(name=recipe),
            hint=_("Recipes: {names}").format(names=", ".join(RECIPES)),
        )
    folder = engines_folder(settings)
    with locked(folder / ".lock", wait=False):
        native_builds.sweep(settings)
        job = _prepared(settings, recipe, tuple(targets), report)
        there = [b for b in native_builds.all_builds(settings) if b.build_id == job.configuration.build_id]
        if there and not again and native_builds.intact(there[0]):
            return there[0]
        require_space(folder, WORK_BYTES, _RESERVE_BYTES)
        report(0, 0, _("fetching the source"))
        took_s = _compiled(job, source(folder / "source", settings.offline), report)
        made = _installed(settings, job, took_s)
        # The package stays: it is unpacked again in seconds.
        for done_with in (job.work, source_folder(folder / "source")):
            shutil.rmtree(done_with, ignore_errors=True)
        return made


def _prepared(settings: Settings, recipe: str, targets: tuple[str, ...], report: OnProgress) -> Job:
    """Everything that must be known before the id of the build is."""
    folder = engines_folder(settings)
    cpu, chosen = detect_cpu(), RECIPES[recipe]
    report(0, 0, _("looking for a compiler"))
    tools = find_tools(folder / "tools", settings.offline)
    compiler = None
    if chosen.compiler == "system":
        with _scratch(folder) as scratch:
            compiler = find_compiler(isa_flags(cpu), Path(scratch))
    if compiler is None:
        report(0, 0, _("fetching a compiler"))
        compiler = fetch_zig(folder / "tools", settings.offline)
    repairs = tuple(defects_of(compiler, cpu.isa))
    kernels = kernels_for(cpu) if chosen.kernels else ()
    gpus = gpu_options(detect_gpus() if chosen.gpu else (), _system())
    configuration = Configuration(
        recipe=recipe,
        source_sha256=SOURCE.sha256,
        compiler=compiler.label,
        isa=tuple(sorted(cpu.isa)),
        options=all_options(chosen, cpu, gpus, SOURCE.version),
        flags=(*FLAGS, *(flag for defect in repairs for flag in (*defect.flags, *defect.header.splitlines()))),
        kernels=digest(kernels),
        targets=targets,
    )
    return Job(configuration, compiler, repairs, tools, kernels, folder / "work" / configuration.build_id)


def _scratch(folder: Path) -> tempfile.TemporaryDirectory[str]:
    make_folder(folder)
    try:
        return tempfile.TemporaryDirectory(prefix="try-", dir=folder)
    except OSError as error:
        raise store_error(error, folder) from error


def _system() -> str:
    return {"darwin": "Darwin", "win32": "Windows"}.get(sys.platform, "Linux")


def _compiled(job: Job, source_path: Path, report: OnProgress) -> float:
    """Configures and compiles in the work folder; returns the seconds that it took, over all attempts."""
    make_folder(job.work)
    spent_s = _number(job.work / _SECONDS)
    started_s = time.monotonic()
    try:
        if not (job.work / _CONFIGURED).is_file():
            report(0, 0, _("configuring"))
            _run(_configure_command(job, source_path), job.work, lambda _line: None)
            write_atomic(job.work / _CONFIGURED, b"")
        _run(_compile_command(job), job.work, functools.partial(_pass_on, report))
    finally:
        with suppress(StoreError):
            write_atomic(job.work / _SECONDS, f"{spent_s + time.monotonic() - started_s:.1f}".encode())
    return spent_s + time.monotonic() - started_s


def _configure_command(job: Job, source_path: Path) -> list[str]:
    try:
        flags = " ".join([*FLAGS, *write_remedies(job.repairs, job.work)])
    except OSError as error:
        raise store_error(error, job.work) from error
    options = {
        **job.configuration.options,
        **_kernel_options(job),
        "CMAKE_MAKE_PROGRAM": job.tools.ninja,
        "CMAKE_C_COMPILER": job.compiler.cc,
        "CMAKE_CXX_COMPILER": job.compiler.cxx,
        "CMAKE_C_FLAGS": flags,
        "CMAKE_CXX_FLAGS": flags,
        **dict(job.compiler.extra),
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    return [job.tools.cmake, "-G", "Ninja", "-S", str(source_path), "-B", str(job.work), *defines]


def _kernel_options(job: Job) -> dict[str, str]:
    if not job.kernels:
        return {}
    path = job.work / "kernels.cmake"
    write_atomic(path, cmake_text(job.kernels).encode("utf-8"))
    return {"CMAKE_PROJECT_llama.cpp_INCLUDE": str(path)}


def _compile_command(job: Job) -> list[str]:
    memory = detect_memory().usable_bytes
    jobs = max(1, min(detect_cpu().usable_cores, int(memory // _JOB_BYTES) if memory else 1))
    return [job.tools.ninja, "-C", str(job.work), "-j", str(jobs), *job.configuration.targets]


def _pass_on(report: OnProgress, line: str) -> None:
    found = _LINE.match(line)
    if found:
        report(int(found[1]), int(found[2]), Path(found[3].split(" ")[-1]).name)


def _run(command: Sequence[str], work: Path, on_line: Callable[[str], None]) -> None:
    """Runs one step, its output in `build.log`. Raises EngineError or StoreError when it fails; ends it when we end."""
    log_path = work / "build.log"
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    # An ancestor of the cache may be somebody's git repository, which has nothing to do with this.
    environment = {**os.environ, "GIT_DIR": str(work / "no-repository"), "NINJA_STATUS": "[%f/%t] "}

    try:
        with log_path.open("a", encoding="utf-8") as log:

            def keep(line: str) -> None:
                log.write(f"{line}\n")
                last.append(line)
                on_line(line)

            code = run_lines(command, keep, environment=environment)
    except OSError as error:
        raise store_error(error, work) from error
    if code:
        raise _failure(last, log_path, Path(command[0]).name)


def _failure(last: Iterable[str], log_path: Path, program: str) -> EngineError | StoreError:
    lines = list(last)
    if any("No space left on device" in line for line in lines):
        return StoreError(
            _("the disk is full: {path} could not be written").format(path=log_path.parent),
            hint=_("Free some space, then type the same command again: it goes on where it stopped."),
        )
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
    if any("Killed" in line for line in lines):
        return EngineError(
            _("The compiler was ended by the system: probably it ran out of memory."),
            hint=_("Close other programs, then type the same command again: it goes on where it stopped."),
        )
    return EngineError(
        _("{program} failed: {line}").format(program=program, line=errors[0][:300] if errors else "-"),
        hint=_("Everything it said is in {path}. The wheel goes on working; another way: {command}").format(
            path=log_path, command="bendi engine build --recipe zig"
        ),
    )


def _installed(settings: Settings, job: Job, took_s: float) -> NativeBuild:
    suffix = ".exe" if os.name == "nt" else ""
    paths = {name: job.work / "bin" / f"{name}{suffix}" for name in job.configuration.targets}
    try:
        programs = {name: Program(path.stat().st_size, hash_file(path)) for name, path in paths.items()}
    except OSError as error:
        raise store_error(error, job.work) from error
    configuration = job.configuration
    manifest = Manifest(
        build_id=configuration.build_id,
        recipe=configuration.recipe,
        source=f"{SOURCE.name} {SOURCE.version}",
        source_sha256=SOURCE.sha256,
        compiler=configuration.compiler,
        isa=configuration.isa,
        options=configuration.options,
        flags=FLAGS,
        kernels=configuration.kernels,
        repairs=tuple(defect.name for defect in job.repairs),
        programs=programs,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        took_s=round(took_s, 1),
    )
    return native_builds.install(settings, manifest, paths)


def _number(path: Path) -> float:
    try:
        return float(path.read_text("utf-8"))
    except (OSError, ValueError):
        return 0.0
