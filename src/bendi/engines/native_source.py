"""The source that native builds are made of: the llama.cpp inside one pinned source package, by hash.

It comes with pip from the package index that the user has set, mirrors included. Nothing of the package is run: pip
asks a package for its name before it keeps it, and that question is answered here instead.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bendi.engines.native_tools import offline_error, python_with_pip, run_pip
from bendi.errors import DownloadError, HashMismatch, StoreError
from bendi.i18n import _
from bendi.store.disk import hash_file, make_folder, require_space, store_error, sync_folder, write_atomic
from bendi.units import MIB


@dataclass(frozen=True)
class SourcePackage:
    """A source package on the package index. `root`: where llama.cpp is inside of it. `parts`: what a build needs."""

    name: str
    version: str
    sha256: str
    size_bytes: int
    root: str
    parts: tuple[str, ...]


SOURCE = SourcePackage(
    name="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    size_bytes=76_589_250,
    root="llama_cpp_python-0.3.36/vendor/llama.cpp",
    parts=(
        "CMakeLists.txt", "LICENSE", "cmake", "common", "ggml", "include", "licenses", "scripts", "src", "tools",
        "vendor",
    ),
)  # fmt: skip
UNPACKED_BYTES = 64 * MIB
_RESERVE_BYTES = 256 * MIB
_COMPLETE = ".complete"

# Stands for the package's build backend, which pip would otherwise fetch, unpinned, and run.
_BACKEND = """\
import os

def _metadata(folder):
    name = os.environ["BENDI_SOURCE_NAME"].replace("-", "_")
    version = os.environ["BENDI_SOURCE_VERSION"]
    info = f"{name}-{version}.dist-info"
    os.makedirs(os.path.join(folder, info), exist_ok=True)
    with open(os.path.join(folder, info, "METADATA"), "w") as out:
        out.write(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    with open(os.path.join(folder, info, "WHEEL"), "w") as out:
        out.write("Wheel-Version: 1.0\\nGenerator: bendi\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return info

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    return _metadata(folder)

def get_requires_for_build_wheel(config_settings=None):
    return []
"""


def source_folder(folder: Path, package: SourcePackage = SOURCE) -> Path:
    """Where `unpacked` lays the source below `folder`."""
    return folder / f"{package.name}-{package.version}-{package.sha256[:10]}"


def archive_path(folder: Path, package: SourcePackage = SOURCE) -> Path:
    return folder / f"{package.name}-{package.version}.tar.gz"


def source(folder: Path, offline: bool, package: SourcePackage = SOURCE) -> Path:
    """The unpacked source below `folder`, fetched and unpacked where it is not there yet. Raises as `fetched` and
    `unpacked`."""
    place = source_folder(folder, package)
    return place if (place / _COMPLETE).is_file() else unpacked(fetched(folder, offline, package), folder, package)


def fetched(folder: Path, offline: bool, package: SourcePackage = SOURCE) -> Path:
    """The package in `folder`, fetched where it is not there yet, with the right hash in any case.

    Raises DownloadError, HashMismatch, StoreError.
    """
    archive = archive_path(folder, package)
    if archive.is_file() and hash_file(archive) == package.sha256:
        return archive
    if offline:
        raise offline_error(f"{package.name} {package.version}")
    make_folder(folder)
    require_space(folder, 3 * package.size_bytes, _RESERVE_BYTES)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder) as scratch:
        found = _download(Path(scratch), folder, package)
        if hash_file(found) != package.sha256:
            raise HashMismatch(
                _("What was downloaded is not {name} {version}: its SHA-256 is wrong.").format(
                    name=package.name, version=package.version
                ),
                hint=_("Nothing of it was used. Choose another mirror: pip config set global.index-url URL"),
            )
        try:
            found.replace(archive)
        except OSError as error:
            raise store_error(error, archive) from error
    sync_folder(folder)
    return archive


def unpacked(
    archive: Path, folder: Path, package: SourcePackage = SOURCE, on_entry: Callable[[str], None] | None = None
) -> Path:
    """The parts of `archive` that a build needs, below `folder`; unpacked where they are not there yet.

    Raises StoreError when the archive is damaged or holds what has no place in it.
    """
    place = source_folder(folder, package)
    if (place / _COMPLETE).is_file():
        return place
    require_space(folder, UNPACKED_BYTES, _RESERVE_BYTES)
    shutil.rmtree(place, ignore_errors=True)
    make_folder(place)
    try:
        with tarfile.open(archive, "r:gz") as package_file:
            for member, inside in _needed(package_file, package):
                if on_entry:
                    on_entry(str(inside))
                _extract(package_file, member, place / inside)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise StoreError(
            _("The source package cannot be unpacked: {error}").format(error=error),
            hint=_("Delete it, and type the same command again: {path}").format(path=archive),
        ) from error
    except OSError as error:
        raise store_error(error, place) from error
    write_atomic(place / _COMPLETE, b"")
    return place


def _extract(package_file: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """By hand: the filters of tarfile are not in all versions of Python 3.11."""
    content = package_file.extractfile(member)
    assert content is not None, "only regular files are asked for"
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as out:
        shutil.copyfileobj(content, out)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)
    os.utime(target, (member.mtime, member.mtime))


def _needed(package_file: tarfile.TarFile, package: SourcePackage) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    """Files below the package's root that a build needs, with their paths from there. No links: a build needs none."""
    root = PurePosixPath(package.root)
    for member in package_file:
        path = PurePosixPath(member.name)
        if not member.isfile() or not path.is_relative_to(root):
            continue
        inside = path.relative_to(root)
        if inside.parts and inside.parts[0] in package.parts and ".." not in inside.parts:
            yield member, inside


def _download(scratch: Path, folder: Path, package: SourcePackage) -> Path:
    stand_in = scratch / "backend" / "scikit_build_core"
    try:
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").write_text("", "utf-8")
        (stand_in / "build.py").write_text(_BACKEND, "utf-8")
        requirements = scratch / "requirements.txt"
        requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", "utf-8")
    except OSError as error:
        raise store_error(error, scratch) from error
    environment = {
        "PYTHONPATH": str(stand_in.parent),
        "PYTHONNOUSERSITE": "1",
        "BENDI_SOURCE_NAME": package.name,
        "BENDI_SOURCE_VERSION": package.version,
        "PIP_NO_CACHE_DIR": "1",
        "TMPDIR": str(scratch) if os.name == "posix" else os.environ.get("TMPDIR", ""),
    }
    arguments = [
        "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes",
        "--requirement", str(requirements), "--dest", str(scratch / "got"),
    ]  # fmt: skip
    run_pip(python_with_pip(folder), arguments, environment)
    # Names of source packages differ in - and _ between indexes.
    found = sorted((scratch / "got").glob("*.tar.gz"))
    if len(found) != 1:
        raise DownloadError(
            _("The package index has no source package of {name} {version}.").format(
                name=package.name, version=package.version
            ),
            hint=_("Choose another mirror: pip config set global.index-url URL"),
        )
    return found[0]
