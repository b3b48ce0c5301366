"""Whatever the bytes of a safetensors file or of a config.json say, the answer is facts or a ModelFileError."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors_bytes import SIZES, built, entries, raw

from bendi.errors import ModelFileError
from bendi.formats import MemorySource, SafetensorsFile, model_info_from_config, read_safetensors
from bendi.formats.hf_config import parse_json
from bendi.formats.hf_families import FAMILIES, OTHER_NAMES
from bendi.formats.safetensors import read_index

Bounded = Callable[..., AbstractContextManager[None]]
SEEDED = settings(
    database=None, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SMALL = built({
    "__metadata__": {"format": "pt"},
    **entries({"model.embed_tokens.weight": ("BF16", [8, 4]), "a": ("F32", [2]), "b": ("U8", [0])}),
})  # fmt: skip
HEADER_BYTES = 8 + int.from_bytes(SMALL[:8], "little")


def outcome(data: bytes) -> SafetensorsFile | None:
    """Reads `data`, whatever it is; what is accepted must be whole and lie inside the file."""
    try:
        file = read_safetensors(MemorySource(data), "x.safetensors")
    except ModelFileError as error:
        assert error.message.isprintable() and error.hint
        return None
    covered = sorted((tensor.offset, tensor.offset + tensor.size_bytes) for tensor in file.tensors)
    end = 0
    for begin, finish in covered:
        assert begin == end <= finish
        end = finish
    assert file.data_offset + end == len(data)
    assert len({tensor.name for tensor in file.tensors}) == len(file.tensors)
    return file


def test_truncated_everywhere(bounded: Bounded) -> None:
    assert outcome(SMALL) is not None
    with bounded():
        for size in range(len(SMALL)):
            assert outcome(SMALL[:size]) is None, size


def test_every_byte_of_the_header_changed(bounded: Bounded) -> None:
    data = bytearray(SMALL)
    with bounded():
        for flip in (0x01, 0x80, 0xFF):
            for position in range(HEADER_BYTES):
                data[position] ^= flip
                outcome(bytes(data))
                data[position] ^= flip


_PIECES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"null", b"-1", b"1e999", b"\xe4\xb8"]),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
    st.integers(0, 2**64 - 1).map(lambda number: struct.pack("<Q", number)),
)
_EDITS = st.lists(st.tuples(st.integers(0, HEADER_BYTES), st.integers(0, 30), _PIECES), min_size=1, max_size=5)


@settings(SEEDED, max_examples=400)
@given(_EDITS)
def test_edited(bounded: Bounded, edits: list[tuple[int, int, bytes]]) -> None:
    data = SMALL
    for position, removed, piece in edits:
        data = data[:position] + piece + data[position + removed :]
    with bounded():
        outcome(data)


@settings(SEEDED, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 400))
@example(b"{" * 300, 300)
def test_random_headers(bounded: Bounded, data: bytes, length: int) -> None:
    with bounded():
        outcome(struct.pack("<Q", length) + b"{" + data)
        outcome(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*SIZES, "F4", "Q9"]) | _JSON,
        "shape": st.lists(st.integers(-1, 2**64), max_size=5) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 100), min_size=2, max_size=2) | _JSON,
    },
)


@settings(SEEDED, max_examples=300)
@given(st.dictionaries(st.text(max_size=6) | st.just("__metadata__"), _FIELDS | _JSON, max_size=5), st.integers(0, 100))
def test_well_formed_nonsense(bounded: Bounded, made: dict[str, Any], data: int) -> None:
    with bounded():
        outcome(raw(json.dumps(made).encode(), data))


_TENSORS = st.dictionaries(
    st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12).filter(lambda name: name.isprintable()),
    st.tuples(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 5), max_size=4)),
    max_size=8,
)


@settings(SEEDED, max_examples=150)
@given(_TENSORS, st.randoms(use_true_random=False))
def test_everything_sound_is_read_as_it_was_written(tensors: dict[str, tuple[str, list[int]]], random: Any) -> None:
    """In any order of the entries."""
    tensors.pop("__metadata__", None)
    made = entries(tensors)
    order = list(made)
    random.shuffle(order)
    file = outcome(built({name: made[name] for name in order}))
    assert file is not None
    found = {tensor.name: (tensor.dtype, list(tensor.shape)) for tensor in file.tensors}
    assert found == {name: (dtype, list(shape)) for name, (dtype, shape) in tensors.items()}


@settings(SEEDED, max_examples=200)
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps({"weight_map": value}).encode()))
def test_any_index(bounded: Bounded, data: bytes) -> None:
    with bounded():
        try:
            index = read_index(MemorySource(data), "index.json")
        except ModelFileError as error:
            assert error.message.isprintable() and error.hint
        else:
            assert index.files and set(index.weight_map.values()) == set(index.files)


KEYS = sorted({
    *OTHER_NAMES, *(name for names in OTHER_NAMES.values() for name in names),
    *(key for family in FAMILIES.values() for key in family),
    "layer_types", "rope_scaling", "rope_parameters", "use_sliding_window", "max_window_layers", "num_kv_shared_layers",
    "attention_k_eq_v", "num_global_key_value_heads", "quantization_config", "quantization", "architectures",
    "_name_or_path", "text_config", "thinker_config", "original_max_position_embeddings", "sliding_window_pattern",
})  # fmt: skip
_ODD = (-1, 2**31, 2**63, True, 1.5, float("inf"), float("nan"), None, "8", [])
_NUMBERS = st.integers(0, 200) | st.sampled_from(_ODD)
_ROPE = st.dictionaries(
    st.sampled_from(["type", "rope_type", "factor", "original_max_position_embeddings", "full_attention"]),
    _NUMBERS | st.sampled_from(["yarn", "linear", "llama3", "default"]),
)
_KINDS = st.lists(st.sampled_from(["full_attention", "sliding_attention", "mamba", 3]), max_size=8)
_VALUES = _NUMBERS | _ROPE | _KINDS | _JSON
_BASE = st.fixed_dictionaries({
    "model_type": st.sampled_from([*FAMILIES, "gemma3_text", "new"]) | _JSON,
    "num_hidden_layers": st.integers(1, 8),
    "hidden_size": st.integers(1, 512),
})  # fmt: skip
TENSORS = read_safetensors(MemorySource(SMALL), "x").tensors


@settings(SEEDED, max_examples=600)
@given(_BASE, st.dictionaries(st.sampled_from(KEYS), _VALUES, max_size=8))
def test_any_config(bounded: Bounded, base: dict[str, Any], more: dict[str, Any]) -> None:
    with bounded():
        try:
            config = parse_json(MemorySource(json.dumps({**base, **more}).encode()), "config.json")
            info, anatomy, notes = model_info_from_config(config, TENSORS)
        except ModelFileError as error:
            assert error.message.isprintable() and error.hint
            return
    assert len(anatomy.layers) == info.block_count > 0
    assert 0 <= anatomy.active_parameters <= max(info.parameters, info.parameters * info.expert_used_count)
    assert all(number >= 0 for number in (info.embedding_length, info.key_length, info.value_length, info.vocab_size))
    assert info.context_length is None or info.context_length > 0
    assert all(note.isprintable() for note in notes)
    assert isinstance(info.head_count_kv, int) or len(info.head_count_kv) == info.block_count


@settings(SEEDED, max_examples=200)
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"a":' * 50_000)
@example(b'{"a":' + b"9" * 10_000 + b"}")
@example(b"\xff\xfe{}")
@example(b'{"a":1,"a":2}')
def test_any_json(bounded: Bounded, data: bytes) -> None:
    with bounded():
        try:
            assert isinstance(parse_json(MemorySource(data), "config.json"), dict)
        except ModelFileError as error:
            assert error.message.isprintable() and error.hint
