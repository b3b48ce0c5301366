"""Reads the header of a GGUF file, byte by byte, and refuses what cannot be right.

Every number in the file may be a lie, so each is checked against the size of the file before it is used, and each
kind of thing has a limit well above what real models have: reading costs little whatever the bytes say. Long arrays
(vocabularies) are walked over, not kept. Format: docs/gguf.md of the ggml project.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bendi.errors import ModelFileError
from bendi.formats.foreign import HEAD_BYTES, recognise
from bendi.formats.gguf_cursor import MAX_HEADER_BYTES, MAX_TEXT_BYTES, Cursor, hostile_hint, quoted, truncated
from bendi.formats.gguf_types import ALIGNMENT_BYTES, GgufArray, GgufFile, MetadataValue, Scalar, TensorInfo
from bendi.formats.quant_types import REMOVED_TENSOR_TYPES, TENSOR_TYPES, TensorType
from bendi.formats.source import ByteSource
from bendi.i18n import _
from bendi.units import format_size

MAX_KEYS = 8192
MAX_TENSORS = 32768
MAX_KEY_BYTES = 65535
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20
MAX_KEPT_TEXT_BYTES = 4 * 2**20
MAX_STRINGS = 4_000_000
"""Strings in all arrays of all parts; the largest vocabulary with its merges has under 1.5 million."""
MAX_KEPT_ELEMENTS = 4096
MAX_KEPT_STRINGS = 256
_MAX_KEPT_TOTAL = 65536
_MAX_NUMBER = 2**63 - 1

_STRING, _ARRAY = 8, 9
_FORMATS = {
    0: ("u8", "B"),
    1: ("i8", "b"),
    2: ("u16", "H"),
    3: ("i16", "h"),
    4: ("u32", "I"),
    5: ("i32", "i"),
    6: ("f32", "f"),
    7: ("bool", "?"),
    10: ("u64", "Q"),
    11: ("i64", "q"),
    12: ("f64", "d"),
}


@dataclass
class Budget:
    """What may still be kept or walked over; shared by the parts of a split model."""

    keys: int = MAX_KEYS
    tensors: int = MAX_TENSORS
    text_bytes: int = MAX_KEPT_TEXT_BYTES
    strings: int = MAX_STRINGS
    elements: int = _MAX_KEPT_TOTAL
    header_bytes: int = MAX_HEADER_BYTES


def read_header(source: ByteSource, budget: Budget) -> GgufFile:
    """The header of a GGUF file. Raises ModelFileError; its message is the reason, without the file's name."""
    cursor = Cursor(source, limit_bytes=budget.header_bytes)
    version = _read_version(source, cursor)
    tensor_count = cursor.integer("Q")
    key_count = cursor.integer("Q")
    # The smallest tensor entry is a name of one byte without dimensions, the smallest key a byte with a byte as value.
    _check_count(_("tensors"), tensor_count, budget.tensors, cursor.remaining_bytes // 25)
    _check_count(_("metadata keys"), key_count, budget.keys, cursor.remaining_bytes // 14)
    budget.tensors -= tensor_count
    budget.keys -= key_count
    metadata: dict[str, MetadataValue] = {}
    for _index in range(key_count):
        key = _read_name(cursor, MAX_KEY_BYTES, budget)
        if key in metadata:
            raise ModelFileError(_("it has the metadata key {key} twice").format(key=quoted(key)), hint=hostile_hint())
        metadata[key] = _read_value(cursor, key, budget)
    alignment = _alignment(metadata)
    tensors = tuple(_read_tensor(cursor, alignment, budget) for _index in range(tensor_count))
    budget.header_bytes -= cursor.position
    data_offset = -(-cursor.position // alignment) * alignment
    _check_layout(tensors, data_offset, source.size_bytes)
    return GgufFile(version, cursor.order, alignment, metadata, tensors, data_offset, source.size_bytes)


def _read_version(source: ByteSource, cursor: Cursor) -> int:
    if source.read_at(0, 4) != b"GGUF":
        foreign = recognise(source.read_at(0, HEAD_BYTES))
        raise ModelFileError(_(foreign.reason), hint=_(foreign.hint))
    cursor.skip(4)
    raw = cursor.take(4)
    # Versions are small, so the file is in the other byte order where the two low bytes are zero.
    if raw[:2] == b"\0\0" and raw != b"\0\0\0\0":
        cursor.order = "big"
    version = int.from_bytes(raw, cursor.order)
    if version == 1:
        raise ModelFileError(
            _("it is GGUF version 1, which was in use for one month of 2023 and is not read any more"),
            hint=_("Get a newer GGUF version of the model: `bendi pull`."),
        )
    if version not in (2, 3):
        raise ModelFileError(
            _("its GGUF version is {version}; versions 2 and 3 are known").format(version=version),
            hint=_("A newer bendi may read it; otherwise the file is damaged."),
        )
    return version


def _check_count(what: str, count: int, allowed: int, possible: int) -> None:
    if count > possible:
        raise ModelFileError(
            _("it claims {count} {what}, more than a file of its size can hold").format(count=count, what=what),
            hint=hostile_hint(),
        )
    if count > allowed:
        raise ModelFileError(
            _("it has {count} {what}; no more than {limit} are read").format(count=count, what=what, limit=allowed),
            hint=hostile_hint(),
        )


def _read_name(cursor: Cursor, limit_bytes: int, budget: Budget) -> str:
    """A metadata key or the name of a tensor: short, printable UTF-8."""
    length = cursor.integer("Q")
    if not 0 < length <= limit_bytes:
        raise ModelFileError(
            _("a name in its header has {length} bytes; 1 to {limit} are allowed").format(
                length=length, limit=limit_bytes
            ),
            hint=hostile_hint(),
        )
    budget.text_bytes -= length
    if budget.text_bytes < 0:
        raise ModelFileError(
            _("the names in its header take more than {limit}").format(limit=format_size(MAX_KEPT_TEXT_BYTES)),
            hint=hostile_hint(),
        )
    raw = cursor.take(length)
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(
            _("the name {name} in its header is not UTF-8").format(name=quoted(repr(raw)[2:-1])), hint=hostile_hint()
        ) from error
    if not name.isprintable():
        raise ModelFileError(
            _("the name {name} in its header has characters that cannot be printed").format(name=quoted(name)),
            hint=hostile_hint(),
        )
    return name


def _read_value(cursor: Cursor, key: str, budget: Budget) -> MetadataValue:
    kind = cursor.integer("I")
    if kind == _STRING:
        return _read_text(cursor, budget)
    if kind == _ARRAY:
        return _read_array(cursor, key, budget)
    return cursor.number(_format_of(kind, key)[1])


def _format_of(kind: int, key: str) -> tuple[str, str]:
    if kind not in _FORMATS:
        raise ModelFileError(
            _("the metadata key {key} has a value of the unknown type {kind}").format(key=quoted(key), kind=kind),
            hint=hostile_hint(),
        )
    return _FORMATS[kind]


def _read_text(cursor: Cursor, budget: Budget) -> str | GgufArray:
    length = cursor.integer("Q")
    if length > MAX_TEXT_BYTES or length > budget.text_bytes:
        offset = cursor.position
        cursor.skip(length)
        return GgufArray("str", 1, offset, length)
    budget.text_bytes -= length
    return cursor.take(length).decode(errors="replace")


def _read_array(cursor: Cursor, key: str, budget: Budget) -> GgufArray:
    kind = cursor.integer("I")
    count = cursor.integer("Q")
    if kind == _ARRAY:
        raise ModelFileError(
            _("the metadata key {key} is an array of arrays, which no model needs").format(key=quoted(key)),
            hint=hostile_hint(),
        )
    if kind == _STRING:
        return _read_strings(cursor, count, key, budget)
    name, format_ = _format_of(kind, key)
    offset, size_bytes = cursor.position, count * struct.calcsize("<" + format_)
    _check_elements(key, count, size_bytes, cursor.remaining_bytes)
    if count > MAX_KEPT_ELEMENTS or count > budget.elements:
        cursor.skip(size_bytes)
        return GgufArray(name, count, offset, size_bytes)
    budget.elements -= count
    order = "<" if cursor.order == "little" else ">"
    return GgufArray(
        name, count, offset, size_bytes, struct.unpack(f"{order}{count}{format_}", cursor.take(size_bytes))
    )


def _read_strings(cursor: Cursor, count: int, key: str, budget: Budget) -> GgufArray:
    _check_elements(key, count, count * 8, cursor.remaining_bytes)
    budget.strings -= count
    if budget.strings < 0:
        raise ModelFileError(
            _("its arrays hold more than {limit} strings").format(limit=MAX_STRINGS), hint=hostile_hint()
        )
    offset = cursor.position
    cursor.skip_strings(count)
    size_bytes = cursor.position - offset
    if count > MAX_KEPT_STRINGS or count > budget.elements or size_bytes > min(budget.text_bytes, 2**16):
        return GgufArray("str", count, offset, size_bytes)
    budget.elements -= count
    budget.text_bytes -= size_bytes
    end = cursor.position
    cursor.position = offset
    values: tuple[Scalar, ...] = tuple(
        cursor.take(cursor.integer("Q")).decode(errors="replace") for _index in range(count)
    )
    assert cursor.position == end
    return GgufArray("str", count, offset, size_bytes, values)


def _check_elements(key: str, count: int, least_bytes: int, remaining_bytes: int) -> None:
    if least_bytes > remaining_bytes:
        raise ModelFileError(
            _("the array {key} claims {count} elements, more than the rest of the file can hold").format(
                key=quoted(key), count=count
            ),
            hint=hostile_hint(),
        )


def _alignment(metadata: dict[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", ALIGNMENT_BYTES)
    if (
        not isinstance(alignment, int)
        or isinstance(alignment, bool)
        or not 0 < alignment <= MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        shown = alignment if isinstance(alignment, int) else type(alignment).__name__
        raise ModelFileError(
            _("its alignment is {alignment}; a power of two up to {limit} is allowed").format(
                alignment=shown, limit=MAX_ALIGNMENT
            ),
            hint=hostile_hint(),
        )
    return alignment


def _read_tensor(cursor: Cursor, alignment: int, budget: Budget) -> TensorInfo:
    name = _read_name(cursor, MAX_TENSOR_NAME_BYTES, budget)
    dimensions = cursor.integer("I")
    if dimensions > MAX_DIMENSIONS:
        raise _bad_tensor(name, _("it has {count} dimensions; at most 4 are allowed").format(count=dimensions))
    shape = tuple(cursor.integer("Q") for _index in range(dimensions))
    weights = 1
    for size in shape:
        weights *= size
    if weights == 0 or weights > _MAX_NUMBER:
        raise _bad_tensor(name, _("its shape is {shape}").format(shape=" x ".join(map(str, shape))))
    kind = _tensor_type(name, cursor.integer("I"))
    row = shape[0] if shape else 1
    if row % kind.block_weights:
        raise _bad_tensor(
            name,
            _("its rows have {row} weights, not a multiple of the {block} that a block of {type} holds").format(
                row=row, block=kind.block_weights, type=kind.name
            ),
        )
    offset = cursor.integer("Q")
    if offset % alignment:
        raise _bad_tensor(
            name, _("its offset {offset} is not a multiple of {alignment}").format(offset=offset, alignment=alignment)
        )
    size_bytes = kind.size_bytes(weights)
    if offset + size_bytes > _MAX_NUMBER:
        raise _bad_tensor(name, _("it would end at byte {end}").format(end=offset + size_bytes))
    return TensorInfo(name, kind, shape, offset, size_bytes)


def _tensor_type(name: str, number: int) -> TensorType:
    if number in REMOVED_TENSOR_TYPES:
        raise ModelFileError(
            _("its tensor {name} has the type {type}, which engines no longer read").format(
                name=quoted(name), type=REMOVED_TENSOR_TYPES[number]
            ),
            hint=_("Get the Q4_0 or IQ4_NL file of the same model: engines now rearrange those as they load them."),
        )
    if number not in TENSOR_TYPES:
        raise ModelFileError(
            _("its tensor {name} has the unknown type {type}").format(name=quoted(name), type=number),
            hint=_("A newer bendi may read it; otherwise the file is damaged, or made by a fork of llama.cpp."),
        )
    return TENSOR_TYPES[number]


def _bad_tensor(name: str, reason: str) -> ModelFileError:
    return ModelFileError(
        _("its tensor {name} is impossible: {reason}").format(name=quoted(name), reason=reason), hint=hostile_hint()
    )


def _check_layout(tensors: tuple[TensorInfo, ...], data_offset: int, file_size_bytes: int) -> None:
    """Every tensor has a name of its own, and bytes of its own that are there."""
    if not tensors:
        return
    seen: set[str] = set()
    end = 0
    last: TensorInfo | None = None
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.name in seen:
            raise _bad_tensor(tensor.name, _("there are two of this name"))
        seen.add(tensor.name)
        if last is not None and tensor.offset < end:
            raise _bad_tensor(tensor.name, _("it overlaps {other}").format(other=quoted(last.name)))
        end, last = tensor.offset + tensor.size_bytes, tensor
    expected_bytes = data_offset + end
    if expected_bytes > file_size_bytes:
        raise truncated(file_size_bytes, expected_bytes)
