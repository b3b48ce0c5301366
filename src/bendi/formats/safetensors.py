"""Reads the header of safetensors files, and the index that holds the files of one model together.

A file is eight bytes with the length of the header, the header (a JSON object that says type, shape and place of every
tensor), and the data, without a hole and without a byte that belongs to no tensor. Format: the README of the
safetensors project; what its reader refuses (`safetensors/src/tensor.rs`, `validate`) is refused here, too, and also
what its JSON library lets pass: names that stand there twice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bendi.errors import ModelFileError
from bendi.formats.foreign import HEAD_BYTES, recognise
from bendi.formats.gguf_cursor import hostile_hint, quoted, truncated, truncated_hint
from bendi.formats.json_scan import JsonScanner, name_twice
from bendi.formats.source import ByteSource
from bendi.formats.tensor_table import DTYPE_BITS, JoinedTensors, SafetensorsTensor, TensorTable
from bendi.i18n import _
from bendi.units import format_size

MAX_HEADER_BYTES = 16 * 2**20
"""The format allows 100 MB, which take seconds to read. Published files have up to 10 MB."""
MAX_FILE_TENSORS = 2**17
MAX_TENSORS = 230_000
"""Tensors in all files of one model; the largest has some 210,000, in 60 files."""
MAX_INDEX_BYTES = 32 * 2**20
MAX_KEPT_BYTES = 28 * 2**20
"""Names and shapes in all files of one model, as Python holds them; the largest model has 24 MiB."""
MAX_FILES = 1000
_MAX_NAME = 1024
_MAX_ENTRY = 4096
_MAX_RANK = 16
_MAX_METADATA_VALUE = 2**20
_MAX_METADATA_BYTES = 2**22
_MAX_METADATA_KEYS = 4096
_MAX_KEPT_TEXT = 4096
_MAX_NUMBER = 2**63 - 1
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_BLANKS = r"[ \t\n\r]*"
_PLAIN_TENSOR = re.compile(
    rf'{_BLANKS}"(?!__metadata__")([^"\\\x00-\x1f]{{1,1024}})"{_BLANKS}:{_BLANKS}'
    rf'\{{{_BLANKS}"dtype"{_BLANKS}:{_BLANKS}"([A-Z0-9_]{{1,16}})"{_BLANKS},'
    rf'{_BLANKS}"shape"{_BLANKS}:{_BLANKS}\[((?:{_NUMBER}(?:,{_BLANKS}{_NUMBER}){{0,15}})?)\]{_BLANKS},'
    rf'{_BLANKS}"data_offsets"{_BLANKS}:{_BLANKS}\[({_NUMBER}),{_BLANKS}({_NUMBER})\]{_BLANKS}\}}{_BLANKS}[,}}]'
)
"""An entry as the usual writers spell it."""
_PLAIN_PAIR = re.compile(
    rf'{_BLANKS}"([^"\\\x00-\x1f]{{1,1024}})"{_BLANKS}:{_BLANKS}"([A-Za-z0-9._-]{{1,220}})"{_BLANKS}[,}}]'
)
_UNKNOWN = recognise(b"\xff")


@dataclass(frozen=True)
class SafetensorsFile:
    """The header of one file, checked. `data_offset`: where the data starts in the file.

    `metadata`: what the file says about itself; texts of more than 4096 characters (logs of a training) are left out.
    """

    tensors: TensorTable
    metadata: Mapping[str, str]
    data_offset: int
    file_size_bytes: int


@dataclass(frozen=True)
class SafetensorsIndex:
    """`model.safetensors.index.json`: the file of each tensor by the tensor's name, and the names of all files."""

    weight_map: Mapping[str, str]
    files: tuple[str, ...]


@dataclass
class TensorBudget:
    """What may still be kept; shared by the files of a model.

    `seen`: the file of each tensor so far, of those that are not where the index promises them.
    """

    tensors: int = MAX_TENSORS
    kept_bytes: int = MAX_KEPT_BYTES
    seen: dict[str, str] = field(default_factory=dict)
    promised: Mapping[str, str] = field(default_factory=dict)
    shapes: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
    _by_file: dict[str, list[str]] = field(default_factory=dict)

    def promise(self, weight_map: Mapping[str, str]) -> None:
        """From here on the names of an index are known, so that their texts are kept once."""
        self.promised = weight_map
        self.keep(sum(map(sys.getsizeof, weight_map)))
        for name, file in weight_map.items():
            self._by_file.setdefault(file, []).append(name)

    def expected(self, file: str) -> dict[str, str]:
        """The names that the index promises for `file`, each under itself."""
        return {name: name for name in self._by_file.get(file, ())}

    def keep(self, size_bytes: int) -> None:
        """Counts something that stays in memory. Raises ModelFileError when there is too much."""
        self.kept_bytes -= size_bytes
        if self.kept_bytes < 0:
            raise _too_many(MAX_TENSORS)


def read_safetensors(source: ByteSource, name: str, budget: TensorBudget | None = None) -> SafetensorsFile:
    """The header of a safetensors file, checked; tensor data is not read. `name` is what messages call the file.

    Files of one model share `budget`. Raises ModelFileError, with the reason, when the file is damaged or hostile.
    """
    try:
        return _read(source, name, budget or TensorBudget())
    except ModelFileError as error:
        raise _named(name, error) from error


def read_index(source: ByteSource, name: str) -> SafetensorsIndex:
    """The index of a model in several files. Raises ModelFileError when it is damaged or hostile."""
    try:
        return _read_index(source)
    except ModelFileError as error:
        raise _named(name, error) from error


def check_index(index: SafetensorsIndex, files: Mapping[str, SafetensorsFile]) -> None:
    """Raises ModelFileError unless every tensor of the index is in the file that the index names."""
    promised: dict[str, list[str]] = {}
    for tensor, name in index.weight_map.items():
        promised.setdefault(name, []).append(tensor)
    for name, tensors in promised.items():
        there = set(files[name].tensors.names()) if name in files else set()
        for tensor in tensors:
            if tensor not in there:
                raise ModelFileError(
                    _("{file} does not have the tensor {tensor}, which the index of the model promises.").format(
                        file=name, tensor=quoted(tensor)
                    ),
                    hint=_("Its files belong to different versions of the model: download all of them again."),
                )


def bytes_by_dtype(tensors: Iterable[SafetensorsTensor]) -> dict[str, int]:
    """Bytes of all tensors of each type."""
    sizes: dict[str, int] = {}
    pairs = (
        tensors.sizes()
        if isinstance(tensors, TensorTable | JoinedTensors)
        else ((tensor.dtype, tensor.size_bytes) for tensor in tensors)
    )
    for dtype, size_bytes in pairs:
        sizes[dtype] = sizes.get(dtype, 0) + size_bytes
    return sizes


def _named(name: str, error: ModelFileError) -> ModelFileError:
    message = _("{name} cannot be used: {reason}.").format(name=name, reason=error.message.rstrip(".。"))
    return ModelFileError(message, hint=error.hint)


def _read(source: ByteSource, file: str, budget: TensorBudget) -> SafetensorsFile:
    header_bytes = _header_bytes(source)
    data_offset = 8 + header_bytes
    scanner = JsonScanner(source, 8, data_offset)
    metadata: dict[str, str] | None = None
    tensors = TensorTable()
    expected = budget.expected(file)
    for name in scanner.entries(_MAX_NAME, _PLAIN_TENSOR):
        if name == "__metadata__":
            if metadata is not None:
                raise name_twice(name)
            metadata = _read_metadata(scanner)
            continue
        if len(tensors) == MAX_FILE_TENSORS:
            raise _too_many(MAX_FILE_TENSORS)
        # Taken out, so that a second one of this name is not found here.
        known = expected.pop(name, None)
        if known is None:
            _account(name, file, budget)
        if scanner.plain:
            dtype, shape, begin, end = scanner.plain.group(2, 3, 4, 5)
            sizes = [int(size) for size in shape.split(",")] if shape else []
            tensors.add(_tensor(known or name, dtype, (sizes, [int(begin), int(end)]), budget))
        else:
            # Every spelling that JSON allows; it takes longer, and so it counts for more.
            budget.tensors -= 1
            dtype, places = _fields(known or name, scanner.value(_MAX_ENTRY))
            tensors.add(_tensor(known or name, dtype, places, budget))
    scanner.finish()
    _check_layout(tensors, data_offset, source.size_bytes)
    return SafetensorsFile(tensors, metadata or {}, data_offset, source.size_bytes)


def _header_bytes(source: ByteSource) -> int:
    """The length of the header, of a file that looks like safetensors."""
    head = source.read_at(0, HEAD_BYTES)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{":
        if head.startswith(b"GGUF"):
            raise ModelFileError(_("it is a GGUF file"), hint=_("Give it a name that ends in .gguf."))
        foreign = recognise(head)
        if foreign != _UNKNOWN:
            raise ModelFileError(_(foreign.reason), hint=_(foreign.hint))
        raise ModelFileError(_("it does not begin as safetensors files do"), hint=hostile_hint())
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise ModelFileError(
            _("it claims a header of {size} bytes; 2 to {limit} are allowed").format(
                size=length, limit=MAX_HEADER_BYTES
            ),
            hint=hostile_hint(),
        )
    if 8 + length > source.size_bytes:
        raise ModelFileError(
            _("it ends in the middle of its header, after {size}: it is truncated").format(
                size=format_size(source.size_bytes)
            ),
            hint=truncated_hint(),
        )
    return length


def _read_metadata(scanner: JsonScanner) -> dict[str, str]:
    kept: dict[str, str] = {}
    seen: set[str] = set()
    room = _MAX_METADATA_BYTES
    for key in scanner.entries(_MAX_NAME):
        if key in seen:
            raise name_twice(key)
        seen.add(key)
        if len(seen) > _MAX_METADATA_KEYS:
            raise ModelFileError(
                _("it has more than {limit} entries of metadata").format(limit=_MAX_METADATA_KEYS), hint=hostile_hint()
            )
        value = scanner.value(_MAX_METADATA_VALUE)
        if not isinstance(value, str):
            raise ModelFileError(_("its metadata {key} is not a text").format(key=quoted(key)), hint=hostile_hint())
        room -= sys.getsizeof(key) + (sys.getsizeof(value) if len(value) <= _MAX_KEPT_TEXT else 0)
        if room < 0:
            raise ModelFileError(
                _("its metadata take more than {limit}").format(limit=format_size(_MAX_METADATA_BYTES)),
                hint=hostile_hint(),
            )
        if len(value) <= _MAX_KEPT_TEXT:
            kept[key] = value
    return kept


def _check_name(name: str) -> None:
    if not name or not name.isprintable():
        raise ModelFileError(_("it has a tensor with the name {name}").format(name=quoted(name)), hint=hostile_hint())


def _account(name: str, file: str, budget: TensorBudget) -> None:
    """Refuses names that cannot be, and more of them than a model has."""
    _check_name(name)
    other = budget.seen.get(name) or budget.promised.get(name)
    if other == file:
        raise name_twice(name)
    if other is not None:
        raise ModelFileError(
            _("it has the tensor {tensor}, which {other} has too").format(tensor=quoted(name), other=other),
            hint=hostile_hint(),
        )
    budget.keep(sys.getsizeof(name))
    budget.seen[name] = file


def _too_many(limit: int) -> ModelFileError:
    return ModelFileError(
        _("it has more tensors than any model: {limit} are read").format(limit=limit), hint=hostile_hint()
    )


def _fields(name: str, entry: object) -> tuple[str, tuple[list[int], list[int]]]:
    """(type, (shape, place)) from an entry, which may hold anything."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise _impossible(name, _("its entry has no type, shape and place"))
    return dtype, (shape, offsets)


def _tensor(name: str, dtype: str, places: tuple[list[int], list[int]], budget: TensorBudget) -> SafetensorsTensor:
    """A tensor from its type, its shape and the offsets of its begin and end."""
    shape, (begin, end) = places
    budget.tensors -= 1
    if budget.tensors < 0:
        raise _too_many(MAX_TENSORS)
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise ModelFileError(
            _("its tensor {name} has the unknown type {type}").format(name=quoted(name), type=quoted(dtype)),
            hint=_("A newer bendi may read it; otherwise the file is damaged."),
        )
    if len(shape) > _MAX_RANK:
        raise _impossible(name, _("it has {count} dimensions").format(count=len(shape)))
    elements = 1
    for size in shape:
        elements *= size
        if elements * bits > 8 * _MAX_NUMBER:
            raise _impossible(name, _("its shape is {shape}").format(shape=" x ".join(map(str, shape))))
    if elements * bits != 8 * (end - begin):
        raise _impossible(
            name,
            _("its shape {shape} of {type} does not fill the bytes {begin} to {end}").format(
                shape=" x ".join(map(str, shape)) or "1", type=dtype, begin=begin, end=end
            ),
        )
    return SafetensorsTensor(name, dtype, _shared(tuple(shape), budget), begin, end - begin)


def _shared(shape: tuple[int, ...], budget: TensorBudget) -> tuple[int, ...]:
    """`shape`, as the object that another tensor has already."""
    known = budget.shapes.get(shape)
    if known is None:
        # The numbers, the tuple, and its place in the dictionary.
        budget.keep(160 + 44 * len(shape))
        budget.shapes[shape] = known = shape
    return known


def _sizes(value: object) -> list[int] | None:
    """`value` where it is a list of numbers that can be sizes."""
    if not isinstance(value, list):
        return None
    sizes = [
        size for size in value if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _MAX_NUMBER
    ]
    return sizes if len(sizes) == len(value) else None


def _impossible(name: str, reason: str) -> ModelFileError:
    return ModelFileError(
        _("its tensor {name} is impossible: {reason}").format(name=quoted(name), reason=reason), hint=hostile_hint()
    )


def _check_layout(tensors: TensorTable, data_offset: int, file_size_bytes: int) -> None:
    """The tensors fill the data exactly: no byte is missing, left over, or in two of them."""
    end = last = 0
    for index, offset, size_bytes in tensors.by_place():
        if offset < end:
            other = quoted(tensors[last].name)
            raise _impossible(tensors[index].name, _("it overlaps {other}").format(other=other))
        if offset > end:
            raise _impossible(
                tensors[index].name, _("before it are {count} bytes of no tensor").format(count=offset - end)
            )
        end, last = offset + size_bytes, index
    expected_bytes = data_offset + end
    if expected_bytes > file_size_bytes:
        raise truncated(file_size_bytes, expected_bytes)
    if expected_bytes < file_size_bytes:
        raise ModelFileError(
            _("it has {count} bytes after its last tensor").format(count=file_size_bytes - expected_bytes),
            hint=hostile_hint(),
        )


_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")


def _read_index(source: ByteSource) -> SafetensorsIndex:
    if source.size_bytes > MAX_INDEX_BYTES:
        raise ModelFileError(
            _("it has {size}; {limit} are allowed").format(
                size=format_size(source.size_bytes), limit=format_size(MAX_INDEX_BYTES)
            ),
            hint=hostile_hint(),
        )
    scanner = JsonScanner(source, 0, source.size_bytes)
    weight_map: dict[str, str] | None = None
    for key in scanner.entries(_MAX_NAME):
        if key == "weight_map" and weight_map is None:
            weight_map = _read_weight_map(scanner)
        elif key == "weight_map":
            raise name_twice(key)
        else:
            scanner.value(_MAX_METADATA_VALUE)
    scanner.finish()
    if not weight_map:
        raise ModelFileError(_("it does not say which file has which tensor"), hint=hostile_hint())
    return SafetensorsIndex(weight_map, tuple(sorted(set(weight_map.values()))))


def _read_weight_map(scanner: JsonScanner) -> dict[str, str]:
    room = MAX_KEPT_BYTES
    weight_map: dict[str, str] = {}
    files: dict[str, str] = {}
    for name in scanner.entries(_MAX_NAME, _PLAIN_PAIR):
        file = scanner.plain[2] if scanner.plain else scanner.value(_MAX_NAME)
        if not isinstance(file, str) or (file not in files and not _FILE_NAME.fullmatch(file)):
            raise ModelFileError(
                _("it puts a tensor into {file}, which is not the name of a safetensors file beside it").format(
                    file=quoted(file if isinstance(file, str) else "")
                ),
                hint=hostile_hint(),
            )
        _check_name(name)
        if name in weight_map:
            raise name_twice(name)
        room -= sys.getsizeof(name)
        if room < 0 or len(weight_map) == MAX_TENSORS:
            raise _too_many(MAX_TENSORS)
        weight_map[name] = files.setdefault(file, file)
        if len(files) > MAX_FILES:
            raise ModelFileError(_("it names more than {limit} files").format(limit=MAX_FILES), hint=hostile_hint())
    return weight_map
