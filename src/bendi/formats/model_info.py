"""What a model is, in the words that the rest of bendi uses, from the header of its file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bendi.formats.gguf import read_gguf_split
from bendi.formats.gguf_types import GgufArray, GgufFile, Scalar
from bendi.formats.quant_types import file_type_name

_MAX_LINE = 500


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a model. Names are those of the GGUF keys (docs/gguf.md) where there is one.

    `kind`: `"model"`, or `"adapter"`, `"mmproj"` and the like. `parameters`: weights in all tensors.
    `head_count`, `head_count_kv`: a tuple where layers differ; 0 heads: a layer without attention.
    `key_length`, `value_length`: numbers per head. `context_length`: what the model was trained for, in tokens.
    `file_type`: the quantization that the file claims (`"Q4_K_M"`), None when it does not; `dominant_type`: the
    tensor type that most bytes have. `chat_template_sha256`: of the template as UTF-8.
    `general`: the rest of what the file says about itself, by key without `general.`.
    Texts other than the template are one line each, without control characters: safe to print.
    """

    architecture: str
    kind: str
    name: str
    parameters: int
    block_count: int
    embedding_length: int
    head_count: int | tuple[int, ...]
    head_count_kv: int | tuple[int, ...]
    key_length: int
    value_length: int
    context_length: int | None
    vocab_size: int
    expert_count: int
    expert_used_count: int
    file_type: str | None
    dominant_type: str
    tensor_bytes: int
    bytes_by_type: Mapping[str, int]
    file_size_bytes: int
    tokenizer_model: str
    tokenizer_pre: str
    chat_template: str | None
    chat_template_sha256: str | None
    licence: str
    languages: tuple[str, ...]
    general: Mapping[str, Scalar | tuple[Scalar, ...]]
    split_no: int | None
    split_count: int | None
    split_tensors_count: int | None

    @property
    def quantization(self) -> str:
        """The claimed quantization, or the dominant tensor type."""
        return self.file_type or self.dominant_type


def read_model(path: Path) -> ModelInfo:
    """Facts about the model at `path`, all parts read and checked. Raises as `read_gguf_split`."""
    return model_info(*read_gguf_split(path))


def model_info(gguf: GgufFile, *more: GgufFile) -> ModelInfo:
    """Facts about the model that `gguf` is, or whose first part it is; `more`: its other parts, in order."""
    tensors = [tensor for part in (gguf, *more) for tensor in part.tensors]
    bytes_by_type: dict[str, int] = {}
    for tensor in tensors:
        bytes_by_type[tensor.type.name] = bytes_by_type.get(tensor.type.name, 0) + tensor.size_bytes
    architecture = gguf.architecture
    embedding_length = gguf.integer(f"{architecture}.embedding_length") or 0
    head_count = _per_layer(gguf, f"{architecture}.attention.head_count", 0)
    heads = head_count if isinstance(head_count, int) else next(filter(None, head_count), 0)
    head_length = embedding_length // heads if heads else 0
    expert_used = _per_layer(gguf, f"{architecture}.expert_used_count", 0)
    file_type = gguf.integer("general.file_type")
    template = gguf.text("tokenizer.chat_template") or None
    return ModelInfo(
        architecture=architecture,
        kind=_line(gguf.text("general.type")) or "model",
        name=_line(gguf.text("general.name")),
        parameters=sum(tensor.elements for tensor in tensors),
        block_count=gguf.integer(f"{architecture}.block_count") or 0,
        embedding_length=embedding_length,
        head_count=head_count,
        head_count_kv=_per_layer(gguf, f"{architecture}.attention.head_count_kv", head_count),
        key_length=_scalar(gguf, f"{architecture}.attention.key_length", head_length),
        value_length=_scalar(gguf, f"{architecture}.attention.value_length", head_length),
        context_length=gguf.integer(f"{architecture}.context_length"),
        vocab_size=_vocab_size(gguf),
        expert_count=_scalar(gguf, f"{architecture}.expert_count", 0),
        expert_used_count=expert_used if isinstance(expert_used, int) else max(expert_used, default=0),
        file_type=None if file_type is None else file_type_name(file_type),
        dominant_type=max(bytes_by_type, key=bytes_by_type.__getitem__, default=""),
        tensor_bytes=sum(bytes_by_type.values()),
        bytes_by_type=bytes_by_type,
        file_size_bytes=sum(part.file_size_bytes for part in (gguf, *more)),
        tokenizer_model=_line(gguf.text("tokenizer.ggml.model")),
        tokenizer_pre=_line(gguf.text("tokenizer.ggml.pre")),
        chat_template=template,
        chat_template_sha256=template and hashlib.sha256(template.encode()).hexdigest(),
        licence=_line(gguf.text("general.license")),
        languages=_languages(gguf),
        general=_general(gguf),
        split_no=gguf.integer("split.no"),
        split_count=gguf.integer("split.count"),
        split_tensors_count=gguf.integer("split.tensors.count"),
    )


def _per_layer(gguf: GgufFile, key: str, default: int | tuple[int, ...]) -> int | tuple[int, ...]:
    layers = gguf.array(key)
    if layers is not None and layers.values is not None:
        return tuple(int(value) for value in layers.values)
    number = gguf.integer(key)
    return default if number is None else number


def _scalar(gguf: GgufFile, key: str, default: int) -> int:
    """The number under `key`; the largest, where layers differ."""
    value = _per_layer(gguf, key, default)
    return value if isinstance(value, int) else max(value, default=default)


def _vocab_size(gguf: GgufFile) -> int:
    tokens = gguf.array("tokenizer.ggml.tokens")
    if tokens is not None:
        return tokens.count
    stated = gguf.integer(f"{gguf.architecture}.vocab_size")
    if stated is not None:
        return stated
    return next((t.shape[1] for t in gguf.tensors if t.name == "token_embd.weight" and len(t.shape) > 1), 0)


def _general(gguf: GgufFile) -> dict[str, Scalar | tuple[Scalar, ...]]:
    facts: dict[str, Scalar | tuple[Scalar, ...]] = {}
    for key, value in gguf.metadata.items():
        name = key.removeprefix("general.")
        if name == key:
            continue
        if isinstance(value, GgufArray):
            if value.values is not None:
                facts[name] = tuple(_line(item) if isinstance(item, str) else item for item in value.values)
        else:
            facts[name] = _line(value) if isinstance(value, str) else value
    return facts


def _languages(gguf: GgufFile) -> tuple[str, ...]:
    """An array of codes; a single text in some files."""
    array = gguf.array("general.languages")
    values = (gguf.text("general.languages"),) if array is None else array.values or ()
    return tuple(_line(value) for value in values if isinstance(value, str) and value)


def _line(text: str) -> str:
    """Text from the file as one printable line: a name must not be able to move the cursor of a terminal."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * _MAX_LINE]).split())
    return line if len(line) <= _MAX_LINE else line[: _MAX_LINE - 1] + "…"
