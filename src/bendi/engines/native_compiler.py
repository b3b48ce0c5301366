"""Which compiler builds: the system's where it is good enough, and what is wrong with those that are known to err."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Literal

from bendi.errors import EngineError
from bendi.i18n import _

Kind = Literal["gcc", "clang", "zig"]
_PAIRS = (("gcc", "g++"), ("clang", "clang++"), ("cc", "c++"))
_LEAST: Mapping[Kind, tuple[int, ...]] = {"gcc": (9,), "clang": (12,), "zig": (0, 13)}
"""C++17 with <filesystem> in the standard library itself."""
_TRY_S = 60.0
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")
_PROGRAM = """\
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
int main() {
    std::optional<std::string_view> text = "ok";
    if (auto length = text->size(); length != 2) return 1;
    return std::filesystem::path("/").empty() ? 1 : 0;
}
"""


@dataclass(frozen=True)
class Compiler:
    """A compiler for C and C++. `cc`, `cxx`: programs; `target`: what it compiles for, as it says itself.

    `extra`: further programs that CMake must use with it, by CMake's name.
    """

    kind: Kind
    version: str
    cc: str
    cxx: str
    target: str
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        return f"{self.kind} {self.version} {self.target}"

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("."))


@dataclass(frozen=True)
class Defect:
    """A known error of compilers and what is done about it, without touching the source.

    `repaired_in`: by major version, the first minor one without it; later major versions do not have it. `needs`: it
    matters only where all of this is compiled in. `header`: C text that is included before every file. `flags`: added
    to every file.
    """

    name: str
    kind: Kind
    repaired_in: Mapping[int, int]
    needs: frozenset[str]
    reason: str
    header: str = ""
    flags: tuple[str, ...] = ()

    def affects(self, compiler: Compiler, isa: Iterable[str]) -> bool:
        if compiler.kind != self.kind or not self.needs <= frozenset(isa):
            return False
        major, minor = (*compiler.numbers, 0)[:2]
        return minor < self.repaired_in.get(major, 0) or major < min(self.repaired_in, default=0)


_ALWAYS = {major: 1 << 30 for major in range(100)}
_TILE_CONFIG = """\
/* This compiler tells its optimiser that _tile_loadconfig reads 8 bytes, though it reads 64: the stores of the other 56
 * may be dropped, and the first use of a tile faults. Here all 64 are named. */
#if defined(__AMX_TILE__) && defined(__x86_64__)
#include <immintrin.h>
typedef struct { unsigned char bytes[64]; } __attribute__((may_alias)) bendi_tile_config;
static inline __attribute__((always_inline)) void bendi_tile_loadconfig(const void * config) {
    __asm__ volatile("ldtilecfg\\t%X0" : : "m"(*(const bendi_tile_config *) config));
}
#define _tile_loadconfig bendi_tile_loadconfig
#endif
"""
DEFECTS = (
    Defect(
        name="tile-config-operand",
        kind="gcc",
        repaired_in={11: 5, 12: 4, 13: 3},
        needs=frozenset({"amx_tile"}),
        reason="_tile_loadconfig names only 8 of the 64 bytes that it reads (GCC bug 114098, llama.cpp issue 26954)",
        header=_TILE_CONFIG,
    ),
    Defect(
        name="traps-in-release-builds",
        kind="zig",
        repaired_in=_ALWAYS,
        needs=frozenset(),
        reason="checks for undefined behaviour are compiled in unless they are switched off, and end the program",
        flags=("-fno-sanitize=undefined",),
    ),
)


def defects_of(compiler: Compiler, isa: Iterable[str]) -> list[Defect]:
    """The known defects that matter when `compiler` builds for a CPU with `isa`."""
    have = frozenset(isa)
    return [defect for defect in DEFECTS if defect.affects(compiler, have)]


def find_compiler(flags: Sequence[str], scratch: Path, path: str | None = None) -> Compiler | None:
    """The first compiler of the system that builds a small C++17 program with `flags`; None where there is none.

    `scratch`: a folder to compile in. `path`: where programs are looked for, as in PATH.
    """
    pairs = _PAIRS if sys.platform != "darwin" else (_PAIRS[1], _PAIRS[0])
    for names in pairs:
        cc, cxx = (which(name, path=path) for name in names)
        if not cc or not cxx:
            continue
        compiler = identified(cc, cxx)
        if compiler and compiler.numbers >= _LEAST[compiler.kind] and _builds(compiler, flags, scratch):
            return compiler
    return None


def identified(cc: str, cxx: str) -> Compiler | None:
    """What `cc` and `cxx` are, by what they say; None when they are nothing that is known."""
    said = _output([cxx, "--version"])
    kind: Kind = "clang" if "clang" in said.lower() else "gcc"
    if kind == "gcc" and "Free Software Foundation" not in said and "gcc" not in said.lower():
        return None
    version = _VERSION.search(_output([cxx, "-dumpfullversion", "-dumpversion"]) if kind == "gcc" else said)
    target = _output([cxx, "-dumpmachine"]).strip()
    return Compiler(kind, version[0], cc, cxx, target) if version and target else None


def zig_compiler(zig: Sequence[str], folder: Path) -> Compiler:
    """The compiler inside the ziglang wheel. `zig`: the command that runs it; `folder`: where small programs that stand
    for its parts are written, since CMake takes each as one program. Raises EngineError when it does not work."""
    said = _output([*zig, "version"]).strip()
    version = _VERSION.match(said)
    if version is None:
        raise EngineError(
            _("The ziglang compiler does not run here: {said}").format(said=said[:200] or "-"),
            hint=_("Install a compiler instead; on Debian: apt-get install g++"),
        )
    parts = {"cc": "cc", "c++": "c++", "ar": "ar", "ranlib": "ranlib"}
    programs = {}
    for name, word in parts.items():
        program = folder / f"zig-{name}"
        quoted = " ".join("'" + part.replace("'", "'\\''") + "'" for part in (*zig, word))
        program.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n', "utf-8")
        program.chmod(0o755)
        programs[name] = str(program)
    target = _VERSION.sub("", _output([programs["cc"], "-dumpmachine"]).strip()) or sys.platform
    extra = (("CMAKE_AR", programs["ar"]), ("CMAKE_RANLIB", programs["ranlib"]))
    return Compiler("zig", version[0], programs["cc"], programs["c++"], target, extra)


def write_remedies(defects: Sequence[Defect], folder: Path) -> list[str]:
    """Writes the headers of `defects` into `folder`; returns the compiler's flags that repair them all, as a
    shell would read them."""
    flags: list[str] = []
    for defect in defects:
        flags.extend(defect.flags)
        if defect.header:
            path = folder / f"{defect.name}.h"
            path.write_text(defect.header, "utf-8")
            flags.extend(["-include", shlex.quote(str(path))])
    return flags


def _builds(compiler: Compiler, flags: Sequence[str], scratch: Path) -> bool:
    source, program = scratch / "try.cpp", scratch / "try"
    source.write_text(_PROGRAM, "utf-8")
    command = [compiler.cxx, "-std=c++17", "-O1", *flags, str(source), "-o", str(program)]
    try:
        if subprocess.run(command, capture_output=True, timeout=_TRY_S, cwd=scratch).returncode:
            return False
        return subprocess.run([str(program)], capture_output=True, timeout=_TRY_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TRY_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
