"""Headers of models of this machine that were read and checked before, for whoever only looks.

Reading a vocabulary and comparing its tokens takes a tenth of a second, which is most of what looking at a model takes.
Before an engine loads a file it is read and checked again, always: nothing of that comes from here.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bendi.errors import BendiError
from bendi.formats import TENSOR_TYPES, GgufArray, GgufFile, TensorInfo, gguf, read_gguf_split, split_paths
from bendi.formats.gguf_types import MetadataValue
from bendi.formats.json_scan import MAX_TEXT_BYTES, bounded_json
from bendi.formats.source import FileSource
from bendi.store.cache_folder import Body, CacheFolder, CacheLimits
from bendi.units import KIB, MIB

FOLDER = "local-headers"
LIMITS = CacheLimits(total_bytes=32 * MIB, body_bytes=MAX_TEXT_BYTES, files=256)
_VERSION = 1
_HEAD_BYTES = 64 * KIB
_QUIET_NS = 2 * 10**9
"""A file that was changed this recently may change again without a new time: clocks of file systems are coarse."""


def local_headers(path: Path, cache_dir: Path) -> tuple[GgufFile, ...]:
    """`read_gguf_split(path)`, remembered while no part has changed. Raises as that does."""
    cache = CacheFolder(cache_dir / FOLDER, ".json", _VERSION, LIMITS)
    identity = _identity(path)
    if identity is None:
        return read_gguf_split(path)
    key = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    found = cache.load(key, lambda head, body: _unpacked(body, head["bytes"]) if head["of"] == identity else None)
    if found is not None:
        return found
    started_ns = time.time_ns()
    parts = read_gguf_split(path)
    # A file that changes just now is not worth the trouble of remembering it.
    if _is_quiet(identity, started_ns) and _identity(path) == identity:
        text = json.dumps([_packed(part) for part in parts], ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(text) <= LIMITS.body_bytes and _same(text, parts):
            cache.save(key, {"of": identity, "bytes": len(text)}, lambda: (text,))
    return parts


def _identity(path: Path) -> list[list[object]] | None:
    """What changes when the file, one of its parts or the code that reads them does; None when that cannot be said.

    The time of the last change of state cannot be set by programs, on the systems that keep it; the first bytes help
    on others.
    """
    try:
        code = [[item.name, item.stat().st_size, item.stat().st_mtime_ns] for item in _readers()]
        parts: list[list[object]] = []
        for part in split_paths(path):
            with FileSource(part) as source:
                status = part.stat()
                digest = hashlib.sha256(source.read_at(0, _HEAD_BYTES)).hexdigest()
            numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            parts.append([part.name, *numbers, digest])
    except (OSError, BendiError):
        return None
    return [*code, *parts]


def _readers() -> list[Path]:
    folder = Path(gguf.__file__).parent
    return sorted([*folder.glob("gguf*.py"), folder / "quant_types.py", folder / "source.py"])


def _is_quiet(identity: Iterable[list[object]], now_ns: int) -> bool:
    times = [number for row in identity if len(row) > 3 for number in row[4:6] if isinstance(number, int)]
    return all(number < now_ns - _QUIET_NS for number in times)


def _packed(part: GgufFile) -> dict[str, object]:
    return {
        "version": part.version,
        "byte_order": part.byte_order,
        "alignment": part.alignment,
        "data_offset": part.data_offset,
        "file_size_bytes": part.file_size_bytes,
        "metadata": {key: _packed_value(value) for key, value in part.metadata.items()},
        "names": [tensor.name for tensor in part.tensors],
        "types": [tensor.type.id for tensor in part.tensors],
        "ranks": [len(tensor.shape) for tensor in part.tensors],
        "shapes": [size for tensor in part.tensors for size in tensor.shape],
        "offsets": [tensor.offset for tensor in part.tensors],
        "sizes": [tensor.size_bytes for tensor in part.tensors],
    }


def _packed_value(value: MetadataValue) -> object:
    if isinstance(value, GgufArray):
        return [value.element_type, value.count, value.offset, value.size_bytes, value.values]
    return value


def _unpacked(body: Body, size_bytes: Any) -> tuple[GgufFile, ...]:
    """The headers of a body. Raises ValueError, KeyError or TypeError when it is damaged."""
    return _parsed(b"".join(body.pieces(size_bytes)))


def _parsed(text: bytes) -> tuple[GgufFile, ...]:
    parts = bounded_json(text)
    if not isinstance(parts, list):
        raise TypeError(parts)
    return tuple(_part(part) for part in parts)


def _part(part: Mapping[str, Any]) -> GgufFile:
    sizes = iter(part["shapes"])
    tensors = tuple(
        TensorInfo(name, TENSOR_TYPES[kind], tuple(next(sizes) for _axis in range(rank)), offset, size_bytes)
        for name, kind, rank, offset, size_bytes in zip(
            part["names"], part["types"], part["ranks"], part["offsets"], part["sizes"], strict=True
        )
    )
    return GgufFile(
        version=part["version"],
        byte_order=part["byte_order"],
        alignment=part["alignment"],
        metadata={key: _value(value) for key, value in part["metadata"].items()},
        tensors=tensors,
        data_offset=part["data_offset"],
        file_size_bytes=part["file_size_bytes"],
    )


def _value(value: Any) -> MetadataValue:
    if isinstance(value, list):
        element_type, count, offset, size_bytes, values = value
        return GgufArray(element_type, count, offset, size_bytes, None if values is None else tuple(values))
    found: MetadataValue = value
    return found


def _same(text: bytes, parts: tuple[GgufFile, ...]) -> bool:
    """Whether `text` gives back exactly `parts`: it does not for numbers that are none, and for the largest headers."""
    try:
        return _parsed(text) == parts
    except (ValueError, KeyError, TypeError):
        return False
