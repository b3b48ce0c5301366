"""Reads the header of safetensors files, and the index that holds the files of one model together.

A file is eight bytes with the length of the header, the header (a JSON object that says type, shape and place of every
tensor), and the data, without a hole and without a byte that belongs to no tensor. Format: the README of the
safetensors project; what its reader refuses (`safetensors/src/tensor.rs`, `validate`) is refused here, too, and also
what its JSON library lets pass: names that stand there twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bendi.errors import ModelFileError
from bendi.formats.foreign import HEAD_BYTES, recognise
from bendi.formats.gguf_cursor import hostile_hint, quoted, truncated, truncated_hint
from bendi.formats.json_scan import JsonScanner, name_twice
from bendi.formats.source import ByteSource
from bendi.i18n import _
from bendi.units import format_size

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 500_000
"""Tensors in all files of one model; the largest has under 200,000."""
MAX_NAMES_BYTES = 64 * 2**20
MAX_FILES = 1000
_MAX_NAME = 1024
_MAX_ENTRY = 4096
_MAX_RANK = 16
_MAX_METADATA_VALUE = 8 * 2**20
_MAX_METADATA_KEYS = 4096
_MAX_KEPT_TEXT = 4096
_MAX_NUMBER = 2**63 - 1
_UNKNOWN = recognise(b"\xff")

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element, by the name that files use."""


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """A tensor: `shape` outermost first, as PyTorch counts; `offset` from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        return self.size_bytes * 8 // DTYPE_BITS[self.dtype]


@dataclass(frozen=True)
class SafetensorsFile:
    """The header of one file, checked. `data_offset`: where the data starts in the file.

    `metadata`: what the file says about itself; texts of more than 4096 characters (logs of a training) are left out.
    """

    tensors: tuple[SafetensorsTensor, ...]
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
    """What may still be kept; shared by the files of a model."""

    tensors: int = MAX_TENSORS
    names_bytes: int = MAX_NAMES_BYTES
    seen: dict[str, str] = field(default_factory=dict)
    """The file of each tensor so far."""


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
    there = {name: {tensor.name for tensor in file.tensors} for name, file in files.items()}
    for tensor, name in index.weight_map.items():
        if tensor not in there.get(name, ()):
            raise ModelFileError(
                _("{file} does not have the tensor {tensor}, which the index of the model promises.").format(
                    file=name, tensor=quoted(tensor)
                ),
                hint=_("Its files belong to different versions of the model: download all of them again."),
            )


def bytes_by_dtype(tensors: Iterable[SafetensorsTensor]) -> dict[str, int]:
    """Bytes of all tensors of each type."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size_bytes
    return sizes


def _named(name: str, error: ModelFileError) -> ModelFileError:
    message = _("{name} cannot be used: {reason}.").format(name=name, reason=error.message.rstrip(".。"))
    return ModelFileError(message, hint=error.hint)


def _read(source: ByteSource, file: str, budget: TensorBudget) -> SafetensorsFile:
    header_bytes = _header_bytes(source)
    data_offset = 8 + header_bytes
    scanner = JsonScanner(source, 8, data_offset)
    metadata: dict[str, str] | None = None
    tensors = []
    for name in scanner.entries(_MAX_NAME):
        if name == "__metadata__":
            if metadata is not None:
                raise name_twice(name)
            metadata = _read_metadata(scanner)
            continue
        _account(name, file, budget)
        tensors.append(_tensor(name, scanner.value(_MAX_ENTRY)))
    scanner.finish()
    _check_layout(tensors, data_offset, source.size_bytes)
    return SafetensorsFile(tuple(tensors), metadata or {}, data_offset, source.size_bytes)


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
        if len(value) <= _MAX_KEPT_TEXT:
            kept[key] = value
    return kept


def _account(name: str, file: str, budget: TensorBudget) -> None:
    """Refuses names that cannot be, and more of them than a model has."""
    if not name or not name.isprintable():
        raise ModelFileError(_("it has a tensor with the name {name}").format(name=quoted(name)), hint=hostile_hint())
    if name in budget.seen:
        if budget.seen[name] == file:
            raise name_twice(name)
        raise ModelFileError(
            _("it has the tensor {tensor}, which {other} has too").format(tensor=quoted(name), other=budget.seen[name]),
            hint=hostile_hint(),
        )
    budget.tensors -= 1
    budget.names_bytes -= len(name)
    if budget.tensors < 0 or budget.names_bytes < 0:
        raise ModelFileError(
            _("it has more tensors than any model: {limit} are read").format(limit=MAX_TENSORS), hint=hostile_hint()
        )
    budget.seen[name] = file


def _tensor(name: str, entry: object) -> SafetensorsTensor:
    """A tensor from its entry, which may hold anything."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), _sizes(fields.get("shape")), _sizes(fields.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise _impossible(name, _("its entry has no type, shape and place"))
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise ModelFileError(
            _("its tensor {name} has the unknown type {type}").format(name=quoted(name), type=quoted(dtype)),
            hint=_("A newer bendi may read it; otherwise the file is damaged."),
        )
    if len(shape) > _MAX_RANK:
        raise _impossible(name, _("it has {count} dimensions").format(count=len(shape)))
    begin, end = offsets
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
    return SafetensorsTensor(name, dtype, tuple(shape), begin, end - begin)


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


def _check_layout(tensors: Sequence[SafetensorsTensor], data_offset: int, file_size_bytes: int) -> None:
    """The tensors fill the data exactly: no byte is missing, left over, or in two of them."""
    end = 0
    last: SafetensorsTensor | None = None
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size_bytes)):
        if tensor.offset < end and last is not None:
            raise _impossible(tensor.name, _("it overlaps {other}").format(other=quoted(last.name)))
        if tensor.offset > end:
            raise _impossible(
                tensor.name, _("before it are {count} bytes of no tensor").format(count=tensor.offset - end)
            )
        end, last = tensor.offset + tensor.size_bytes, tensor
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
    if source.size_bytes > MAX_HEADER_BYTES:
        raise ModelFileError(
            _("it has {size}; {limit} are allowed").format(
                size=format_size(source.size_bytes), limit=format_size(MAX_HEADER_BYTES)
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
    weight_map: dict[str, str] = {}
    files: dict[str, str] = {}
    budget = TensorBudget()
    for name in scanner.entries(_MAX_NAME):
        file = scanner.value(_MAX_NAME)
        if not isinstance(file, str) or not _FILE_NAME.fullmatch(file):
            raise ModelFileError(
                _("it puts a tensor into {file}, which is not the name of a safetensors file beside it").format(
                    file=quoted(str(file))
                ),
                hint=hostile_hint(),
            )
        _account(name, "", budget)
        weight_map[name] = files.setdefault(file, file)
        if len(files) > MAX_FILES:
            raise ModelFileError(_("it names more than {limit} files").format(limit=MAX_FILES), hint=hostile_hint())
    return weight_map
