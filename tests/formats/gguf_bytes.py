"""Builds GGUF files, good and bad, without the package under test: the format written down a second time."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def text(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(order + "Q", len(raw)) + raw


@dataclass(frozen=True)
class Arr:
    """An array value. `count`: what the file claims, when not the truth."""

    kind: int
    items: Sequence[object]
    count: int | None = None

    def packed(self, order: str) -> bytes:
        claimed = len(self.items) if self.count is None else self.count
        head = struct.pack(order + "IQ", self.kind, claimed)
        if self.kind == STRING:
            return head + b"".join(text(item, order) for item in self.items)  # type: ignore[arg-type]
        if self.kind in CODES:
            return head + struct.pack(f"{order}{len(self.items)}{CODES[self.kind]}", *self.items)
        return head


def strings(items: Iterable[str | bytes]) -> Arr:
    return Arr(STRING, tuple(items))


@dataclass(frozen=True)
class Tensor:
    """A tensor entry; `offset` None: after the tensor before it, as writers do."""

    name: str | bytes
    shape: tuple[int, ...] = (32,)
    kind: int = 0
    offset: int | None = None
    size_bytes: int | None = None


Value = tuple[int, object]  # the type of the value, the value
Key = tuple[str | bytes, Value]


@dataclass
class Gguf:
    """What to write. Counts and raw bytes can be overridden to make lies."""

    keys: list[Key] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    version: int = 3
    order: str = "<"
    alignment: int = 32
    key_count: int | None = None
    tensor_count: int | None = None
    data: bool = True

    def set(self, name: str, kind: int, value: object) -> Gguf:
        """This file with one key replaced or added."""
        return self.without(name).add(name, kind, value)

    def add(self, name: str | bytes, kind: int, value: object) -> Gguf:
        return self._with(keys=[*self.keys, (name, (kind, value))])

    def without(self, name: str) -> Gguf:
        return self._with(keys=[key for key in self.keys if key[0] != name])

    def with_tensors(self, *tensors: Tensor) -> Gguf:
        return self._with(tensors=list(tensors))

    def _with(self, **changes: object) -> Gguf:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__} | changes
        return Gguf(**values)

    def header(self) -> bytes:
        order = self.order
        out = [b"GGUF", struct.pack(order + "I", self.version)]
        out.append(struct.pack(order + "Q", len(self.tensors) if self.tensor_count is None else self.tensor_count))
        out.append(struct.pack(order + "Q", len(self.keys) if self.key_count is None else self.key_count))
        for name, (kind, value) in self.keys:
            out += [text(name, order), struct.pack(order + "I", kind), _value(kind, value, order)]
        offset = 0
        for tensor in self.tensors:
            at = offset if tensor.offset is None else tensor.offset
            out += [text(tensor.name, order), struct.pack(order + "I", len(tensor.shape))]
            out.append(struct.pack(f"{order}{len(tensor.shape)}Q", *tensor.shape))
            out.append(struct.pack(order + "IQ", tensor.kind, at))
            offset = _padded(at + _size(tensor), self.alignment)
        return b"".join(out)

    def build(self) -> bytes:
        header = self.header()
        if not self.tensors or not self.data:
            return header
        ends, offset = [], 0
        for tensor in self.tensors:
            at = offset if tensor.offset is None else tensor.offset
            ends.append(at + _size(tensor))
            offset = _padded(at + _size(tensor), self.alignment)
        return header.ljust(_padded(len(header), self.alignment), b"\0") + bytes(max(ends))


def _value(kind: int, value: object, order: str) -> bytes:
    if isinstance(value, Arr):
        return value.packed(order)
    if kind == STRING:
        return text(value, order)  # type: ignore[arg-type]
    if kind in CODES:
        return struct.pack(order + CODES[kind], value)
    return value if isinstance(value, bytes) else b""


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment if alignment else size


def _size(tensor: Tensor) -> int:
    """Bytes of F32 data, unless the tensor says otherwise."""
    if tensor.size_bytes is not None:
        return tensor.size_bytes
    elements = 1
    for size in tensor.shape:
        elements *= size
    return 4 * elements


def llama(vocabulary: int = 260, order: str = "<", version: int = 3) -> Gguf:
    """A sound little model: two layers, byte tokens, a chat template."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(str, range(vocabulary))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * vocabulary]
    keys: list[Key] = [
        ("general.architecture", (STRING, "llama")),
        ("general.name", (STRING, "Little")),
        ("general.license", (STRING, "apache-2.0")),
        ("general.languages", (ARRAY, strings(["en", "zh"]))),
        ("general.file_type", (U32, 15)),
        ("llama.block_count", (U32, 2)),
        ("llama.context_length", (U32, 4096)),
        ("llama.embedding_length", (U32, 64)),
        ("llama.feed_forward_length", (U32, 128)),
        ("llama.attention.head_count", (U32, 8)),
        ("llama.attention.head_count_kv", (U32, 2)),
        ("llama.attention.layer_norm_rms_epsilon", (F32, 1e-5)),
        ("tokenizer.ggml.model", (STRING, "llama")),
        ("tokenizer.ggml.tokens", (ARRAY, strings(tokens[:vocabulary]))),
        ("tokenizer.ggml.scores", (ARRAY, Arr(F32, [0.0] * vocabulary))),
        ("tokenizer.ggml.token_type", (ARRAY, Arr(I32, kinds[:vocabulary]))),
        ("tokenizer.ggml.bos_token_id", (U32, 1)),
        ("tokenizer.ggml.eos_token_id", (U32, 2)),
        ("tokenizer.ggml.padding_token_id", (U32, 2**32 - 1)),
        ("tokenizer.chat_template", (STRING, "{{ messages[0].content }}")),
    ]
    tensors = [Tensor("token_embd.weight", (64, vocabulary)), Tensor("blk.0.attn_q.weight", (64, 64))]
    return Gguf(keys=keys, tensors=tensors, order=order, version=version)


def renamed(made: Gguf, architecture: str) -> Gguf:
    """That model with all its keys under another architecture."""
    keys = [(str(name).replace("llama.", f"{architecture}.", 1), value) for name, value in made.keys]
    return made._with(keys=keys).set("general.architecture", STRING, architecture)
