"""Makes the quantizations that a study wants and nobody has, from its one file of high precision, with llama-quantize.

They are kept below the cache folder under a fingerprint of what they were made from, for later studies, too.
A file is there under its name only when it is whole: it is made in a folder of its own, looked at, synced and renamed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bendi.bench.subjects import Subject
from bendi.engines import native_builds, sandbox
from bendi.engines.child_program import run_lines
from bendi.engines.kv_state import model_fingerprint
from bendi.errors import EngineError, EngineUnsupported, ModelFileError, StoreError
from bendi.formats import GgufFile, model_info, read_gguf_split
from bendi.formats.gguf import split_paths
from bendi.hardware import detect_cpu
from bendi.i18n import _
from bendi.planner.subject import subjects_of
from bendi.settings import Settings
from bendi.store.disk import free_bytes, make_folder, require_space, store_error, sync_folder
from bendi.store.lock import locked
from bendi.units import MIB

FOLDER = "quantized"
"""Below the cache folder."""
PROGRAM = "llama-quantize"
_MAKING = ".making-"
_RESERVE_BYTES = 256 * MIB
_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_KEPT_LINES = 20

OnProgress = Callable[[float, float, str], None]
"""Tensors done, of how many, of which file."""


@dataclass(frozen=True)
class Quantizer:
    """A program. `own`: of a native build of bendi, which needs nothing but itself."""

    program: Path
    own: bool


@dataclass(frozen=True)
class Order:
    """A file that is wanted. `size_bytes`: about so large. `from_q8`: its source has no more than 8 bits."""

    subject: Subject
    path: Path
    size_bytes: int
    from_q8: bool

    @property
    def source(self) -> Path:
        assert self.subject.source is not None
        return self.subject.source

    @property
    def is_there(self) -> bool:
        """Whether it is there and whole. A file under its name was whole once; a disk may have lost its end."""
        return self.path.is_file() and _quantization(self.path) == self.subject.quantization


def find_quantizer(settings: Settings) -> Quantizer:
    """Of the newest native build that has it and is as it was built, else the one on PATH. Raises EngineUnsupported."""
    for build in native_builds.all_builds(settings):
        if native_builds.intact(build, PROGRAM):
            return Quantizer(build.program(PROGRAM), own=True)
    on_path = shutil.which(PROGRAM)
    if on_path:
        return Quantizer(Path(on_path).absolute(), own=False)
    raise EngineUnsupported(
        _("Quantizations can only be made with {program}, which is not here.").format(program=PROGRAM),
        hint=_("Build it: {command}").format(command="bendi engine build"),
    )


def orders_of(subjects: Sequence[Subject], settings: Settings) -> list[Order]:
    """Those that are made here, unless they are there already. Reads the header of each source once, and samples of its
    tensors: weights are not read whole before there is something to make. Raises StoreError, ModelFileError."""
    sources: dict[Path, _Source] = {}
    found = []
    for subject in subjects:
        if subject.source is None or subject.path is not None:
            continue
        if subject.source not in sources:
            sources[subject.source] = _read(subject.source)
        source = sources[subject.source]
        (planned,) = subjects_of(subject.model, source.headers, [subject.quantization])
        path = settings.cache_dir / FOLDER / source.name / f"{subject.quantization}.gguf"
        found.append(Order(subject, path, planned.file_bytes, source.quantization == "Q8_0"))
    return found


def make_missing(
    subjects: Sequence[Subject], settings: Settings, on_progress: OnProgress, on_note: Callable[[str], None]
) -> list[Subject]:
    """The same subjects, all with their files. Raises EngineUnsupported where nothing here can make them, StoreError
    (no space, checked for all of them before the first is begun) and EngineError."""
    orders = orders_of(subjects, settings)
    missing = [order for order in orders if not order.is_there]
    if missing:
        quantizer = find_quantizer(settings)
        folder = settings.cache_dir / FOLDER
        with locked(folder / ".lock", on_wait=partial(on_note, _("Another bendi is quantizing; waiting for its end."))):
            for left in folder.glob(f"{_MAKING}*"):
                shutil.rmtree(left, ignore_errors=True)
            missing = [order for order in missing if not order.is_there]
            _require_space(folder, sum(order.size_bytes for order in missing))
            for order in missing:
                if order.from_q8:
                    on_note(
                        _("{quantization} is made from Q8_0: a little worse than from 16 bits.").format(
                            quantization=order.subject.quantization
                        )
                    )
                _make(order, quantizer, settings, on_progress)
                on_note(_("Made for this study and later ones: {path}").format(path=order.path))
    paths = {(order.subject.model, order.subject.quantization): order.path for order in orders}
    return [
        replace(subject, path=subject.path or paths.get((subject.model, subject.quantization))) for subject in subjects
    ]


def _make(order: Order, quantizer: Quantizer, settings: Settings, on_progress: OnProgress) -> None:
    """Makes one file, or leaves nothing."""
    make_folder(order.path.parent)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=_MAKING, dir=order.path.parent.parent))
    except OSError as error:
        raise store_error(error, order.path) from error
    try:
        partial_path = scratch / order.path.name
        partial_path.touch()  # it may write into what is there, and make nothing new
        last = _run(order, quantizer, settings, partial_path, on_progress)
        if _quantization(partial_path) != order.subject.quantization:
            raise _failed(last, order)
        with partial_path.open("rb") as file:
            os.fsync(file.fileno())
        partial_path.replace(order.path)
        sync_folder(order.path.parent)
    except OSError as error:
        raise store_error(error, order.path) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _command(order: Order, quantizer: Quantizer, settings: Settings, target: Path) -> list[str]:
    threads = settings.threads or detect_cpu().usable_cores
    # A Q8_0 may be quantized again; nothing coarser comes so far.
    allowed = ["--allow-requantize"] if order.from_q8 else []
    names = [str(order.source), str(target), order.subject.quantization]
    return [str(quantizer.program), *allowed, *names, str(threads)]


def _run(order: Order, quantizer: Quantizer, settings: Settings, target: Path, on_progress: OnProgress) -> list[str]:
    """Runs it to its end, and ends it when we end; returns its last lines. Raises EngineError."""
    command = _command(order, quantizer, settings, target)
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    label = f"{order.subject.model} {order.subject.quantization}"

    def keep(line: str) -> None:
        last.append(line)
        if found := _LINE.search(line):
            on_progress(int(found[1]), int(found[2]), label)

    try:
        code = run_lines(command, keep, bounds=_bounds(order, quantizer, target.parent))
    except OSError as error:
        raise EngineError(
            _("{program} cannot be started: {error}").format(program=command[0], error=error),
            hint=_("Build it: {command}").format(command="bendi engine build"),
        ) from error
    if code:
        raise _failed(list(last), order)
    return list(last)


def _bounds(order: Order, quantizer: Quantizer, folder: Path) -> Callable[[], object]:
    """What a program may that reads a file from elsewhere: write the new one, and reach nothing over the network. One
    of our own builds reads the model and no other file; others have their libraries wherever they were installed."""
    return partial(
        sandbox.confine,
        [str(part) for part in split_paths(order.source)],
        [],
        allow_tcp=False,
        programs=[str(quantizer.program) if quantizer.own else "/"],
        overwrite_dirs=[str(folder)],
    )


def _failed(last: Sequence[str], order: Order) -> EngineError | StoreError:
    free = free_bytes(order.path.parent)
    if free is not None and free < order.size_bytes and free < _RESERVE_BYTES:
        return _no_space(StoreError(_("the disk is full: {path} could not be written").format(path=order.path)))
    words = next((line.strip() for line in reversed(last) if line.strip()), "")
    return EngineError(
        _("{program} could not make {quantization} of {path}: {words}").format(
            program=PROGRAM, quantization=order.subject.quantization, path=order.source, words=words[-300:]
        ),
        hint=_("Leave that quantization out, or give its file: {example}").format(
            example=f'files = {{ {order.subject.quantization} = "..." }}'
        ),
    )


def _require_space(folder: Path, needed_bytes: int) -> None:
    try:
        require_space(folder, needed_bytes, _RESERVE_BYTES)
    except StoreError as error:
        raise _no_space(error) from error


def _no_space(error: StoreError) -> StoreError:
    """With what helps here: it is the cache that is full."""
    error.hint = _("Make room, or set BENDI_CACHE to another folder.")
    return error


def _quantization(path: Path) -> str:
    """As the header of a whole file says; empty for what is none."""
    with suppress(ModelFileError, OSError):
        return (model_info(read_gguf_split(path)[0]).quantization or "").upper()
    return ""


@dataclass(frozen=True)
class _Source:
    """`name`: of the folder of what is made from it."""

    name: str
    quantization: str
    headers: Sequence[GgufFile]


def _read(path: Path) -> _Source:
    headers = read_gguf_split(path)
    try:
        digest = model_fingerprint(split_paths(path), headers)
    except OSError as error:
        raise store_error(error, path) from error
    return _Source(f"{path.stem[:80]}-{digest[:16]}", (model_info(headers[0]).quantization or "").upper(), headers)
