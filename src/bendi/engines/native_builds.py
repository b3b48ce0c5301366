"""The native builds on this disk: one folder each below the cache, with a manifest; which of them is in use, and
whether it may be used.

A build is used only when it was proven (`native_proof`) on this CPU, kernel and C library, and when its program is
still the one that was proven. Anything else is a reason to use the wheel, said in words.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bendi.engines.native_recipe import SERVER, Ingredients
from bendi.engines.registry import BUILDS_FOLDER
from bendi.errors import EngineUnsupported, NotFoundError, StoreError, UsageError
from bendi.formats.json_scan import bounded_json_file
from bendi.hardware import Cpu, detect_cpu
from bendi.i18n import _
from bendi.settings import Settings
from bendi.store.disk import hash_file, make_folder, store_error, sync_folder, write_atomic

State = Literal["proven", "untested", "refused", "outdated", "damaged"]
WHEEL = "wheel"
FORMAT = 2
_MANIFEST, _PROOF, _IN_USE = "manifest.json", "proof.json", "in-use"
_TOLD, _TOLD_KEPT = "told", 200
_PROGRAMS = "bin"
_LARGEST_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Program:
    """One program of a build."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest(Ingredients):
    """What is kept of a build. `repairs`: names of the defects of the compiler that were worked around; their flags are
    not among `flags`. `took_s`: compiling, over all attempts."""

    build_id: str
    source: str
    repairs: tuple[str, ...]
    programs: Mapping[str, Program]
    built_at: str
    took_s: float


@dataclass(frozen=True)
class Proof:
    """What came of the proof. `fingerprint`: of the machine it was made on. `reason`: why the build is refused; empty
    when it is proven. `worst`: the largest difference from the reference, by name of the measure."""

    proven: bool
    fingerprint: str
    server_sha256: str
    reason: str
    proved_at: str
    took_s: float
    cases: int = 0
    worst: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NativeBuild:
    """A build on disk. `proof`: None when it was never tested."""

    folder: Path
    manifest: Manifest
    proof: Proof | None

    @property
    def build_id(self) -> str:
        return self.manifest.build_id

    @property
    def server(self) -> Path:
        return self.program(SERVER)

    @property
    def engine_name(self) -> str:
        """As engines name their build, which measurements are kept under."""
        return f"native {self.build_id}"

    def program(self, name: str) -> Path:
        return self.folder / _PROGRAMS / (f"{name}.exe" if os.name == "nt" else name)


@dataclass(frozen=True)
class Choice:
    """The build to load models with, None for the wheel, and why it is not the one that the user chose, if so."""

    build: NativeBuild | None
    notice: str = ""


def engines_folder(settings: Settings) -> Path:
    return settings.cache_dir / BUILDS_FOLDER


def fingerprint(cpu: Cpu | None = None) -> str:
    """What a proof depends on besides the build: CPU, kernel, C library."""
    cpu = cpu or detect_cpu()
    libc = " ".join(platform.libc_ver()) if os.name == "posix" else ""
    return "; ".join([cpu.model or cpu.architecture, " ".join(sorted(cpu.isa)), platform.release(), libc])


def all_builds(settings: Settings) -> list[NativeBuild]:
    """Every build whose manifest can be read, the newest first."""
    folder = engines_folder(settings)
    found = [build for path in folder.glob(f"*/{_MANIFEST}") if (build := _read(path.parent)) is not None]
    return sorted(found, key=lambda build: build.manifest.built_at, reverse=True)


def find_build(settings: Settings, build_id: str) -> NativeBuild:
    """The build of that name, or whose name begins so. Raises NotFoundError, UsageError when several do."""
    builds = all_builds(settings)
    exact = [build for build in builds if build.build_id == build_id]
    found = exact or [build for build in builds if build_id and build.build_id.startswith(build_id)]
    if not found:
        raise NotFoundError(
            _("There is no native build {name!r}.").format(name=build_id),
            hint=_("See what there is: {command}").format(command="bendi engine list"),
        )
    if len(found) > 1:
        raise UsageError(
            _("{name!r} may be any of {names}.").format(
                name=build_id, names=", ".join(build.build_id for build in found)
            ),
            hint=_("Type more of the name."),
        )
    return found[0]


def state_of(build: NativeBuild, here: str | None = None, *, look_inside: bool = True) -> State:
    """`here`: the fingerprint of this machine, where it is known already. `look_inside`: read the program, too."""
    proof = build.proof
    if not build.server.is_file() or (look_inside and not intact(build)):
        return "damaged"
    if proof is None:
        return "untested"
    if proof.server_sha256 != build.manifest.programs[SERVER].sha256:
        return "untested"
    if not proof.proven:
        return "refused"
    return "proven" if proof.fingerprint == (here or fingerprint()) else "outdated"


def intact(build: NativeBuild, name: str = SERVER) -> bool:
    """Whether a program is, byte for byte, the one that was built."""
    expected = build.manifest.programs.get(name)
    with suppress(StoreError):
        return expected is not None and hash_file(build.program(name)) == expected.sha256
    return False


def usable(build: NativeBuild) -> NativeBuild:
    """`build`. Raises EngineUnsupported, saying why, when it must not be used."""
    state = state_of(build)
    if state != "proven":
        raise EngineUnsupported(why_not(build, state), hint=hint_for(build, state))
    return build


def why_not(build: NativeBuild, state: State) -> str:
    """One sentence for a build that is not used."""
    name = build.build_id
    if state == "damaged":
        return _("The native build {name} was changed after it was built, or is incomplete.").format(name=name)
    if state == "untested":
        return _("The native build {name} was never tested.").format(name=name)
    if state == "outdated":
        return _("The native build {name} was tested with another CPU, kernel or C library than this one.").format(
            name=name
        )
    reason = build.proof.reason if build.proof else ""
    return _("The native build {name} failed its test: {reason}").format(name=name, reason=reason)


def hint_for(build: NativeBuild, state: State) -> str:
    if state in ("untested", "outdated"):
        return _("Test it: {command}").format(command=f"bendi engine test {build.build_id}")
    return _("Use the wheel (bendi engine use wheel), or build it again (bendi engine build).")


def in_use(settings: Settings) -> str:
    """The id of the build that the user chose; empty for the wheel."""
    try:
        return (engines_folder(settings) / _IN_USE).read_text("utf-8")[:200].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def set_in_use(settings: Settings, build: NativeBuild | None) -> None:
    """Makes `build` the engine that models are loaded with; None: the wheel. Raises EngineUnsupported when the build
    must not be used, StoreError."""
    path = engines_folder(settings) / _IN_USE
    if build is not None:
        write_atomic(path, f"{usable(build).build_id}\n".encode())
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise store_error(error, path) from error


def chosen(settings: Settings) -> Choice:
    """The build in use when it may be used here and now, else the wheel with the reason."""
    name = in_use(settings)
    if not name:
        return Choice(None)
    build = _read(engines_folder(settings) / Path(name).name)
    if build is None:
        return Choice(None, _("The native build {name} is not there any more; the wheel is used.").format(name=name))
    state = state_of(build)
    if state == "proven":
        return Choice(build)
    text = " ".join([why_not(build, state), _("The wheel is used."), hint_for(build, state)])
    return Choice(None, text)


def first_time(settings: Settings, sentence: str) -> bool:
    """Whether `sentence` was not said yet; remembers it. Where nothing can be remembered it is always the first."""
    path = settings.state_dir / _TOLD
    digest = hashlib.sha256(sentence.encode("utf-8")).hexdigest()[:16]
    try:
        told = path.read_text("ascii").split()[-_TOLD_KEPT:]
    except (OSError, UnicodeDecodeError):
        told = []
    if digest in told:
        return False
    with suppress(StoreError):
        write_atomic(path, "\n".join([*told, digest, ""]).encode())
    return True


def save_proof(build: NativeBuild, proof: Proof) -> NativeBuild:
    """Keeps what came of a proof beside the build. Raises StoreError."""
    text = json.dumps({"format": FORMAT, **asdict(proof)}, indent=1)
    write_atomic(build.folder / _PROOF, text.encode("utf-8"))
    return NativeBuild(build.folder, build.manifest, proof)


def install(settings: Settings, manifest: Manifest, programs: Mapping[str, Path]) -> NativeBuild:
    """Puts a finished build in its place, whole or not at all. `programs`: finished files, which are copied.

    A build of the same id that is there already is replaced. Raises StoreError.
    """
    folder = engines_folder(settings)
    make_folder(folder)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        place = NativeBuild(scratch, manifest, None)
        (scratch / _PROGRAMS).mkdir()
        for name, path in programs.items():
            shutil.copy2(path, place.program(name))
            place.program(name).chmod(0o755)
            _sync(place.program(name))
        write_atomic(scratch / _MANIFEST, json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode("utf-8"))
        scratch.chmod(0o755)
        target = folder / manifest.build_id
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder))
            target.replace(old / "build")
            scratch.replace(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            scratch.replace(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise store_error(error, folder) from error
    return NativeBuild(target, manifest, None)


def remove(settings: Settings, build: NativeBuild) -> None:
    """Deletes a build; the wheel is used afterwards when it was in use. Raises StoreError."""
    if in_use(settings) == build.build_id:
        set_in_use(settings, None)
    doomed = Path(tempfile.mkdtemp(prefix=".old-", dir=build.folder.parent))
    try:
        build.folder.replace(doomed / "build")
    except OSError as error:
        shutil.rmtree(doomed, ignore_errors=True)
        raise store_error(error, build.folder) from error
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(settings: Settings) -> None:
    """Removes what an interrupted installation or removal has left. Only for who holds the lock of the builds."""
    for pattern in (".new-*", ".old-*", "fetching-*", "try-*"):
        for path in engines_folder(settings).glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _read(folder: Path) -> NativeBuild | None:
    try:
        manifest = _manifest(_table(folder / _MANIFEST))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if manifest.build_id != folder.name or SERVER not in manifest.programs:
        return None
    try:
        proof = Proof(**_table(folder / _PROOF))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        proof = None
    return NativeBuild(folder, manifest, proof)


def _table(path: Path) -> dict[str, Any]:
    table: Any = bounded_json_file(path, _LARGEST_FILE_BYTES)
    if not isinstance(table, dict) or table.pop("format") != FORMAT:
        raise ValueError("format")
    return table


def _manifest(table: dict[str, Any]) -> Manifest:
    programs = {str(name): Program(**row) for name, row in table.pop("programs").items()}
    sequences: dict[str, Any] = {name: tuple(table.pop(name)) for name in ("isa", "flags", "repairs")}
    return Manifest(programs=programs, **sequences, **table)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
