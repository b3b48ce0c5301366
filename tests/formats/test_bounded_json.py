"""JSON that somebody else wrote: a value or a ValueError, whatever the bytes, and at a bounded cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bendi.errors import ModelFileError
from bendi.formats import MemorySource
from bendi.formats.hf_config import read_config
from bendi.formats.json_scan import MAX_TEXT_BYTES, bounded_json, bounded_json_file
from bendi.formats.safetensors import read_index
from bendi.store.discover import read_manifest
from bendi.store.journal import read_journal
from bendi.store.record import RECORD_NAME, read_record

Bounded = Callable[..., AbstractContextManager[None]]
SEEDED = settings(
    database=None, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_SOUND = {
    "record": {
        "format": 1,
        "models": [{"name": "m", "how": "copy", "files": [{"path": "a.gguf", "size_bytes": 3, "sha256": "0" * 64}]}],
    },
    "journal": {
        "format": 1, "identity": {"url": "http://x/", "size_bytes": 9}, "done": [[0, 4]], "verified_sha256": None,
    },
    "manifest": {
        "layers": [
            {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64, "size": 3},
        ],
    },
    "index": {"metadata": {"total_size": 3}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}},
}  # fmt: skip


def _read(kind: str, data: bytes, folder: Path) -> None:
    """Reads `data` as bendi would; what is refused is refused cleanly."""
    path = folder / (RECORD_NAME if kind == "record" else "x.json")
    path.write_bytes(data)
    if kind == "record":
        assert isinstance(read_record(folder), tuple)
    elif kind == "journal":
        read_journal(path)
    elif kind == "manifest":
        assert isinstance(read_manifest(path), list)
    else:
        try:
            read_index(MemorySource(data), "x")
        except ModelFileError as error:
            assert error.message.isprintable() and error.hint


@pytest.mark.parametrize("kind", _SOUND)
def test_every_truncation_and_every_changed_byte(kind: str, tmp_path: Path, bounded: Bounded) -> None:
    data = json.dumps(_SOUND[kind]).encode()
    with bounded():
        for size in range(len(data) + 1):
            _read(kind, data[:size], tmp_path)
        for position in range(len(data)):
            for byte in (0, data[position] ^ 1, data[position] ^ 0x80, ord("{"), ord("9")):
                _read(kind, data[:position] + bytes([byte]) + data[position + 1 :], tmp_path)


def _places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _replaced(value: Any, place: tuple[Any, ...], other: object) -> Any:
    if not place:
        return other
    made = dict(value) if isinstance(value, dict) else list(value)
    made[place[0]] = _replaced(value[place[0]], place[1:], other)
    return made


@pytest.mark.parametrize("kind", _SOUND)
@settings(SEEDED, max_examples=120)
@given(data=st.data())
def test_every_field_with_values_of_every_kind(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(_places(_SOUND[kind])))
    _read(kind, json.dumps(_replaced(_SOUND[kind], place, data.draw(_JSON))).encode(), tmp_path)


@pytest.mark.parametrize("kind", _SOUND)
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"null", b"\xef\xbb\xbf{}", b"{}" * 2,
        b'{"models":' + b"[" * 900 + b"]" * 900 + b"}", b'{"layers":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)  # fmt: skip
def test_nothing_of_that_kind(kind: str, data: bytes, tmp_path: Path, bounded: Bounded) -> None:
    with bounded():
        _read(kind, data, tmp_path)


@settings(SEEDED, max_examples=300)
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"a":1,"a":2}')
@example(b"\xff\xfe{\x00}\x00")
@example(b"1" * 100_000)
@example(b"-Infinity")
def test_any_bytes(data: bytes) -> None:
    try:
        bounded_json(data)
    except ValueError:
        return
    json.loads(data, parse_int=float)


def test_sound_texts_are_read_as_they_were_written() -> None:
    value = {"a": [1, 2.5, None, True, "中文"], "b": {"c": 2**63}}
    assert bounded_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b"x" * MAX_TEXT_BYTES + b'"',
        b"[" + b"{}," * 60_000 + b"{}]",
        b"[" + b"1," * 300_000 + b"1]",
        b"[" * 2000 + b"]" * 2000,
    ],
    ids=["long", "objects", "values", "deep"],
)
def test_what_would_cost_much_is_refused_before_it_does(data: bytes, bounded: Bounded) -> None:
    with bounded(2 * 2**20), pytest.raises(ValueError):
        bounded_json(data)


def test_no_more_of_a_file_is_read_than_the_limit(tmp_path: Path, bounded: Bounded) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(2**33)
    with bounded(), pytest.raises(ValueError):
        bounded_json_file(path)


def test_what_nests_as_deep_as_can_be_read_can_be_refused() -> None:
    """Printing a value takes more of Python's stack than reading it."""
    deepest: object = 1
    for _level in range(5000):
        deepest = [deepest]
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "rope_scaling", "quantization_config"):
        config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, key: deepest}
        try:
            read_config(config)
        except ModelFileError as error:
            assert error.message.isprintable() and len(error.message) < 500
