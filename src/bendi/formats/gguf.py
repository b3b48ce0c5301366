"""Opens GGUF files: one file, or all parts of a split model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bendi.errors import ModelFileError
from bendi.formats.gguf_check import check_model
from bendi.formats.gguf_cursor import hostile_hint, quoted
from bendi.formats.gguf_header import Budget, read_header
from bendi.formats.gguf_types import GgufFile
from bendi.formats.source import ByteSource, FileSource
from bendi.i18n import _

MAX_PARTS = 1024
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def read_gguf(path: Path) -> GgufFile:
    """The header of the file at `path`, checked; tensor data is not read.

    Of a split model this is one part; see `read_gguf_split`. Costs under 64 MiB whatever the file contains. Raises
    ModelFileError, with the reason, when no engine should be given the file; NotFoundError when there is none.
    """
    with FileSource(path) as source:
        return read_gguf_from(source, path.name)


def read_gguf_from(source: ByteSource, name: str, budget: Budget | None = None) -> GgufFile:
    """`read_gguf` for bytes that are not a file; `name` is what messages call them."""
    try:
        gguf = read_header(source, budget or Budget())
        check_model(gguf, source)
    except ModelFileError as error:
        message = _("{name} cannot be used: {reason}.").format(name=name, reason=error.message.rstrip(".。"))
        raise ModelFileError(message, hint=error.hint) from error
    return gguf


def split_paths(path: Path) -> tuple[Path, ...]:
    """All files of the model that `path` is, or is one part of, in order. They need not exist.

    Raises ModelFileError when the name has impossible numbers.
    """
    match = _PART.fullmatch(path.name)
    if match is None:
        return (path,)
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count <= MAX_PARTS:
        raise ModelFileError(
            _("{name} calls itself part {number} of {count}; models have up to {limit} parts.").format(
                name=path.name, number=number, count=count, limit=MAX_PARTS
            ),
            hint=_("If the file is a whole model, give it another name."),
        )
    return tuple(path.with_name(f"{match['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1))


def read_gguf_split(path: Path) -> tuple[GgufFile, ...]:
    """The headers of all parts of the model that `path` is one part of, in order; one, for a model in one file.

    Raises ModelFileError, as `read_gguf` does, and when a part is missing or belongs to another model.
    """
    paths = split_paths(path)
    for part in paths:
        if len(paths) > 1 and _missing(part):
            raise ModelFileError(
                _("{name} is missing: the model has {count} parts, which must be in one folder.").format(
                    name=part.name, count=len(paths)
                ),
                hint=_("`bendi pull` gets what is missing."),
            )
    budget = Budget()
    parts = []
    for part in paths:
        with FileSource(part) as source:
            parts.append(read_gguf_from(source, part.name, budget))
    _check_parts([path.name for path in paths], parts)
    return tuple(parts)


def read_gguf_parts(sources: Sequence[tuple[str, ByteSource]]) -> tuple[GgufFile, ...]:
    """`read_gguf_split` for parts that are not files: (name, bytes) of each, in order."""
    budget = Budget()
    parts = [read_gguf_from(source, name, budget) for name, source in sources]
    _check_parts([name for name, _source in sources], parts)
    return tuple(parts)


def _missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # it is there and cannot be read: opening it says why
    return False


def _check_parts(names: Sequence[str], parts: Sequence[GgufFile]) -> None:
    owners: dict[str, str] = {}
    for index, (name, part) in enumerate(zip(names, parts, strict=True)):
        number, count = part.integer("split.no") or 0, part.integer("split.count") or 1
        if (number, count) != (index, len(names)):
            raise ModelFileError(
                _("{name} is part {number} of {count} of a split model, but its name says otherwise.").format(
                    name=name, number=number + 1, count=count
                ),
                hint=_("Its name should end in {example}: rename it, or `bendi pull` the model again.").format(
                    example=f"-{number + 1:05}-of-{count:05}.gguf"
                ),
            )
        if (
            part.byte_order != parts[0].byte_order
            or (part.architecture or parts[0].architecture) != parts[0].architecture
        ):
            raise _other_model(name, names[0])
        for tensor in part.tensors:
            if tensor.name in owners:
                raise ModelFileError(
                    _("{name} has the tensor {tensor}, which {other} has too.").format(
                        name=name, tensor=quoted(tensor.name), other=owners[tensor.name]
                    ),
                    hint=hostile_hint(),
                )
            owners[tensor.name] = name
    expected = {part.integer("split.tensors.count") for part in parts} - {None}
    if len(names) > 1 and expected != {len(owners)}:
        raise _other_model(names[-1], names[0])


def _other_model(name: str, first: str) -> ModelFileError:
    return ModelFileError(
        _("{name} does not belong to the same model as {first}.").format(name=name, first=first),
        hint=_("`bendi pull` the model again into a folder of its own."),
    )
