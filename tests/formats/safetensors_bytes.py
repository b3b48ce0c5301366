"""Builds safetensors files, good and bad, without the package under test: the format written down a second time."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I32": 4, "I64": 8, "BOOL": 1}
Entry = dict[str, Any]


def entry(dtype: str, shape: list[int], begin: int, end: int) -> Entry:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def entries(tensors: Mapping[str, tuple[str, list[int]]]) -> dict[str, Entry]:
    """Entries one after another, as writers place them."""
    made: dict[str, Entry] = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = SIZES[dtype]
        for part in shape:
            size *= part
        made[name] = entry(dtype, shape, at, at + size)
        at += size
    return made


def raw(header: bytes, data: bytes | int = 0) -> bytes:
    """A file with that header, whatever it is, and that data, or so many zeros."""
    return struct.pack("<Q", len(header)) + header + (bytes(data) if isinstance(data, int) else data)


def built(made: Mapping[str, Any], data: int | None = None) -> bytes:
    """A file with these entries; `data`: bytes of data, when not what the entries need."""
    if data is None:
        data = max((max(item["data_offsets"]) for name, item in made.items() if name != "__metadata__"), default=0)
    return raw(json.dumps(made).encode(), data)
